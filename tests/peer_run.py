"""A tiny run of several processes (tests/forked.py), each with four virtual CPU devices, in which each meets its moment.

    python tests/peer_run.py POLICY WORKDIR COORDINATOR MOMENT...
"""

import dataclasses
import functools
import os
import signal
import sys

from eijax.config import EpisodeConfig, EvaluationConfig, LearnerConfig, RunConfig
from eijax.learning.packing import PackingConfig
from eijax.sampling.config import SamplerShapes, SamplingConfig
import forked
from tiny_run import at_call, tiny_config

NUM_STEPS = 2
CONTEXT = 192


def peer_config(policy: str, config: RunConfig) -> RunConfig:
  """Two steps of four scenarios by two traces, one update each: what an update sees does not depend on who packed it."""
  return dataclasses.replace(
      config, policy_source=policy, warmup=None, num_steps=NUM_STEPS, checkpoint_every=1,
      sampling=SamplingConfig(max_new_tokens=6), sampler=SamplerShapes(num_slots=8, spans=(CONTEXT,), chunks=(96,)),
      episodes=EpisodeConfig(scenarios_per_step=4, group_size=2, max_rounds=2, thinking=False),
      packing=PackingConfig(row_lengths=(CONTEXT,), rows_per_minibatch=16, num_minibatches=1),
      learner=LearnerConfig(num_micro_batches=1, chunk_length=0), evaluation=EvaluationConfig(num_samples=1, every=0))


def _plan(moment: str) -> None:
  # pylint: disable=import-outside-toplevel
  from eijax import train
  from eijax.simulator.client import SimulatorClient

  # In the talks of the first step: each of two processes holds four of two rounds.
  sigterm = lambda: at_call(SimulatorClient, 'submit', 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
  {'none': lambda: None, 'sigterm': lambda: at_call(train, 'run_rollouts', 1, sigterm)}[moment]()


def _life(policy: str, workdir: str, coordinator: str, num_processes: int, process_id: int, moment: str) -> None:
  from eijax import train  # pylint: disable=import-outside-toplevel
  from eijax.training.machine import MachineConfig  # pylint: disable=import-outside-toplevel
  from eijax.training.peers import joined  # pylint: disable=import-outside-toplevel

  _plan(moment)
  train.write_report = lambda path: path / 'report.html'  # Seconds of drawing, and tested elsewhere.
  machine = MachineConfig(coordinator=coordinator, num_processes=num_processes, process_id=process_id)
  with joined(machine, tpu=False) as peers:
    train.train(peer_config(policy, tiny_config(f'{policy}/../scenarios')), workdir, tpu=False, resume=True, machine=machine, peers=peers)


def main(policy: str, workdir: str, coordinator: str, *moments: str) -> None:
  import eijax.train  # For all processes. pylint: disable=import-outside-toplevel, unused-import

  forked.live([functools.partial(_life, policy, workdir, coordinator, len(moments), index, moment)
               for index, moment in enumerate(moments)], at_once=True)


if __name__ == '__main__':
  main(*sys.argv[1:])
