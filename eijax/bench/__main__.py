"""Time the programs of a run at given shapes: python -m eijax.bench SUBCOMMAND."""

import sys

from eijax import command

SUBCOMMANDS = {
    'train_step': ('eijax.bench.train_step', 'updates of the learner: tokens of the rows a second'),
    'generate': ('eijax.bench.generate', 'responses of the sampler: new tokens a second, prompts included in the time'),
    'rollout': ('eijax.bench.rollout', 'whole talks with the embedded simulator: episodes and sampled tokens a second'),
    'ceilings': ('eijax.bench.ceilings', 'the memory bandwidth and the products of the device, to compare with'),
}


def main(argv: list[str]) -> None:
  command.run_subcommand(
      'python -m eijax.bench', 'Time the programs of a run at given shapes, with random weights; prints one JSON line.', SUBCOMMANDS, argv)


if __name__ == '__main__':
  main(sys.argv)
