"""A fine-tuning small enough for tests. Run as a program, it kills itself at a named moment:

    python tests/tiny_sft.py WORKDIR MOMENT -- FLAG...
"""

import json
import os
import random
import signal

from absl import flags

from eijax import command
from eijax.config import SftConfig
from tiny_run import at_call, use_one_device

THINGS = ('dog', 'boat', 'lamp', 'coat', 'bike', 'pipe')


def talks(num: int, seed: int = 0) -> list[list[dict]]:
  """Conversations of one or three turns, whose replies can be learned."""
  rng = random.Random(seed)
  result = []
  for number in range(num):
    messages = [{'role': 'system', 'content': f'Bo {number}.'}]
    for _ in range(1 if number % 4 else 3):
      thing = rng.choice(THINGS)
      messages += [{'role': 'user', 'content': f'My {thing}?'}, {'role': 'assistant', 'content': f'Red {thing}.'}]
    result.append(messages)
  return result


def write_chats(path, conversations) -> str:
  path.write_text(''.join(json.dumps({'messages': messages, 'id': i}) + '\n' for i, messages in enumerate(conversations)))
  return str(path)


def tiny_flags(policy, data, *more: str) -> list[str]:
  """Four epochs of 40 conversations in rows of two lengths: 16 steps."""
  return ['--preset=demo', f'--policy={policy}', f'--data={data}', '--row_lengths=32,80', '--rows_per_minibatch=4',
          '--num_epochs=4', '--checkpoint_every=3', '--eval_every=4', '--held_out_fraction=0.2', '--learning_rate=0.02',
          '--chunk_length=0', '--scan_unroll=1', *more]


def build(*arguments: str) -> SftConfig:
  from eijax.sft import flags as flags_lib  # pylint: disable=import-outside-toplevel

  values = flags.FlagValues()
  flags_lib.define(values)
  values(['sft', *arguments])
  return flags_lib.build_config(values)


def _die() -> None:
  os.kill(os.getpid(), signal.SIGKILL)


def _plan(moment: str) -> None:
  # pylint: disable=import-outside-toplevel
  from eijax.learning import sharding
  from eijax.sft.held_out import HeldOut
  import orbax.checkpoint as ocp

  {
      'none': lambda: None,
      'first measure': lambda: at_call(HeldOut, 'measure', 1, _die),
      'update': lambda: at_call(sharding, 'put_batch', 8, _die),
      'measure': lambda: at_call(HeldOut, 'measure', 1, _die),
      # Orbax has finished the optimizer's part of a step, not that of the params.
      'save': lambda: at_call(ocp.StandardCheckpointHandler, 'finalize', 2, _die),
  }[moment]()


def main(argv) -> None:
  from eijax.sft.run import fine_tune  # pylint: disable=import-outside-toplevel

  workdir, moment = argv[1:3]
  use_one_device(setattr)
  _plan(moment)
  fine_tune(build(*argv[3:]), workdir, tpu=False, resume=True)


if __name__ == '__main__':
  command.run(main)
