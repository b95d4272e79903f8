"""Write report.html of a run folder: python -m eijax.report WORKDIR."""

import sys

from absl import app, flags

from eijax.errors import EijaxError, UsageError
from eijax.report.write import write_report

_SCENARIOS = flags.DEFINE_string(
    'scenarios',
    None,
    'Folder whose test/ holds the held-out scenarios, for their titles and opening lines. '
    'Default: the folder that the run used, if it is there.',
)


def main(argv: list[str]) -> None:
  try:
    if len(argv) != 2:
      raise UsageError(f'{len(argv) - 1} arguments given; give one run folder: python -m eijax.report WORKDIR')
    print(write_report(argv[1], scenarios=_SCENARIOS.value))
  except EijaxError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(error.exit_code)


if __name__ == '__main__':
  app.run(main)
