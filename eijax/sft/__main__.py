"""Fine-tune a policy on conversations: python -m eijax.sft --data=FILE.

Chats in JSONL or a tensorflow-datasets set -> the policy's own chat template and tokenizer -> loss on assistant
turns only -> packed rows -> the learner of eijax.train -> checkpoint, metrics and report.html. The folder of the run
is a policy for eijax.evaluate, eijax.serve, eijax.convert and eijax.train.
"""

import os

from absl import flags

from eijax import command, flags as train_flags
from eijax.errors import UsageError
from eijax.sft import flags as flags_lib
from eijax.sft.run import fine_tune
from eijax.training.peers import joined


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UsageError(f'unexpected argument {argv[1]!r}; every setting is a flag, see --help')
  values = flags.FLAGS
  config = flags_lib.build_config(values)
  workdir = values.workdir or os.path.join('runs', f'{config.preset}-sft-seed{config.seed}')
  machine = train_flags.build_machine(values)
  with joined(machine, tpu=values.tpu) as peers:
    fine_tune(config, workdir, tpu=values.tpu, resume=values.resume, machine=machine, peers=peers)


if __name__ == '__main__':
  flags_lib.define()
  command.run(main)
