"""Time responses of the sampler that training uses: prompts read, then --new_tokens sampled in every row.

tokens_per_s counts the new tokens; reading the prompts is part of the time. Nothing is kept from one call to the next.
"""

from absl import flags
import flax.linen as nn
import jax
import numpy as np

from eijax.bench import measure, shapes
from eijax.config import LearnerConfig
from eijax.errors import UsageError
from eijax.learning import sharding, step as step_lib
from eijax.policy.decoder import Decoder
from eijax.sampling.sampler import BatchSampler
from eijax.training import policy_source

# Never sampled, so that no response ends early.
_STOP_ID = 0


def define_flags(values: flags.FlagValues) -> None:
  shapes.define(values)
  flags.DEFINE_integer('prompt_len', 128, 'Tokens of a prompt.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('new_tokens', 128, 'Tokens sampled in each row.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('context', 0, 'Cells of the cache of a row, all of which each token reads; 0 for prompt_len + new_tokens.',
                       lower_bound=0, flag_values=values)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
  shapes.no_arguments(arguments)
  needed = values.prompt_len + values.new_tokens
  if values.context and values.context < needed:
    raise UsageError(f'context={values.context} must be at least prompt_len + new_tokens = {needed}')
  # Kept in the type that they are multiplied in, as a served policy is.
  config = shapes.config(values, shapes.policy(values, param_dtype=values.dtype), length=values.context or needed,
                         chunk=values.prompt_len, new_tokens=values.new_tokens, learner=LearnerConfig())
  mesh, decoder = sharding.make_mesh(config.mesh), Decoder(config.policy)
  placed = jax.tree.map(lambda x: x.sharding, policy_source.abstract_params(config.policy, mesh))
  init = step_lib.params_init(decoder)
  params = jax.jit(lambda key: nn.meta.unbox(init(key)), out_shardings=placed)(jax.random.key(values.seed))
  sampler = BatchSampler(decoder, mesh, config.sampler, config.sampling, stop_ids=[_STOP_ID],
                         sampleable_ids=range(1, config.policy.vocab_size))
  prompts = np.random.default_rng(values.seed).integers(1, values.vocab, (values.batch, values.prompt_len), np.int32)

  def sample() -> int:
    sampler.set_params(params)
    futures = sampler.submit([(ids, seed, f'row {seed}') for seed, ids in enumerate(prompts)])
    return sum(len(future.result().response_ids) for future in futures)

  timing = measure.timed(sample, values.reps)
  measure.report('generate', timing, values.batch * values.new_tokens, config, prompt_len=values.prompt_len, sampled=sample())
