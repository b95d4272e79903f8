"""A training run small enough for tests: scenarios, config and one CPU device.

Run as a program (tests/forked.py), it trains again and again, and kills itself or meets a full disk at a named moment each time:

    python tests/tiny_run.py SCENARIOS WORKDIR MOMENT...
"""

import contextlib
import errno
import functools
import json
import os
import pathlib
import signal
import sys

from eijax.config import EpisodeConfig, EvaluationConfig, LearnerConfig, RunConfig, SimulatorConfig
from eijax.learning.optimizer import OptimizerConfig
from eijax.learning.packing import PackingConfig
from eijax.policy.config import PolicyConfig
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.scenarios.record import SCENES, SPLITS
from eijax.warmup.config import WarmupConfig
import forked
from talks import make_record

NUM_STEPS = 3
_THINGS = {'train': ('dog', 'boat', 'lamp'), 'test': ('bike', 'coat', 'pipe')}
_OPENINGS = {'support': 'My {0} is gone.', 'defense': 'Give me your {0} now.', 'repair': 'You broke my {0}.'}


def write_scenarios(folder) -> str:
  """Two training and one held-out situation a scene, each with a sheet of a few words."""
  for split in SPLITS:
    for scene in SCENES:
      records = []
      for number in range(2 if split == 'train' else 1):
        thing, other = _THINGS[split][number], _THINGS[split][number + 1]
        facts = f'- The {thing} was red.\n- It was lost on Monday at nine.\n- Bo has a {other}.'
        opening = {} if scene == 'charm' else {'aggressor_profile__opening_line': _OPENINGS[scene].format(thing)}
        records.append(make_record(
            scene, id=f'{scene}-{split}-{number}', appraisal=True,
            aggressor_profile__system_prompt=f'### Background\nYou are Ann.\n\n### Known facts\n{facts}',
            defender_profile__system_prompt=f'You are Bo.\n\n### Known facts\n{facts}', **opening))
      path = pathlib.Path(folder) / split / f'{scene}_final.jsonl'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(''.join(json.dumps(record) + '\n' for record in records))
  return str(folder)


def tiny_config(scenarios: str, **changes) -> RunConfig:
  """Three steps of two scenarios by two traces; checkpoints and held-out talks at steps 0, 2 and 3."""
  context = 320
  values = dict(
      preset='tiny', num_steps=NUM_STEPS, checkpoint_every=2, scenarios=scenarios,
      policy=PolicyConfig(vocab_size=420, num_layers=2, hidden_dim=32, num_heads=2, num_kv_heads=1, head_dim=16,
                          mlp_dim=48, tie_embeddings=True),
      sampling=SamplingConfig(max_new_tokens=12),
      sampler=SamplerShapes(num_slots=4, spans=(192, context), chunks=(96,)),
      episodes=EpisodeConfig(scenarios_per_step=2, group_size=2, max_rounds=3, thinking=False),
      simulator=SimulatorConfig(concurrency=4, timeout_secs=30.0),
      optimizer=OptimizerConfig(learning_rate=1e-3),
      packing=PackingConfig(row_lengths=(context,), rows_per_minibatch=2, num_minibatches=2),
      learner=LearnerConfig(num_micro_batches=2, chunk_length=0),
      evaluation=EvaluationConfig(num_samples=1, every=2),
      warmup=WarmupConfig(
          num_exercises=4, num_talks=4, num_passes=1, packing=PackingConfig(row_lengths=(context,), rows_per_minibatch=2),
          optimizer=OptimizerConfig(learning_rate=1e-3)))
  return RunConfig(**{**values, **changes})


def use_one_device(patch) -> None:
  """Put runs on one of the virtual devices that the test process has.

  patch: setattr, or that of pytest's monkeypatch.
  """
  import jax  # pylint: disable=import-outside-toplevel
  from eijax.learning import sharding  # pylint: disable=import-outside-toplevel
  from eijax.training import learner  # pylint: disable=import-outside-toplevel

  one, make_mesh = jax.devices()[:1], sharding.make_mesh
  patch(sharding, 'make_mesh', lambda spec='', devices=None: make_mesh(spec, one))
  patch(learner, 'run_mesh', functools.partial(learner.run_mesh, devices=one))


def at_call(owner, name: str, number: int, act, patch=setattr) -> None:
  """Have call `number` (from 1) of owner.name begin with act(). patch: setattr, or that of pytest's monkeypatch."""
  original, calls = getattr(owner, name), []

  @functools.wraps(original)
  def counted(*args, **kwargs):
    calls.append(name)
    if len(calls) == number:
      act()
    return original(*args, **kwargs)

  patch(owner, name, counted)


def sigterm(*_) -> None:
  os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def sigterm_at(owner, name: str, number: int):
  """SIGTERM for this process at the start of call `number` (from 1) of owner.name."""
  original = getattr(owner, name)
  at_call(owner, name, number, sigterm)
  try:
    yield
  finally:
    setattr(owner, name, original)


def _die() -> None:
  os.kill(os.getpid(), signal.SIGKILL)


def _full_disk(*_) -> None:
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _plan(moment: str) -> None:
  """Arrange what happens to this process; calls are counted from its start."""
  # pylint: disable=import-outside-toplevel
  from eijax import train
  from eijax.evaluation.store import ResultStore
  from eijax.learning import sharding
  from eijax.simulator.client import SimulatorClient
  from eijax.training.run_folder import RunFolder
  import orbax.checkpoint as ocp

  in_second_step = functools.partial(at_call, train, 'run_rollouts', 2)
  {
      'none': lambda: None,
      'warm-up': lambda: at_call(sharding, 'put_batch', 2, _die),
      'evaluation': lambda: at_call(ResultStore, 'add', 3, _die),
      # Where the evaluation of step 0 is there already.
      'later evaluation': lambda: at_call(ResultStore, 'add', 2, _die),
      # Four talks a step: the sixth request is in the second round.
      'talks': lambda: in_second_step(lambda: at_call(SimulatorClient, 'submit', 6, _die)),
      'update': lambda: in_second_step(lambda: at_call(sharding, 'put_batch', 2, _die)),
      # Orbax has finished the optimizer's part of a step, not that of the params. Where step 0 is there already.
      'save': lambda: at_call(ocp.StandardCheckpointHandler, 'finalize', 2, _die),
      'full disk in metrics': lambda: at_call(
          RunFolder, 'add_metrics', 2, lambda: setattr(os, 'fsync', _full_disk)),
      'full disk in a checkpoint': lambda: setattr(os, 'posix_fallocate', _full_disk),
  }[moment]()


def _life(scenarios: str, workdir: str, moment: str) -> None:
  from eijax import train  # pylint: disable=import-outside-toplevel

  use_one_device(setattr)
  _plan(moment)
  train.train(tiny_config(scenarios), workdir, tpu=False, resume=True)


def main(scenarios: str, workdir: str, *moments: str) -> None:
  import eijax.train  # For all lives. pylint: disable=import-outside-toplevel, unused-import

  forked.live([functools.partial(_life, scenarios, workdir, moment) for moment in moments])


if __name__ == '__main__':
  main(*sys.argv[1:])
