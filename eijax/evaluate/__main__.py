"""Hold a model's talks over scenarios and score them: python -m eijax.evaluate.

Talks run concurrently and independently; each is on disk as soon as it ends, and the same
command goes on where it was stopped.
"""

import os
import signal
import sys
from typing import NoReturn

from absl import flags

from eijax import collector, command
from eijax.errors import EijaxError, UsageError
from eijax.evaluate import flags as flags_lib
from eijax.evaluate.run import Interrupted, Options, run

_OPTIONS = ('out', 'resume', 'retry_failed', 'record', 'replay')


def _interrupt(number: int, frame: object) -> NoReturn:
  del frame
  for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, signal.SIG_DFL)  # Who asks twice does not want to wait.
  raise Interrupted('interrupted; start the same command again to go on', 128 + number)


def _leave(message: str, status: int) -> NoReturn:
  """Exit now: requests in flight would hold up an ordinary exit until their endpoints answer."""
  print(message, file=sys.stderr)
  sys.stdout.flush()
  sys.stderr.flush()
  os._exit(status)


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UsageError(f'unexpected argument {argv[1]!r}; every setting is a flag, see --help')
  values = flags.FLAGS
  config = flags_lib.build_config(values)
  for each in (signal.SIGINT, signal.SIGTERM):
    signal.signal(each, _interrupt)
  collector.relieve()
  try:
    run(config, Options(**{name: values[name].value for name in _OPTIONS}))
  except Interrupted as error:
    _leave(str(error), error.status)
  except EijaxError as error:
    _leave(f'error: {error}', error.exit_code)


if __name__ == '__main__':
  flags_lib.define()
  command.run(main)
