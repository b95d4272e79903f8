"""The frame of every command: flags in, one clear message and an exit status out."""

from collections.abc import Callable
import sys

from absl import app, flags
from absl import logging as absl_logging

from eijax.errors import EijaxError, UsageError


def _parse(argv: list[str]) -> list[str]:
  """absl's parser, with the exit statuses of other commands: 0 for --help, 2 for a bad flag."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    print(f'error: {error}; see --help', file=sys.stderr)
    sys.exit(UsageError.exit_code)
  except SystemExit:
    sys.exit(0)  # Only --help and its like exit while flags are read; absl lets them exit 1.


def run(main: Callable[[list[str]], None]) -> None:
  """Parse flags, call main with what is left of the command line, and exit.

  An EijaxError becomes one line on stderr; any other exception is a bug and keeps its traceback.
  """

  def framed(argv: list[str]) -> None:
    if not flags.FLAGS['verbosity'].present:
      # absl turns INFO on, which has libraries tell the terminal of every backend that they did not find.
      absl_logging.set_verbosity(absl_logging.WARNING)
    try:
      main(argv)
    except EijaxError as error:
      print(f'error: {error}', file=sys.stderr)
      sys.exit(error.exit_code)
    except KeyboardInterrupt:
      print('interrupted', file=sys.stderr)
      sys.exit(130)

  app.run(framed, flags_parser=_parse)
