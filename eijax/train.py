"""Train a policy by CTC-GRPO against a user simulator: python -m eijax.train.

One step: scenarios -> talks (sampler <-> simulator over HTTP) -> rewards -> advantages
-> packed mini-batches -> sharded loss and updates -> checkpoint and metrics. Held-out
talks before and after, and report.html, say what came of it.
"""

from collections.abc import Mapping
import contextlib
import os
from typing import Any

from absl import flags
import jax
import numpy as np
import tqdm

from eijax import command, flags as flags_lib, jsonl
from eijax.checkpoints import layout
from eijax.checkpoints.folder import CheckpointFolder
from eijax.config import RunConfig
from eijax.errors import EijaxError, UsageError
from eijax.evaluation.run import evaluate
from eijax.learning import hosts, optimizer as optimizer_lib, step as step_lib
from eijax.report.write import write_report
from eijax.rollouts.ports import EpisodeJob
from eijax.rollouts.runner import run_rollouts
from eijax.rollouts.token_policy import TokenPolicy
from eijax.sampling.sampler import BatchSampler
from eijax.scenarios.load import load_split
from eijax.scenarios.order import step_scenarios
from eijax.seeds import derive_seed
from eijax.settings import to_plain
from eijax.simulator.opening import open_simulator
from eijax.training import compilation, devices, experience as experience_lib, learner as learner_lib, policy_source, together
from eijax.training.machine import MachineConfig
from eijax.training.measures import Stopwatch, TimedSampler, mean_of_updates
from eijax.training.peers import Peers, joined
from eijax.training.preemption import Preemption
from eijax.training.profile import ProfileWindow
from eijax.training.run_folder import RunFolder
from eijax.training.scalars import ScalarLog


def train(
    config: RunConfig, workdir: str, *, tpu: bool, resume: bool, machine: MachineConfig = MachineConfig(), peers: Peers | None = None,
) -> None:
  """Run (or go on with) the training that `config` describes.

  Args:
    peers: the processes that run it together, each with this call; default, this one alone. They share the workdir, whose files
      process 0 writes.

  Raises:
    PreemptedError: SIGTERM came, and the run is saved.
  """
  # ---- Devices and mesh --------------------------------------------------------------------------
  if tpu:
    devices.require_tpu()
  peers = peers or Peers()
  mesh = learner_lib.run_mesh(config)
  compilation.use_cache(machine.compilation_cache)
  peers.say(f'devices: {len(jax.devices())} x {jax.devices()[0].device_kind}, mesh {dict(mesh.shape)}'
            + (f', {peers.count} processes' if peers.count > 1 else ''))

  # ---- What can be refused before any work -------------------------------------------------------
  if not config.policy_source and config.warmup is None:
    raise UsageError(f'preset={config.preset!r} starts from a trained policy and has none of its own; give --policy=FOLDER')
  machine.check_profile(config.num_steps)
  devices.check_fits(config, mesh)
  learner = learner_lib.make_learner(config, mesh)

  # ---- Input -------------------------------------------------------------------------------------
  train_set, test_set = load_split(config.scenarios, 'train'), load_split(config.scenarios, 'test')
  if not peers.is_first:
    peers.exchange(None)  # Process 0 has found the folder usable.
  run = RunFolder(workdir, to_plain(config), resume=resume or not peers.is_first)
  if peers.is_first:
    peers.exchange(None)
  start_step = peers.exchange(layout.latest_step(run.checkpoints))[0]
  if start_step is None and config.policy_source:
    policy_source.check_source(config)
  peers.say(f'{len(train_set)} training and {len(test_set)} held-out scenarios; workdir {run.path}')

  preemption = Preemption(machine.grace_secs)
  with contextlib.ExitStack() as stack:
    stack.enter_context(preemption.watch())
    peers.attach(preemption)
    simulator = stack.enter_context(open_simulator(config.simulator, config.seed))
    if peers.is_first:
      run.claim()
    checkpoints = stack.enter_context(CheckpointFolder(run.checkpoints))

    # ---- Policy and train state ------------------------------------------------------------------
    if start_step is not None:
      start_step, state, _ = checkpoints.restore(learner.abstract, start_step)
      tokenizer = policy_source.read_tokenizer(run.policy)
      peers.say(f'resumed at step {start_step}')
    else:
      if config.policy_source:
        tokenizer, params = policy_source.load(config, mesh)
      else:
        tokenizer, params = policy_source.from_warm_up(config, mesh, train_set, lambda: peers.exchange(None))
      start_step, state = 0, step_lib.train_state_of(params, learner.optimizer, learner.abstract)
      del params  # Part of the state from here on.
      if peers.is_first:
        policy_source.save_description(run.policy, config.policy, tokenizer, config.policy_source)
      with preemption.held():
        checkpoints.save(0, state, {'step': 0})
    done = start_step  # `state` is that after `done` steps, wherever a notice may be raised.

    def save_now() -> int:
      peers.agree_to_leave(preemption)
      if peers.exchange(done not in checkpoints.steps())[0]:
        checkpoints.save(done, state, {'step': done})
      peers.exchange('saved')
      return done

    stack.enter_context(preemption.leaving(save_now))
    trained = f', and {config.policy.num_adapter_params:,} of an adapter, which alone is trained' if config.policy.lora.rank else ''
    peers.say(f'policy: {config.policy.num_params:,} parameters{trained}')
    if peers.is_first:
      run.rewind(start_step)
      scalars = stack.enter_context(ScalarLog(run.tensorboard, start_step))
    chat_format = tokenizer.chat_format(thinking=config.episodes.thinking)

    # ---- Sampler ---------------------------------------------------------------------------------
    own_mesh, slots = hosts.local_mesh(mesh), devices.share_of_slots(config.sampler, mesh)
    own_params = policy_source.abstract_params(config.policy, own_mesh)
    sampler = BatchSampler(
        learner.decoder, own_mesh, slots, config.sampling, stop_ids=chat_format.stop_ids,
        sampleable_ids=tokenizer.sampleable_ids(config.episodes.thinking))
    with peers.together(preemption):
      params = hosts.copy_to_hosts(state.params, mesh, own_params)
    sampler.warm_up(params)
    del params
    watch = Stopwatch()
    policy = TokenPolicy(chat_format, TimedSampler(sampler, watch, 'rollout_secs/sampling'))

    # ---- Held-out evaluation ---------------------------------------------------------------------
    def add_scores(step: int, summary: Mapping[str, Any]) -> None:
      if peers.is_first:
        parts = {'score': summary['overall']} | summary['scenes']
        scalars.add(step, {name: part['score'] for name, part in parts.items()}, 'held_out/')

    def evaluate_at(step: int) -> None:
      path = run.eval_folder(step) / 'summary.json'
      with peers.together(preemption):
        known = peers.exchange(jsonl.read_json(path) if path.exists() else None)[0]
        if known is not None:
          add_scores(step, known)  # The curve of a run that goes on begins anew at this step.
          return
        sampler.set_params(hosts.copy_to_hosts(state.params, mesh, own_params))
      policy.start_phase()
      scores = []
      with tqdm.tqdm(total=len(together.share(test_set, peers)) * config.evaluation.num_samples,
                     desc=f'held-out talks at step {step}', unit='talk', disable=not peers.is_first) as progress:

        def show(rollout) -> None:
          reward = experience_lib.outcome_score(rollout.episode)
          scores.extend([] if reward is None else [100 * reward.score])
          progress.set_postfix_str(f'score {np.mean(scores or [np.nan]):+.1f}', refresh=False)
          progress.update()

        names = {'model_name': f'{config.preset} at step {step}', 'simulator_name': config.simulator.model,
                 'num_samples': config.evaluation.num_samples}
        hold = lambda scenarios, folder: evaluate(
            scenarios, policy, simulator, folder, max_rounds=config.episodes.max_rounds,
            thinking=config.episodes.thinking, seed=config.seed, on_finish=show,
            # A talk that had to share its slot would pay for its whole context in every round.
            max_open=slots.num_slots, **names)
        summary = together.evaluate(hold, test_set, run.eval_folder(step), peers, preemption, **names)
      sampler.release()
      part = summary['overall']
      if part['score'] is None:
        kept = run.set_failed_eval_aside(step) if peers.is_first else run.eval_folder(step)
        raise EijaxError(f'all held-out talks at step {step} failed; see {kept}; mend the cause and start again to resume')
      add_scores(step, summary)
      peers.say(f'held-out score at step {step}: {part["score"]:+.1f} [{part["ci95"][0]:+.1f}, {part["ci95"][1]:+.1f}]')

    def is_evaluated(step: int) -> bool:
      return step == 0 or bool(config.evaluation.every) and step % config.evaluation.every == 0

    # Also a run that was killed in an evaluation, if it comes back with the very policy that was evaluated.
    if is_evaluated(start_step):
      evaluate_at(start_step)

    # ---- Loop ------------------------------------------------------------------------------------
    progress = stack.enter_context(
        tqdm.tqdm(total=config.num_steps, initial=start_step, desc='training', unit='step', disable=not peers.is_first))
    profile = stack.enter_context(ProfileWindow(machine.profile_steps, run.profile))
    checkpoint_secs = 0.0
    for step in range(start_step, config.num_steps):
      simulator.stats(reset=True)
      watch.take()  # Evaluations sample, too.
      with profile.step(step):
        with watch.phase('seconds/total'), watch.phase('seconds/rollout'):
          with watch.phase('rollout_secs/weights'), peers.together(preemption):
            sampler.set_params(hosts.copy_to_hosts(state.params, mesh, own_params))
          policy.start_phase()
          chosen = enumerate(step_scenarios(train_set, step, config.episodes.scenarios_per_step, config.seed))
          jobs = [
              EpisodeJob(scenario=scenario, seed=derive_seed('training', config.seed, step, scenario.id, place, trace),
                         key=f'{step}/{place}/{scenario.id}/{trace}')
              for place, scenario in together.share(list(chosen), peers)
              for trace in range(config.episodes.group_size)
          ]
          rollouts = run_rollouts(
              jobs, policy, simulator, max_rounds=config.episodes.max_rounds, thinking=config.episodes.thinking)
          sampler.release()
        # Half a step is no state to go on from: from here to its checkpoint a notice waits.
        with peers.together(preemption):
          with watch.phase('seconds/total'), watch.phase('seconds/update'):
            with watch.phase('update_secs/packing'):
              experience = experience_lib.score(
                  rollouts, thinking=config.episodes.thinking, rewards=config.rewards, advantages=config.advantages)
              segments = experience_lib.segments(experience, config.packing.row_lengths[-1])
              parts = peers.exchange([experience_lib.sums(experience), simulator.stats(), sum(map(len, segments))])
              talks, served, tokens = zip(*parts)
              talked = experience_lib.metrics(talks)
              batches = together.pack(
                  segments, devices.share_of_rows(config.packing), derive_seed('packing', config.seed, step), peers)
            with watch.phase('update_secs/devices'):
              rate = optimizer_lib.learning_rate_at(config.optimizer, step, config.num_steps)
              updates = []
              for batch in batches:
                state, metrics = learner.update(state, learner.put(batch), rate)
                updates.append(metrics)
              learned = mean_of_updates(updates)
          episodes = [row for part in peers.gather(experience_lib.episode_rows(experience)) for row in part]
          seconds = watch.take()
          if peers.is_first:
            row = {
                'step': step, **talked, **learned,
                **{f'simulator_{name}': value for name, value in together.simulator_stats(served).items()},
                'tokens_per_sec': sum(tokens) / seconds['seconds/total'],
                'peak_memory_mib': devices.peak_memory_mib(), **devices.device_memory(),
                **seconds, 'seconds/checkpoint': checkpoint_secs,
            }
            run.write_episodes(step, episodes)
            run.add_metrics(row)
            scalars.add(step, row)
          # Last, so that no step that a checkpoint holds lacks its metrics and talks. The seconds go to the next step.
          done = step + 1
          last, checkpoint_secs = done == config.num_steps, 0.0
          if last or done % config.checkpoint_every == 0:
            with watch.phase('checkpoint'):
              checkpoints.save(done, state, {'step': done})
            checkpoint_secs = watch.take()['checkpoint']
      progress.set_postfix_str(f'reward {100 * talked["reward"]:+.1f}, entropy {learned["entropy"]:.2f}', refresh=False)
      progress.update()
      if is_evaluated(done) and not last:
        evaluate_at(done)
    progress.close()

    # ---- After -----------------------------------------------------------------------------------
    evaluate_at(config.num_steps)
  if peers.is_first:
    peers.say(f'report: {write_report(run.path)}')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UsageError(f'unexpected argument {argv[1]!r}; every setting is a flag, see --help')
  values = flags.FLAGS
  config = flags_lib.build_config(values)
  workdir = values.workdir or os.path.join('runs', f'{config.preset}-{config.algorithm}-seed{config.seed}')
  machine = flags_lib.build_machine(values)
  with joined(machine, tpu=values.tpu) as peers:
    train(config, workdir, tpu=values.tpu, resume=values.resume, machine=machine, peers=peers)


if __name__ == '__main__':
  flags_lib.define()
  command.run(main)
