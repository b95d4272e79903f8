"""Time whole talks: sampling, and the embedded simulator's answers over HTTP, as a step of eijax.train holds them.

--batch talks at a time, over the shipped test scenarios, by a policy of random weights. Its tokenizer is learned from these
scenarios; of a larger vocabulary the remaining tokens are computed and never sampled. Random words end no reply before
--new_tokens, or hardly ever. Every timed call holds the same talks, from empty caches on.

tokens_per_s counts the sampled tokens, episodes_per_s the talks. device_busy_fraction is the part of the time in which the
sampler works; in the rest it waits for simulators, or words are put in order.
"""

import statistics

from absl import flags

from eijax.bench import measure, shapes
from eijax.config import LearnerConfig
from eijax.errors import EijaxError, UsageError
from eijax.rollouts.ports import EpisodeJob
from eijax.rollouts.runner import run_rollouts
from eijax.rollouts.token_policy import TokenPolicy
from eijax.sampling.sampler import BatchSampler
from eijax.scenarios.load import load_split
from eijax.scenarios.selection import select
from eijax.scenarios.shipped import shipped_folder
from eijax.seeds import derive_seed
from eijax.simulator.config import SimulatorConfig
from eijax.simulator.opening import open_simulator
from eijax.simulator.process import running_server
from eijax.text.tokenizer import train_tokenizer
from eijax.training.measures import Stopwatch, TimedSampler
from eijax.warmup.corpus import tokenizer_lines

# Pieces that the texts of the scenarios give at least.
_MAX_PIECES = 8192


def define_flags(values: flags.FlagValues) -> None:
  shapes.define(values)
  flags.DEFINE_integer('new_tokens', 64, 'Most tokens of a reply.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('seq_len', 2048, 'Cells of the cache of a talk; one that outgrows them ends there, and counts as failed.',
                       lower_bound=2, flag_values=values)
  flags.DEFINE_integer('prompt_len', 256, 'Tokens that one reading of prompts appends to a talk.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('max_rounds', 8, 'Rounds after which a talk ends.', lower_bound=1, flag_values=values)
  flags.DEFINE_float('simulator_latency_secs', 0.0, 'Mean of a log-normal delay that the simulator adds to each answer.', lower_bound=0,
                     flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
  shapes.no_arguments(arguments)
  if values.new_tokens >= values.seq_len or values.prompt_len > values.seq_len:
    raise UsageError(f'seq_len={values.seq_len} must be above new_tokens={values.new_tokens} and not below '
                     f'prompt_len={values.prompt_len}')
  config = shapes.config(values, shapes.policy(values, param_dtype=values.dtype), length=values.seq_len, chunk=values.prompt_len,
                         new_tokens=values.new_tokens, learner=LearnerConfig())
  scenarios = load_split(shipped_folder(), 'test')
  tokenizer = train_tokenizer(tokenizer_lines(scenarios, []), min(values.vocab, _MAX_PIECES))
  chat_format = tokenizer.chat_format(thinking=False)
  decoder, mesh, params = shapes.random_params(config, values.seed)
  sampler = BatchSampler(decoder, mesh, config.sampler, config.sampling, stop_ids=chat_format.stop_ids,
                         sampleable_ids=tokenizer.sampleable_ids(False))
  watch = Stopwatch()
  policy = TokenPolicy(chat_format, TimedSampler(sampler, watch, 'sampling'))
  chosen = select(scenarios, limit=min(values.batch, len(scenarios)))
  jobs = [EpisodeJob(scenario=chosen[i % len(chosen)], seed=derive_seed('bench', values.seed, i), key=str(i)) for i in range(values.batch)]
  talks, sampling_secs = [], []

  with running_server(seed=values.seed, latency_secs=values.simulator_latency_secs) as url, open_simulator(
      SimulatorConfig(urls=(url,), concurrency=values.batch), values.seed) as simulator:

    def hold() -> None:
      sampler.set_params(params)
      policy.start_phase()
      talks[:] = run_rollouts(jobs, policy, simulator, max_rounds=values.max_rounds, thinking=False)
      sampling_secs.append(watch.take()['sampling'])

    timing = measure.timed(hold, values.reps)
  failed = [talk.episode for talk in talks if talk.episode.error]
  if len(failed) == len(talks):
    raise EijaxError(f'all {len(talks)} talks failed, the first with {failed[0].error}')
  # Of a reply that was never answered no record is left, and its time is still spent.
  sampled = sum(len(sample.response_ids) for talk in talks for sample in talk.samples)
  measure.report(
      'rollout', timing, sampled, config, episodes_per_s=round(len(talks) / statistics.median(timing.wall), 3),
      device_busy_fraction=round(sum(sampling_secs[-values.reps:]) / sum(timing.wall), 4), episodes=len(talks),
      failed_episodes=len(failed), rounds=sum(len(talk.episode.turns) for talk in talks),
      simulator_latency_secs=values.simulator_latency_secs)
