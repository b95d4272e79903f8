"""Shapes and dtypes of a policy."""

import dataclasses

from eijax.errors import UsageError

REMAT_POLICIES = ('none', 'full', 'dots')
DTYPES = ('float32', 'bfloat16')


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyConfig:
  """A dense Qwen3 decoder. Source: https://arxiv.org/abs/2505.09388, section 2.

  head_dim is its own number: hidden_dim need not equal num_heads * head_dim.
  param_dtype is what the optimizer updates, compute_dtype what the layers
  multiply in; norms, rotary angles, softmax and logits are float32 always.
  scan_unroll layers share one iteration of the scan over layers: a small model
  on a CPU gains a quarter of the step time from a full unroll, a large one
  would only compile longer.
  """

  vocab_size: int
  num_layers: int
  hidden_dim: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  rope_theta: float = 1_000_000.0
  norm_eps: float = 1e-6
  tie_embeddings: bool = False
  param_dtype: str = 'float32'
  compute_dtype: str = 'float32'
  remat: str = 'none'
  scan_unroll: int = 1

  def __post_init__(self):
    for name in ('vocab_size', 'num_layers', 'hidden_dim', 'num_heads', 'num_kv_heads', 'head_dim', 'mlp_dim',
                 'scan_unroll'):
      if getattr(self, name) < 1:
        raise UsageError(f'{name}={getattr(self, name)} must be at least 1')
    for name in ('rope_theta', 'norm_eps'):
      if not getattr(self, name) > 0:
        raise UsageError(f'{name}={getattr(self, name)} must be above 0')
    if self.num_heads % self.num_kv_heads:
      raise UsageError(
          f'num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}: '
          'query heads share key-value heads in equal groups')
    if self.head_dim % 2:
      raise UsageError(f'head_dim={self.head_dim} must be even: rotary embedding turns pairs')
    for name, valid in (('param_dtype', DTYPES), ('compute_dtype', DTYPES), ('remat', REMAT_POLICIES)):
      if getattr(self, name) not in valid:
        raise UsageError(f'{name}={getattr(self, name)!r} is unknown; use one of {", ".join(valid)}')

  @property
  def num_params(self) -> int:
    """Number of weights, embeddings included (tied ones once)."""
    attention = self.hidden_dim * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
    layer = attention + 3 * self.hidden_dim * self.mlp_dim + 2 * self.hidden_dim + 2 * self.head_dim
    embeddings = self.vocab_size * self.hidden_dim * (1 if self.tie_embeddings else 2)
    return self.num_layers * layer + embeddings + self.hidden_dim
