"""Serve a scripted defender as a chat endpoint: python -m eijax.scripted --defender=NAME."""

from absl import flags

from eijax import command
from eijax.errors import EijaxError, UsageError
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SPLITS
from eijax.scenarios.shipped import shipped_folder
from eijax.scripted.policy import Script
from eijax.simulator import faults, server as server_lib

# Those that leave its words as they are: the simulator's spoilt answers, and text in the channel
# for thoughts, would be other lines of the talk.
_FAULTS = (*faults.FAULTS, 'odd_usage', 'content_parts', 'other_charset')

_DEFENDER = flags.DEFINE_string('defender', 'decent', 'Name of the scripted defender.')
_PORT = flags.DEFINE_integer('port', 8767, 'TCP port on loopback; 0 takes a free one.', lower_bound=0, upper_bound=65535)
_SCENARIOS = flags.DEFINE_string('scenarios', str(shipped_folder()), 'Folder with the train/ and test/ that it can play.')
_LATENCY_SECS = flags.DEFINE_float(
    'latency_secs', 0.0, 'Mean time that an answer takes, in seconds: log-normal, and no less than the work on it.', lower_bound=0.0)
_FAULT_RATE = flags.DEFINE_float(
    'fault_rate', 0.0, f'Share of requests (0..1) that meet a fault: {", ".join(_FAULTS)}.',
    lower_bound=0.0, upper_bound=1.0)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of delays and faults.')
_FOLLOW_PARENT = flags.DEFINE_bool('follow_parent', False, 'Exit when stdin closes or the parent process ends.')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UsageError(f'unexpected argument {argv[1]!r}; every setting is a flag, see --help')
  scenarios = [scenario for split in SPLITS for scenario in load_split(_SCENARIOS.value, split)]
  try:
    server = server_lib.SimulatorServer(
        port=_PORT.value, seed=_SEED.value, latency_secs=_LATENCY_SECS.value, fault_rate=_FAULT_RATE.value,
        model=f'scripted-{_DEFENDER.value}', responder=Script(_DEFENDER.value, scenarios), fault_names=_FAULTS)
  except OSError as error:
    raise EijaxError(
        f'--port={_PORT.value} cannot be opened on 127.0.0.1 ({error.strerror}); use another one, or 0 for any') from error
  server_lib.serve_until_stopped(server, follow_parent=_FOLLOW_PARENT.value)


if __name__ == '__main__':
  command.run(main)
