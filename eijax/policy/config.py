"""Shapes, architecture and dtypes of a policy."""

import dataclasses
import math

from eijax.errors import UsageError

REMAT_POLICIES = ('none', 'full', 'dots')
DTYPES = ('float32', 'bfloat16')
ACTIVATIONS = ('silu', 'gelu_tanh')
ROPE_SCALINGS = ('none', 'linear', 'llama3')
# Linear maps of a layer that an adapter may stand beside: published name -> module.
LORA_TARGETS = {'q_proj': 'query', 'k_proj': 'key', 'v_proj': 'value', 'o_proj': 'out', 'gate_proj': 'gate', 'up_proj': 'up',
                'down_proj': 'down'}
# Values that say how a policy is run, not which one it is.
HOW_IT_RUNS = ('compute_dtype', 'remat', 'scan_unroll')


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
  """A low-rank adapter, which is trained in place of the policy's weights: W + alpha / rank * A B beside each target.

  Source: https://arxiv.org/abs/2106.09685. No dropout. rank: columns of A; 0 for no adapter. targets: some of LORA_TARGETS.
  """

  rank: int = 0
  alpha: float = 32.0
  targets: tuple[str, ...] = tuple(LORA_TARGETS)

  def __post_init__(self):
    if self.rank < 0:
      raise UsageError(f'lora_rank={self.rank} must be at least 0; 0 trains all weights, 16 is usual for an adapter')
    if not (math.isfinite(self.alpha) and self.alpha > 0):
      raise UsageError(f'lora_alpha={self.alpha} must be a finite number above 0; twice the rank is usual')
    unknown = [name for name in self.targets if name not in LORA_TARGETS]
    if unknown or not self.targets or len(set(self.targets)) < len(self.targets):
      what = f'{unknown[0]!r} is unknown' if unknown else 'every target must be named once, and at least one'
      raise UsageError(f'lora_targets={",".join(self.targets)}: {what}; use some of {", ".join(LORA_TARGETS)}')

  @property
  def scale(self) -> float:
    """Factor on A B."""
    return self.alpha / self.rank

  @property
  def modules(self) -> tuple[str, ...]:
    """Modules of a layer that have an adapter."""
    return tuple(LORA_TARGETS[name] for name in self.targets) if self.rank else ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyConfig:
  """A dense decoder; the defaults of its architecture are those of Qwen3.

  Source: https://arxiv.org/abs/2505.09388, section 2. What its relatives do otherwise
  (Qwen2.5, https://arxiv.org/abs/2412.15115; Llama 3, https://arxiv.org/abs/2407.21783;
  Gemma 3, https://arxiv.org/abs/2503.19786) are plain values here:

  head_dim is its own number: hidden_dim need not equal num_heads * head_dim.
  qkv_bias: queries, keys and values have biases. query_key_norm: RMSNorm of each query
  and key head. norm_offset: added to the weight of every norm. branch_norms: the outputs
  of both branches are normed too. embedding_scale: factor on embedded tokens.
  attention_scale: factor on attention scores; 0 for head_dim ** -0.5.
  rope_scaling: `linear` divides the frequencies by rope_factor; `llama3` divides those
  that turn fewer than rope_low_turns times in rope_original_length tokens, keeps those
  above rope_high_turns, and goes over smoothly between.
  local_layers: layers (from 0) whose queries see the last `window` tokens only, their own
  included, and turn with local_rope_theta, unscaled.

  param_dtype is what the optimizer updates, compute_dtype what the layers
  multiply in; norms, rotary angles, softmax and logits are float32 always.
  scan_unroll layers share one iteration of the scan over layers: a small model
  on a CPU gains a quarter of the step time from a full unroll, a large one
  would only compile longer.
  lora: with an adapter, it alone is trained. The frozen weights are kept in compute_dtype
  then, in which they are multiplied anyway (norms stay in param_dtype).
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
  activation: str = 'silu'
  qkv_bias: bool = False
  query_key_norm: bool = True
  norm_offset: float = 0.0
  branch_norms: bool = False
  embedding_scale: float = 1.0
  attention_scale: float = 0.0
  rope_scaling: str = 'none'
  rope_factor: float = 1.0
  rope_low_turns: float = 1.0
  rope_high_turns: float = 4.0
  rope_original_length: int = 8192
  local_layers: tuple[int, ...] = ()
  window: int = 0
  local_rope_theta: float = 10_000.0
  param_dtype: str = 'float32'
  compute_dtype: str = 'float32'
  remat: str = 'none'
  scan_unroll: int = 1
  lora: LoraConfig = LoraConfig()

  def __post_init__(self):
    for name in ('vocab_size', 'num_layers', 'hidden_dim', 'num_heads', 'num_kv_heads', 'head_dim', 'mlp_dim',
                 'rope_original_length', 'scan_unroll'):
      if getattr(self, name) < 1:
        raise UsageError(f'{name}={getattr(self, name)} must be at least 1')
    for name in ('rope_theta', 'norm_eps', 'embedding_scale', 'rope_factor', 'rope_low_turns', 'local_rope_theta'):
      if not getattr(self, name) > 0:
        raise UsageError(f'{name}={getattr(self, name)} must be above 0')
    if self.num_heads % self.num_kv_heads:
      raise UsageError(
          f'num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}: '
          'query heads share key-value heads in equal groups')
    if self.head_dim % 2:
      raise UsageError(f'head_dim={self.head_dim} must be even: rotary embedding turns pairs')
    if not self.attention_scale >= 0:
      raise UsageError(f'attention_scale={self.attention_scale} must be at least 0; 0 stands for head_dim ** -0.5')
    if not self.rope_high_turns > self.rope_low_turns:
      raise UsageError(f'rope_high_turns={self.rope_high_turns} must be above rope_low_turns={self.rope_low_turns}')
    if list(self.local_layers) != sorted({layer for layer in self.local_layers if 0 <= layer < self.num_layers}):
      raise UsageError(f'local_layers={self.local_layers} must be ascending layers below num_layers={self.num_layers}')
    if self.window < 0 or bool(self.local_layers) != bool(self.window):
      raise UsageError(f'window={self.window} must be at least 1 with local_layers={self.local_layers}, and 0 without')
    for name, valid in (('param_dtype', DTYPES), ('compute_dtype', DTYPES), ('remat', REMAT_POLICIES),
                        ('activation', ACTIVATIONS), ('rope_scaling', ROPE_SCALINGS)):
      if getattr(self, name) not in valid:
        raise UsageError(f'{name}={getattr(self, name)!r} is unknown; use one of {", ".join(valid)}')

  @property
  def weight_dtype(self) -> str:
    """Of embeddings, matrices and biases, as they are kept."""
    return self.compute_dtype if self.lora.rank else self.param_dtype

  @property
  def num_params(self) -> int:
    """Number of weights, embeddings included (tied ones once), without an adapter."""
    attention = self.hidden_dim * self.head_dim * 2 * (self.num_heads + self.num_kv_heads)
    if self.qkv_bias:
      attention += self.head_dim * (self.num_heads + 2 * self.num_kv_heads)
    norms = self.hidden_dim * (4 if self.branch_norms else 2) + (2 * self.head_dim if self.query_key_norm else 0)
    layer = attention + 3 * self.hidden_dim * self.mlp_dim + norms
    embeddings = self.vocab_size * self.hidden_dim * (1 if self.tie_embeddings else 2)
    return self.num_layers * layer + embeddings + self.hidden_dim

  @property
  def num_adapter_params(self) -> int:
    """Number of weights of the adapter."""
    d, f, q, kv = self.hidden_dim, self.mlp_dim, self.num_heads * self.head_dim, self.num_kv_heads * self.head_dim
    sizes = {'query': d + q, 'key': d + kv, 'value': d + kv, 'out': q + d, 'gate': d + f, 'up': d + f, 'down': f + d}
    return self.num_layers * self.lora.rank * sum(sizes[name] for name in self.lora.modules)
