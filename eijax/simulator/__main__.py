"""Serve the embedded simulator: python -m eijax.simulator."""

from absl import flags

from eijax import command
from eijax.errors import SimulatorError, UsageError
from eijax.simulator import faults
from eijax.simulator import server as server_lib

_PORT = flags.DEFINE_integer(
  'port', 8765, 'TCP port on loopback; 0 takes a free one.', lower_bound=0, upper_bound=65535
)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of noise and wording.')
_LATENCY_SECS = flags.DEFINE_float(
  'latency_secs', 0.0, 'Mean time that an answer takes, in seconds: log-normal, and no less than the work on it.'
)
_FAULT_RATE = flags.DEFINE_float(
  'fault_rate',
  0.0,
  'Share of requests (0..1) that meet a fault, seeded by their content and how often they came, so that a retry comes '
  'through and the talk is the same as without: ' + '; '.join(f'{name} ({text})' for name, text in faults.ALL.items()) + '.',
)
_FOLLOW_PARENT = flags.DEFINE_bool(
  'follow_parent', False, 'Exit when stdin closes or the parent process ends.'
)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UsageError(f'unexpected argument {argv[1]!r}; every setting is a flag, see --help')
  if _LATENCY_SECS.value < 0:
    raise UsageError(f'--latency_secs={_LATENCY_SECS.value} must be at least 0')
  if not 0 <= _FAULT_RATE.value <= 1:
    raise UsageError(f'--fault_rate={_FAULT_RATE.value} must lie in 0..1')
  try:
    server = server_lib.SimulatorServer(
      port=_PORT.value,
      seed=_SEED.value,
      latency_secs=_LATENCY_SECS.value,
      fault_rate=_FAULT_RATE.value,
    )
  except OSError as error:
    raise SimulatorError(
      f'--port={_PORT.value} cannot be opened on 127.0.0.1 ({error.strerror}); use another one, or 0 for any'
    ) from error
  server_lib.serve_until_stopped(server, follow_parent=_FOLLOW_PARENT.value)


if __name__ == '__main__':
  command.run(main)
