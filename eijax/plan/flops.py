"""FLOPs of a step by formula. A multiply-add counts as two.

XLA's own count takes loop bodies once and Pallas kernels as nothing, so it is no use here.
"""

import dataclasses

from eijax.policy.config import PolicyConfig

# Products with weights in a layer are run once forward, twice backward, and once more for what remat forgot.
_RERUNS = {'none': 0.0, 'dots': 0.0, 'attention': 1.0, 'full': 1.0, 'offload': 1.0}
# Flash attention: scores and values forward; backward the scores again, and four products.
_ATTENTION_FORWARD, _ATTENTION_BACKWARD = 2, 5
_ATTENTION_RERUNS = {'none': 0.0, 'dots': 1.0, 'attention': 0.0, 'full': 1.0, 'offload': 1.0}


@dataclasses.dataclass(frozen=True)
class Flops:
  """Of all chips. model: what the mathematics needs. hardware: with what is computed again to save memory."""

  model: float
  hardware: float


def _weights(policy: PolicyConfig) -> tuple[float, float]:
  """Weights that each token is multiplied with: (of the layers, of the output table)."""
  heads = policy.head_dim * 2 * (policy.num_heads + policy.num_kv_heads)
  layer = policy.hidden_dim * (heads + 3 * policy.mlp_dim)
  return float(policy.num_layers * layer), float(policy.vocab_size * policy.hidden_dim)


def _pairs(policy: PolicyConfig, length: int) -> float:
  """Query-key pairs of one row in all layers, where each query sees what is before it, or its window."""
  whole = length * (length + 1) / 2
  near = min(policy.window, length)
  local = near * (near + 1) / 2 + (length - near) * near
  return (policy.num_layers - len(policy.local_layers)) * whole + len(policy.local_layers) * local


def train_step(policy: PolicyConfig, *, rows: int, length: int, chunked: bool) -> Flops:
  """One update of `rows` rows of `length` tokens, each row one segment whose tokens are all scored: the most there can be."""
  layers, table = _weights(policy)
  tokens = rows * length
  pair = 2 * policy.num_heads * policy.head_dim * rows * _pairs(policy, length)
  adapter, reruns = policy.num_adapter_params, _RERUNS[policy.remat]
  # Forward, and backward for what comes in; once more for the gradient of what is trained.
  passes = 2 if policy.lora.rank else 3
  model = 2 * tokens * (passes * (layers + table) + 3 * adapter) + pair * (_ATTENTION_FORWARD * 3)
  hardware = 2 * tokens * ((passes + reruns) * layers + (passes + chunked) * table + (3 + reruns) * adapter)
  hardware += pair * (_ATTENTION_FORWARD * (1 + _ATTENTION_RERUNS[policy.remat]) + _ATTENTION_BACKWARD)
  return Flops(model=model, hardware=hardware)


def decode_step(policy: PolicyConfig, *, slots: int, span: int) -> Flops:
  """One token in each slot; all cells of the span are read."""
  layers, table = _weights(policy)
  near = min(policy.window, span) if policy.local_layers else 0
  cells = (policy.num_layers - len(policy.local_layers)) * span + len(policy.local_layers) * near
  total = slots * (2 * (layers + table) + 4 * policy.num_heads * policy.head_dim * cells)
  return Flops(model=total, hardware=total)
