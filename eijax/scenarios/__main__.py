"""Make, check and fetch sets of scenarios: python -m eijax.scenarios SUBCOMMAND."""

import sys

from eijax import command

# The modules stand in rooms above this one, which are imported by name only when asked for.
SUBCOMMANDS = {
  'validate': ('eijax.curation.validate', 'check a set against every rule; exits 1 with the list of what breaks one'),
  'stats': ('eijax.curation.stats', 'lengths, vocabulary, tables and anchors of a set, as text, HTML and JSON'),
  'dedup': ('eijax.curation.dedup', 'write a set without near-copies, of held-out scenarios above all'),
  'build': ('eijax.curation.build', 'write scenario_data from the hand-written cards, or check that it is up to date'),
  'generate': ('eijax.generation.generate', 'write new scenarios with an LLM of yours, resumable'),
  'clean': ('eijax.generation.clean', 'mend format and anchors of a set, with an LLM of yours where rules do not do'),
  'fetch': ('eijax.datasets.fetch', 'download the set of the EIBench authors (CC BY-NC 4.0) for local use'),
}


def main(argv: list[str]) -> None:
  command.run_subcommand(
    'python -m eijax.scenarios', 'Make, check and fetch sets of scenarios.', SUBCOMMANDS, argv
  )


if __name__ == '__main__':
  main(sys.argv)
