"""The frame of every command: flags in, one clear message and an exit status out."""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import importlib
import os
import sys

from absl import app, flags
from absl import logging as absl_logging

from eijax.errors import EijaxError, PreemptedError, UsageError

_HELP = ('--help', '-h', '-help', '--helpfull', '--helpshort')


def _parse(argv: list[str]) -> list[str]:
  """absl's parser, with the exit statuses of other commands: 0 for --help, 2 for a bad flag."""
  try:
    return flags.FLAGS(argv)
  except flags.Error as error:
    print(f'error: {error}; see --help', file=sys.stderr)
    sys.exit(UsageError.exit_code)
  except SystemExit:
    sys.exit(0)  # Only --help and its like exit while flags are read; absl lets them exit 1.


@contextlib.contextmanager
def _framed() -> Iterator[None]:
  """An EijaxError becomes one line on stderr; any other exception is a bug and keeps its traceback."""
  try:
    yield
  except PreemptedError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.stdout.flush()
    os._exit(error.exit_code)  # Threads that still wait for an answer from the network would hold the exit up.
  except EijaxError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(error.exit_code)
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    sys.exit(130)
  except BrokenPipeError:
    # The reader of our output (`| head`) has seen enough; what is still buffered would fail again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)


def run(main: Callable[[list[str]], None]) -> None:
  """Parse flags, call main with what is left of the command line, and exit."""

  def framed(argv: list[str]) -> None:
    if not flags.FLAGS['verbosity'].present:
      # absl turns INFO on, which has libraries tell the terminal of every backend that they did not find.
      absl_logging.set_verbosity(absl_logging.WARNING)
    with _framed():
      main(argv)

  app.run(framed, flags_parser=_parse)


def run_subcommand(program: str, summary: str, table: Mapping[str, tuple[str, str]], argv: list[str]) -> None:
  """Run one of several commands under one name, each with flags of its own.

  Args:
    program: how the command is called, e.g. 'python -m eijax.scenarios'.
    summary: what it is for, one line.
    table: name -> (module, what it does in one line). The module, imported only when it is asked
      for, has `define_flags(flag_values)` and `run(flag_values, arguments)`.
    argv: the command line as sys.argv has it.
  Raises:
    SystemExit: 0 for help; 1 or 2 as the error says.
  """
  name = argv[1] if len(argv) > 1 else ''
  width = max(map(len, table))
  listing = '\n'.join(f'  {key:<{width}}  {text}' for key, (_, text) in table.items())
  usage = f'{summary}\n\nusage: {program} SUBCOMMAND ...\n\n{listing}\n\nEach takes --help.'
  if name in _HELP:
    print(usage)
    sys.exit(0)
  if not name:
    print(usage, file=sys.stderr)
    sys.exit(UsageError.exit_code)
  with _framed():
    if name not in table:
      raise UsageError(f'no such subcommand: {name!r}; use one of {", ".join(table)}')
    module = importlib.import_module(table[name][0])
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # Flags may stand behind the folder that they are about.
    module.define_flags(values)
    rest = argv[2:]
    if any(word in _HELP for word in (rest[: rest.index('--')] if '--' in rest else rest)):
      own = values.get_help(include_special_flags=False).partition('\n')[2]
      print(f'{(module.__doc__ or "").strip()}\n\nusage: {program} {name} ...\n\nflags:\n{own}')
      sys.exit(0)
    try:
      arguments = values([f'{program} {name}', *rest])[1:]
    except flags.Error as error:
      raise UsageError(f'{error}; see --help') from None
    module.run(values, arguments)
