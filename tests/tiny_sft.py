"""A fine-tuning small enough for tests.

Run as a program (tests/forked.py), it is begun again and again, and kills itself at a named moment each time:

    python tests/tiny_sft.py WORKDIR MOMENT... -- FLAG...

Or it is one fine-tuning by several processes at once, in which each meets its moment:

    python tests/tiny_sft.py WORKDIR --together=HOST:PORT MOMENT... -- FLAG...
"""

import functools
import json
import os
import random
import signal
import sys

from absl import flags

from eijax.config import SftConfig
import forked
from tiny_run import at_call, sigterm, use_one_device

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
  from eijax.sft.metrics import MetricsRows
  import orbax.checkpoint as ocp

  {
      'none': lambda: None,
      'sigterm': lambda: at_call(MetricsRows, 'hold', 2, sigterm),
      'first measure': lambda: at_call(HeldOut, 'measure', 1, _die),
      'update': lambda: at_call(sharding, 'put_batch', 8, _die),
      'measure': lambda: at_call(HeldOut, 'measure', 1, _die),
      # Orbax has finished the optimizer's part of a step, not that of the params.
      'save': lambda: at_call(ocp.StandardCheckpointHandler, 'finalize', 2, _die),
  }[moment]()


def _life(workdir: str, moment: str, arguments: list[str]) -> None:
  from eijax.sft.run import fine_tune  # pylint: disable=import-outside-toplevel

  use_one_device(setattr)
  _plan(moment)
  fine_tune(build(*arguments), workdir, tpu=False, resume=True)


def _life_of_several(workdir: str, moment: str, arguments: list[str], coordinator: str, count: int, index: int) -> None:
  # pylint: disable=import-outside-toplevel
  from eijax.sft.run import fine_tune
  from eijax.training.machine import MachineConfig
  from eijax.training.peers import joined

  _plan(moment)
  machine = MachineConfig(coordinator=coordinator, num_processes=count, process_id=index)
  with joined(machine, tpu=False) as peers:
    fine_tune(build(*arguments), workdir, tpu=False, resume=True, machine=machine, peers=peers)


def main(workdir: str, *others: str) -> None:
  import eijax.sft.run  # For all lives. pylint: disable=import-outside-toplevel, unused-import

  end = others.index('--')
  moments, arguments = list(others[:end]), list(others[end + 1:])
  if moments[0].startswith('--together='):
    coordinator = moments.pop(0).partition('=')[2]
    forked.live([functools.partial(_life_of_several, workdir, moment, arguments, coordinator, len(moments), index)
                 for index, moment in enumerate(moments)], at_once=True)
  else:
    forked.live([functools.partial(_life, workdir, moment, arguments) for moment in moments])


if __name__ == '__main__':
  main(*sys.argv[1:])
