"""Write report.html of a run folder: python -m eijax.report WORKDIR."""

from absl import flags

from eijax import command
from eijax.errors import UsageError
from eijax.report.write import write_report

_SCENARIOS = flags.DEFINE_string(
    'scenarios',
    None,
    'Folder whose test/ holds the held-out scenarios, for their titles and opening lines. '
    'Default: the folder that the run used, if it is there.',
)


def main(argv: list[str]) -> None:
  if len(argv) != 2:
    raise UsageError(f'{len(argv) - 1} arguments given; give one run folder: python -m eijax.report WORKDIR')
  print(write_report(argv[1], scenarios=_SCENARIOS.value))


if __name__ == '__main__':
  command.run(main)
