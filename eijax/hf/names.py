"""Where each parameter of the decoder stands in a Hugging Face folder: name and layout."""

from collections.abc import Mapping, Sequence
import dataclasses
import math

from eijax.policy import lora
from eijax.policy.config import PolicyConfig

LAYERS = 'layers.'  # Leaves below it hold all layers, stacked along axis 0.


@dataclasses.dataclass(frozen=True)
class Place:
  """One tensor there is one leaf here, or one layer of it.

  name: with {layer} for the number of the layer. groups: for each axis of the tensor, the
  axes of the leaf (without that of the layers) that are flattened into it, in order.
  """

  name: str
  groups: tuple[tuple[int, ...], ...]

  def shape(self, leaf_shape: Sequence[int]) -> tuple[int, ...]:
    """Shape of the tensor for a leaf (or layer) of `leaf_shape`."""
    return tuple(math.prod(leaf_shape[axis] for axis in group) for group in self.groups)

  @property
  def order(self) -> tuple[int, ...]:
    """Axes of the leaf in the order of the tensor."""
    return tuple(axis for group in self.groups for axis in group)


_VECTOR = ((0,),)
_SAME = ((0,), (1,))
_TURNED = ((1,), (0,))  # Published matrices are [out, in], ours [in, out].


def places(config: PolicyConfig) -> dict[str, Place]:
  """Dotted leaf name -> its place. Tied policies have no head of their own."""
  block = 'model.layers.{layer}.'
  attention, mlp = f'{block}self_attn.', f'{block}mlp.'
  found = {'embedding': Place('model.embed_tokens.weight', _SAME), 'final_norm.scale': Place('model.norm.weight', _VECTOR)}
  if not config.tie_embeddings:
    found['head'] = Place('lm_head.weight', _SAME)
  for ours, theirs in (('query', 'q_proj'), ('key', 'k_proj'), ('value', 'v_proj')):
    found[f'layers.{ours}.kernel'] = Place(f'{attention}{theirs}.weight', ((1, 2), (0,)))
    if config.qkv_bias:
      found[f'layers.{ours}.bias'] = Place(f'{attention}{theirs}.bias', ((0, 1),))
  found['layers.out.kernel'] = Place(f'{attention}o_proj.weight', ((2,), (0, 1)))
  for ours in ('gate', 'up', 'down'):
    found[f'layers.{ours}.kernel'] = Place(f'{mlp}{ours}_proj.weight', _TURNED)
  norms = {'attention_norm': 'input_layernorm', 'mlp_norm': 'post_attention_layernorm'}
  if config.branch_norms:
    norms = {'attention_norm': 'input_layernorm', 'attention_out_norm': 'post_attention_layernorm',
             'mlp_norm': 'pre_feedforward_layernorm', 'mlp_out_norm': 'post_feedforward_layernorm'}
  if config.query_key_norm:
    norms |= {'query_norm': 'self_attn.q_norm', 'key_norm': 'self_attn.k_norm'}
  for ours, theirs in norms.items():
    found[f'layers.{ours}.scale'] = Place(f'{block}{theirs}.weight', _VECTOR)
  return found


def adapter_places(config: PolicyConfig) -> dict[str, Place]:
  """Dotted leaf name of the adapter -> its place in a folder of peft: A [rank, in], B [out, rank]."""
  table, found = places(config), {}
  for module in config.lora.modules:
    kernel = table[f'layers.{module}.{lora.KERNEL}']
    outer, inner = kernel.groups  # Axes of the kernel: the inner ones come first.
    stem = kernel.name.removesuffix('.weight')
    found[f'layers.{module}.{lora.A}'] = Place(f'{stem}.lora_A.weight', ((len(inner),), inner))
    found[f'layers.{module}.{lora.B}'] = Place(f'{stem}.lora_B.weight', (tuple(1 + axis - len(inner) for axis in outer), (0,)))
  return found


def expected_tensors(table: Mapping[str, Place], leaf_shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
  """Name -> shape of every tensor that a folder holds, one leaf after the other.

  Args:
    table: see `places`, `adapter_places`.
    leaf_shapes: dotted leaf name -> shape, of these leaves at least.
  """
  found = {}
  for leaf, place in table.items():
    shape = leaf_shapes[leaf]
    if leaf.startswith(LAYERS):
      found.update({place.name.format(layer=i): place.shape(shape[1:]) for i in range(shape[0])})
    else:
      found[place.name] = place.shape(shape)
  return found
