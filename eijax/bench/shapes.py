"""Flags of the shapes that are timed, and the config of a run that has them."""

from typing import Any

from absl import flags
import flax.linen as nn
import jax
from jax.sharding import Mesh

from eijax import presets
from eijax.config import LearnerConfig, RunConfig
from eijax.errors import UsageError
from eijax.flags import replace_at
from eijax.learning import sharding, step as step_lib
from eijax.learning.packing import PackingConfig
from eijax.policy.config import ATTENTIONS, DTYPES, REMAT_POLICIES, LoraConfig, PolicyConfig
from eijax.policy.decoder import Decoder
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.training import policy_source

# Name -> (default, help). Defaults are a policy that two CPU cores update in a second.
POLICY_SHAPES = {
    'num_layers': (4, 'Layers.'),
    'hidden': (256, 'Width of the stream between layers.'),
    'num_heads': (4, 'Query heads.'),
    'num_kv_heads': (2, 'Key and value heads.'),
    'head_dim': (64, 'Width of a head.'),
    'mlp': (768, 'Width of the MLP.'),
    'vocab': (8192, 'Tokens of the vocabulary.'),
    'batch': (16, 'Rows: of the mini-batch, or talks that are sampled at a time.'),
}


def define(values: flags.FlagValues) -> None:
  """Flags that every subcommand has."""
  for name, (default, text) in POLICY_SHAPES.items():
    flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)
  flags.DEFINE_enum('dtype', 'float32', DTYPES, 'Type that the layers multiply in.', flag_values=values)
  flags.DEFINE_bool('tied', False, 'One table for the tokens that come in and those that go out.', flag_values=values)
  flags.DEFINE_integer('scan_unroll', 0, 'Layers per iteration of the scan over layers; 0 for all of up to 8.', flag_values=values)
  flags.DEFINE_enum('remat', 'none', REMAT_POLICIES, 'What the backward pass recomputes.', flag_values=values)
  flags.DEFINE_enum('attention', 'auto', ATTENTIONS, 'Attention of the learner.', flag_values=values)
  flags.DEFINE_string('mesh', '', 'Device mesh, e.g. fsdp=8; empty for all devices on fsdp.', flag_values=values)
  flags.DEFINE_integer('reps', 7, 'Timed calls, after two that are not; the median counts.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('seed', 0, 'Of weights and tokens.', lower_bound=0, flag_values=values)


def policy(values: flags.FlagValues, *, lora_rank: int = 0, param_dtype: str = 'float32') -> PolicyConfig:
  """The policy of the flags."""
  unroll = values.scan_unroll or (values.num_layers if values.num_layers <= 8 else 1)
  return PolicyConfig(
      vocab_size=values.vocab, num_layers=values.num_layers, hidden_dim=values.hidden, num_heads=values.num_heads,
      num_kv_heads=values.num_kv_heads, head_dim=values.head_dim, mlp_dim=values.mlp, tie_embeddings=values.tied,
      compute_dtype=values.dtype, remat=values.remat, attention=values.attention, scan_unroll=unroll,
      param_dtype=param_dtype, lora=LoraConfig(rank=lora_rank))


def config(
    values: flags.FlagValues, policy: PolicyConfig, *, length: int, chunk: int, new_tokens: int, learner: LearnerConfig,
) -> RunConfig:
  """A run of these shapes, whose other values are those of the demo.

  Args:
    length: of a row and of the cache.
    chunk: tokens that one prefill appends.
  """
  return replace_at(presets.get('demo'), {
      'warmup': None, 'policy': policy, 'mesh': values.mesh, 'learner': learner,
      'packing': PackingConfig(row_lengths=(length,), rows_per_minibatch=values.batch, num_minibatches=1),
      'sampling': SamplingConfig(temperature=1.0, max_new_tokens=new_tokens),
      'sampler': SamplerShapes(num_slots=values.batch, spans=(length,), chunks=(chunk,))})


def no_arguments(arguments: list[str]) -> None:
  """Refuse what is not a flag."""
  if arguments:
    raise UsageError(f'argument {arguments[0]!r} is not known: all values are flags; see --help')


def random_params(config: RunConfig, seed: int) -> tuple[Decoder, Mesh, Any]:
  """A decoder, the mesh of the flags, and random weights placed on it, in the type that the policy keeps them in."""
  mesh, decoder = sharding.make_mesh(config.mesh), Decoder(config.policy)
  placed = jax.tree.map(lambda x: x.sharding, policy_source.abstract_params(config.policy, mesh))
  init = step_lib.params_init(decoder)
  return decoder, mesh, jax.jit(lambda key: nn.meta.unbox(init(key)), out_shardings=placed)(jax.random.key(seed))
