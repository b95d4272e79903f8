"""The params of a policy with a low-rank adapter: which are trained, and how they are merged into the others.

The adapter's leaves, lora_a [..., in axes, R] and lora_b [..., R, out axes], stand beside the kernel that they adapt, in
one tree: whoever applies the policy applies the adapter. Policies without one are trained whole.
"""

from collections.abc import Callable
import functools
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict
import jax
import jax.numpy as jnp

from eijax.policy.config import PolicyConfig

A, B, KERNEL = 'lora_a', 'lora_b', 'kernel'


def is_adapter_leaf(name: str) -> bool:
  """Whether a dotted name, e.g. layers.query.lora_a, is of an adapter."""
  return name.rpartition('.')[2] in (A, B)


def split(params: Any) -> tuple[Any, Any]:
  """(what is trained, what is frozen) of a tree like the params of a policy; all is trained where there is no adapter."""
  adapter, base = _parts(params)
  return (adapter, base) if adapter else (base, {})


def base_of(params: Any) -> Any:
  """The tree without its adapter."""
  return _parts(params)[1]


def join(left: Any, right: Any) -> Any:
  """The tree of which `split` gave these parts."""
  return unflatten_dict(flatten_dict(left) | flatten_dict(right))


def _parts(params: Any) -> tuple[Any, Any]:
  flat = flatten_dict(params)
  adapter = {path: leaf for path, leaf in flat.items() if path[-1] in (A, B)}
  return unflatten_dict(adapter), unflatten_dict({path: leaf for path, leaf in flat.items() if path not in adapter})


def merge(params: Any, config: PolicyConfig) -> Any:
  """The base with the adapter in its kernels: a policy without adapter, the same up to rounding. Such kernels are float32."""
  flat = flatten_dict(base_of(params))
  adapter = flatten_dict(split(params)[0]) if config.lora.rank else {}
  for *module, leaf in adapter:
    if leaf == A:
      kernel = flat[*module, KERNEL]
      flat[*module, KERNEL] = merged_kernel(kernel, adapter[*module, A], adapter[*module, B], scale=config.lora.scale)
  return unflatten_dict(flat)


@functools.partial(jax.jit, static_argnames='scale')
def merged_kernel(kernel: jax.Array, a: jax.Array, b: jax.Array, *, scale: float) -> jax.Array:
  """kernel + scale * A B for a stack of layers, float32; one product at a time.

  Args:
    kernel: [L, in axes, out axes].
    a: float32[L, in axes, R].
    b: float32[L, R, out axes].
    scale: see LoraConfig.
  """

  def one(layer):
    kernel, a, b = layer
    product = jnp.tensordot(a, b, axes=1, precision=jax.lax.Precision.HIGHEST)
    return kernel.astype(jnp.float32) + scale * product

  return jax.lax.map(one, (kernel, a, b))


def merged_leaves(
    shapes: dict[str, Any], leaf_of: Callable[[str], jax.Array], config: PolicyConfig,
) -> tuple[dict[str, Any], Callable[[str], jax.Array]]:
  """(shapes, leaf_of) of the merged policy, one leaf at a time, from those of a policy with its adapter.

  Args:
    shapes: dotted leaf name -> shape.
    leaf_of: dotted leaf name -> array.
    config: of the policy.
  """

  def merged(name: str) -> jax.Array:
    module = name.rpartition('.')[0]
    if name != f'{module}.{KERNEL}' or f'{module}.{A}' not in shapes:
      return leaf_of(name)
    return merged_kernel(leaf_of(name), leaf_of(f'{module}.{A}'), leaf_of(f'{module}.{B}'), scale=config.lora.scale)

  return {name: shape for name, shape in shapes.items() if not is_adapter_leaf(name)}, merged
