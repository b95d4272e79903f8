"""AdamW with a warm-up and cosine schedule that counts training steps.

Source of the schedule and its figures: arXiv 2606.15532, section 4.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from eijax.errors import UsageError


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
  """AdamW and its schedule.

  learning_rate: peak. warmup_fraction: share of the run's steps, rises linearly from 0 (exclusive).
  final_fraction: of the peak, where the cosine ends. max_grad_norm: global norm to clip to, 0 for none.
  weight_decay: decoupled; norms are exempt.
  """

  learning_rate: float = 1e-6
  warmup_fraction: float = 0.03
  final_fraction: float = 0.1
  beta1: float = 0.9
  beta2: float = 0.999
  epsilon: float = 1e-8
  weight_decay: float = 0.01
  max_grad_norm: float = 1.0

  def __post_init__(self):
    for name, low, high in (('warmup_fraction', 0, 1), ('final_fraction', 0, 1), ('beta1', 0, 1), ('beta2', 0, 1)):
      if not low <= getattr(self, name) <= high:
        raise UsageError(f'{name}={getattr(self, name)} must lie in {low}..{high}')
    for name in ('learning_rate', 'epsilon'):
      if not getattr(self, name) > 0:
        raise UsageError(f'{name}={getattr(self, name)} must be above 0')
    for name in ('weight_decay', 'max_grad_norm'):
      if not getattr(self, name) >= 0:
        raise UsageError(f'{name}={getattr(self, name)} must be at least 0')


def learning_rate_at(config: OptimizerConfig, step: int, num_steps: int) -> np.float32:
  """Learning rate of training step `step` (from 0) of `num_steps`.

  Linear to the peak over the warm-up, whose first step is 1 / warm-up steps of it, not 0: a step that
  learns nothing would waste its talks. Then a cosine that reaches final_fraction at the last step.
  All optimizer updates of one step share it, however many mini-batches its talks filled.
  """
  warmup = round(config.warmup_fraction * num_steps)
  if step < warmup:
    return np.float32(config.learning_rate * (step + 1) / warmup)
  progress = min(1.0, (step - warmup) / max(1, num_steps - 1 - warmup))
  cosine = 0.5 * (1 + np.cos(np.pi * progress))
  return np.float32(config.learning_rate * (config.final_fraction + (1 - config.final_fraction) * cosine))


class ScaleByGivenRateState(NamedTuple):
  """Nothing to remember."""


def _scale_by_given_rate() -> optax.GradientTransformationExtraArgs:
  """Multiply updates by minus the `learning_rate` that the caller of update() gives."""

  def init(params):
    del params
    return ScaleByGivenRateState()

  def update(updates, state, params=None, *, learning_rate, **extra):
    del params, extra
    return jax.tree.map(lambda u: -learning_rate * u, updates), state

  return optax.GradientTransformationExtraArgs(init, update)


def _is_decayed(params: Any) -> Any:
  """True for matrices and embeddings, false for the scales of norms (whatever their rank under a layer scan)."""

  def decayed(path, _):
    names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    return names[-1] not in ('scale', 'bias')

  return jax.tree_util.tree_map_with_path(decayed, params)


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformationExtraArgs:
  """Global-norm clip, AdamW, and a learning rate given at each update: `update(..., learning_rate=x)`.

  Moments are float32. The rate is an argument because it depends on the training step, and a step takes
  as many updates as its talks fill mini-batches (see `learning_rate_at`).
  """
  clip = optax.clip_by_global_norm(config.max_grad_norm) if config.max_grad_norm else optax.identity()
  return optax.chain(
      clip,
      optax.scale_by_adam(b1=config.beta1, b2=config.beta2, eps=config.epsilon, mu_dtype=jnp.float32),
      optax.add_decayed_weights(config.weight_decay, mask=_is_decayed),
      _scale_by_given_rate(),
  )
