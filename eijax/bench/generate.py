"""Time responses of the sampler that training uses: prompts read, then --new_tokens sampled in every row.

tokens_per_s counts the new tokens; reading the prompts is part of the time. Nothing is kept from one call to the next.
"""

from absl import flags
import numpy as np

from eijax.bench import measure, shapes
from eijax.config import LearnerConfig
from eijax.errors import UsageError
from eijax.sampling.sampler import BatchSampler

# Never sampled, so that no response ends early.
_STOP_ID = 0


def define_flags(values: flags.FlagValues) -> None:
  shapes.define(values)
  flags.DEFINE_integer('prompt_len', 128, 'Tokens of a prompt.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('new_tokens', 128, 'Tokens sampled in each row.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('seq_len', 0, 'Cells of the cache of a row, all of which each token reads; 0 for prompt_len + new_tokens.',
                       lower_bound=0, flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
  shapes.no_arguments(arguments)
  needed = values.prompt_len + values.new_tokens
  if values.seq_len and values.seq_len < needed:
    raise UsageError(f'seq_len={values.seq_len} must be at least prompt_len + new_tokens = {needed}')
  # Kept in the type that they are multiplied in, as a served policy is.
  config = shapes.config(values, shapes.policy(values, param_dtype=values.dtype), length=values.seq_len or needed,
                         chunk=values.prompt_len, new_tokens=values.new_tokens, learner=LearnerConfig())
  decoder, mesh, params = shapes.random_params(config, values.seed)
  sampler = BatchSampler(decoder, mesh, config.sampler, config.sampling, stop_ids=[_STOP_ID],
                         sampleable_ids=range(1, config.policy.vocab_size))
  prompts = np.random.default_rng(values.seed).integers(1, values.vocab, (values.batch, values.prompt_len), np.int32)

  def sample() -> int:
    sampler.set_params(params)
    futures = sampler.submit([(ids, seed, f'row {seed}') for seed, ids in enumerate(prompts)])
    return sum(len(future.result().response_ids) for future in futures)

  timing = measure.timed(sample, values.reps)
  measure.report('generate', timing, values.batch * values.new_tokens, config, prompt_len=values.prompt_len, sampled=sample())
