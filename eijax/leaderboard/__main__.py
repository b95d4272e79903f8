"""Rank evaluations: python -m eijax.leaderboard RUN...

RUN is a folder of eijax.evaluate or an eval/step_NNNNNN of a training run; NAME=FOLDER gives it a
name. Prints the ranking and writes leaderboard.md, leaderboard.csv and leaderboard.html, a page with
curves, failure modes and every talk, which needs no network.
"""

import pathlib
import sys

from absl import flags

from eijax import command
from eijax.leaderboard import ranking
from eijax.leaderboard.entries import read_entries, titled_scenarios, warnings
from eijax.leaderboard.write import MAX_TEXT_CHARS, write_leaderboard
from eijax.report.examples import scenarios_by_id
from eijax.scenarios.shipped import shipped_folder

_OUT = flags.DEFINE_string('out', 'leaderboard', 'Folder for the three files; old ones there are replaced.')
_TITLE = flags.DEFINE_string('title', 'Leaderboard', 'Heading of the page.')
_SCENARIOS = flags.DEFINE_string(
    'scenarios', None,
    'Folder whose test/ holds the scenarios, for their titles, opening lines and targets. Default: the shipped ones.',
)
_THOUGHTS = flags.DEFINE_bool('thoughts', True, 'Put the thoughts of the models into the page; they may be most of its size.')
_MAX_TEXT_CHARS = flags.DEFINE_integer(
    'max_text_chars', MAX_TEXT_CHARS, 'Characters of one line, thought or part of a reflection; longer ones are cut.',
    lower_bound=100,
)


def main(argv: list[str]) -> None:
  entries = read_entries(argv[1:])
  for warning in warnings(entries):
    print(f'warning: {warning}', file=sys.stderr)
  known = scenarios_by_id(_SCENARIOS.value or shipped_folder())
  print('\n'.join([*ranking.to_lines(entries), '', ranking.NOTE]))
  paths = write_leaderboard(
      entries, pathlib.Path(_OUT.value), title=_TITLE.value, scenarios=titled_scenarios(entries, known),
      max_text_chars=_MAX_TEXT_CHARS.value, thoughts=_THOUGHTS.value,
  )
  for path in paths:
    print(f'wrote {path} ({path.stat().st_size / 1e6:.1f} MB)', file=sys.stderr)


if __name__ == '__main__':
  flags.FLAGS.set_gnu_getopt(True)  # Flags may stand behind the folders.
  command.run(main)
