"""The train state and the update step.

One update: a mini-batch [M, B, T] of packed rows -> M micro-batches, each scored,
its loss summed and differentiated -> gradient sums, added in float32 -> divided by
the number of scored tokens -> AdamW. The step knows no algorithm: what is learned
is in the batch's advantages (or demonstrations) and in `loss_fn`. Of a policy with an adapter,
the adapter alone has gradients and moments (`policy/lora.py`).

Axes: M micro-batches, B rows of one, T positions.
"""

from collections.abc import Callable
import functools
from typing import Any

import flax.linen as nn
from flax import struct
from flax.core import meta
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import optax

from eijax.errors import UsageError
from eijax.learning import losses, sharding
from eijax.learning.packing import PackedBatch
from eijax.learning.scoring import ScoreFn
from eijax.policy import lora

InitFn = Callable[[jax.Array], Any]  # key -> parameters, boxed with logical axis names.
UpdateStep = Callable[[Any, PackedBatch, Any], tuple[Any, dict[str, jax.Array]]]


class TrainState(struct.PyTreeNode):
  """All device state of a run."""

  step: jax.Array  # int32[], optimizer updates so far.
  params: Any  # Whole, what is frozen included.
  opt_state: Any  # Of what is trained.


def params_init(policy: nn.Module) -> InitFn:
  """Initialiser of a policy's parameters, boxed with their logical axis names."""

  def init(key):
    one = jnp.zeros((1, 2), jnp.int32)  # Parameters do not depend on the shape of the tokens.
    return policy.init(key, one, one, one)['params']

  return init


def _boxed_state(init_fn: InitFn, optimizer: optax.GradientTransformation, key: jax.Array) -> TrainState:
  # The optimizer maps over boxes as over any node of a tree, so its moments carry the parameters' names.
  params = init_fn(key)
  return TrainState(step=jnp.zeros((), jnp.int32), params=params, opt_state=optimizer.init(lora.split(params)[0]))


def abstract_train_state(init_fn: InitFn, optimizer: optax.GradientTransformation, mesh: Mesh) -> TrainState:
  """The state as jax.ShapeDtypeStructs with their NamedShardings; nothing is computed.

  Raises:
    UsageError: a parameter that the mesh does not divide, or one that is trained and not float32.
  """
  boxed = jax.eval_shape(functools.partial(_boxed_state, init_fn, optimizer), jax.random.key(0))
  shardings = sharding.tree_shardings(boxed, mesh)
  shapes = meta.unbox(boxed)
  dtypes = {leaf.dtype.name for leaf in jax.tree.leaves(lora.split(shapes.params)[0])}
  if dtypes != {'float32'}:
    raise UsageError(f'param_dtype={"/".join(sorted(dtypes))} cannot be trained: updates of 1e-6 vanish in its '
                     'rounding; use param_dtype=float32 (compute_dtype may be bfloat16)')
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def state_shardings(abstract: TrainState) -> TrainState:
  """The NamedSharding of each leaf of an abstract (or real) state."""
  return jax.tree.map(lambda x: x.sharding, abstract)


def create_train_state(
    init_fn: InitFn, optimizer: optax.GradientTransformation, mesh: Mesh, key: jax.Array,
) -> TrainState:
  """A fresh state, each array built where it lives: no parameter is ever whole on one device."""
  shardings = state_shardings(abstract_train_state(init_fn, optimizer, mesh))
  build = lambda key: meta.unbox(_boxed_state(init_fn, optimizer, key))
  return jax.jit(build, out_shardings=shardings)(key)


def train_state_of(params: Any, optimizer: optax.GradientTransformation, abstract: TrainState) -> TrainState:
  """A fresh state around parameters that exist already (a warm-up's, a converted policy's).

  Args:
    params: placed as in `abstract`; they become part of the state and are donated with it.
    optimizer: starts from zero.
    abstract: see `abstract_train_state`.
  """
  shardings = state_shardings(abstract)
  opt_state = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(lora.split(params)[0])
  step = jax.device_put(jnp.zeros((), jnp.int32), shardings.step)
  return TrainState(step=step, params=params, opt_state=opt_state)


def with_fresh_adapter(base: Any, init_fn: InitFn, abstract_params: Any, key: jax.Array) -> Any:
  """Frozen params and a new adapter beside them, in one tree; `base` alone, if the policy has no adapter.

  Args:
    base: placed, and of the dtypes, as in `abstract_params`.
    init_fn: see `params_init`.
    abstract_params: of the whole tree, as jax.ShapeDtypeStructs with shardings.
    key: of the adapter.
  """
  adapter, frozen = lora.split(abstract_params)
  if not frozen:
    return base
  # What the initialiser makes of the base is never computed: nothing depends on it.
  build = jax.jit(lambda key: lora.split(meta.unbox(init_fn(key)))[0], out_shardings=jax.tree.map(lambda x: x.sharding, adapter))
  return lora.join(build(key), base)


def accumulate_gradients(
    score_fn: ScoreFn, loss_fn: losses.LossFn, params: Any, batch: PackedBatch,
) -> tuple[Any, losses.LossTerms]:
  """Gradient of the loss sum and the loss terms, summed over micro-batches in float32.

  Exactly the gradient of the whole mini-batch's loss sum, up to the order of additions. Micro-batches
  behind the last one that holds a scored token are padding and are not computed.

  Args:
    batch: leaves [M, B, T].
  Returns:
    (tree of float32 like what is trained of params, LossTerms).
  """
  trained, frozen = lora.split(params)

  def loss_sum(trained, micro):
    terms = loss_fn(score_fn(lora.join(trained, frozen), micro), micro)
    return terms.loss_sum, terms

  def micro_batch(index):
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), batch)

  def body(index, carry):
    sums, terms = carry
    grads, new = jax.grad(loss_sum, has_aux=True)(trained, micro_batch(index))
    sums = jax.tree.map(lambda s, g: s + g.astype(jnp.float32), sums, grads)
    return sums, losses.add_terms(terms, new)

  zeros = lambda tree: jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), tree)
  terms = jax.eval_shape(lambda p, b: loss_fn(score_fn(p, b), b), params, micro_batch(0))
  used = jnp.any(batch.loss_mask, axis=(1, 2))  # [M]
  num_used = jnp.max(jnp.where(used, jnp.arange(1, used.shape[0] + 1), 0))
  # A loop of dynamic length: a step's talks rarely fill its last mini-batches. Maxima start from 0, which
  # suits the only maximum there is, of importance ratios.
  return jax.lax.fori_loop(0, num_used, body, (zeros(trained), zeros(terms)))


def make_update_step(
    score_fn: ScoreFn, loss_fn: losses.LossFn, optimizer: optax.GradientTransformationExtraArgs, mesh: Mesh,
    shardings: TrainState,
) -> UpdateStep:
  """Compile-once function (state, batch, learning_rate) -> (state, metrics).

  Args:
    score_fn: see scoring.make_score_fn.
    loss_fn: see losses.LossFn.
    optimizer: see optimizer.make_optimizer.
    mesh: devices.
    shardings: see `state_shardings`.
  Returns:
    A jitted function (it can be lowered ahead of time). Its state is donated: the old one is gone after the
    call. `batch` comes from sharding.put_batch; learning_rate is a float32 scalar. Metrics are float32[]
    on the devices: read those of the last call after dispatching the next. They are the loss's own and
    grad_norm (before the clip), update_norm, param_norm (after the update), learning_rate: norms of what is trained.
  """
  replicated = NamedSharding(mesh, PartitionSpec())
  trained_shardings = lora.split(shardings.params)[0]

  def update(state: TrainState, batch: PackedBatch, learning_rate):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(sharding.logical_axis_rules()):
      sums, terms = accumulate_gradients(score_fn, loss_fn, state.params, batch)
    count = jnp.maximum(terms.count, 1.0)
    # Gradients are placed like their parameters, so that they are reduce-scattered, never gathered.
    grads = jax.lax.with_sharding_constraint(jax.tree.map(lambda g: g / count, sums), trained_shardings)
    trained, frozen = lora.split(state.params)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained, learning_rate=learning_rate)
    trained = optax.apply_updates(trained, updates)
    metrics = losses.mean_metrics(terms) | {
        'grad_norm': optax.tree.norm(grads), 'update_norm': optax.global_norm(updates),
        'param_norm': optax.tree.norm(trained), 'learning_rate': learning_rate}
    return TrainState(step=state.step + 1, params=lora.join(trained, frozen), opt_state=opt_state), metrics

  return jax.jit(
      update, donate_argnums=0,
      in_shardings=(shardings, sharding.batch_sharding(mesh), replicated),
      out_shardings=(shardings, replicated))
