"""Adapters as folders of peft: adapter_config.json and adapter_model.safetensors.

Source of the format: https://huggingface.co/docs/peft/developer_guides/checkpoint. Both files are small beside a
policy, so the host holds an adapter whole.
"""

from collections.abc import Callable, Mapping, Sequence
import os
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors
from safetensors.numpy import save_file

from eijax import jsonl
from eijax.errors import DataError
from eijax.hf.files import DTYPES, check_readable, first_names, text_name
from eijax.hf.load import named_leaves
from eijax.hf.names import Place, adapter_places, expected_tensors
from eijax.hf.save import check_target, new_folder
from eijax.policy.config import LORA_TARGETS, LoraConfig, PolicyConfig

CONFIG = 'adapter_config.json'
WEIGHTS = 'adapter_model.safetensors'
_PREFIX = 'base_model.model.'
# Fields of the config that are read, say nothing about the weights, or matter in training only.
_KNOWN = frozenset({
    'r', 'lora_alpha', 'target_modules', 'peft_type', 'base_model_name_or_path', 'auto_mapping', 'peft_version', 'revision',
    'task_type', 'inference_mode', 'lora_dropout', 'megatron_core', 'qalora_group_size', 'exclude_modules', 'layers_pattern',
    'runtime_config', 'lora_ga_config', 'eva_config'})
# Ways to begin that leave the base as it is; others (PiSSA, OLoRA, ...) move a part of it into the adapter.
_PLAIN_STARTS = (None, True, False, 'gaussian', 'orthogonal', 'eva')


def is_adapter_folder(path: str | os.PathLike) -> bool:
  """Whether a folder holds an adapter."""
  return (pathlib.Path(path) / CONFIG).is_file()


def base_of_adapter(folder: str | os.PathLike) -> str:
  """Name or folder of the model that an adapter was trained for, as its config has it; may be empty."""
  return str(_read_config(folder).get('base_model_name_or_path') or '')


def save_adapter(
    target: str | os.PathLike, config: PolicyConfig, shapes: Mapping[str, Sequence[int]],
    leaf_of: Callable[[str], jax.Array], *, dtype: str, base_name: str | None,
) -> None:
  """Write a folder that peft and vLLM load beside the base.

  Args:
    target: must not exist yet, or be empty.
    config: of the policy; it must have an adapter.
    shapes, leaf_of: see `save_folder`; asked for the adapter's leaves.
    dtype: float32 or bfloat16.
    base_name: name or folder of the base, if it has one.
  Raises:
    UsageError: target exists.
    EijaxError: the disk is full or cannot be written; nothing is left behind.
  """
  target, table = pathlib.Path(target), adapter_places(config)
  check_target(target)
  stored = np.dtype(np.float32) if dtype == 'float32' else DTYPES['BF16']
  with new_folder(target, stored.itemsize * config.num_adapter_params) as partial:
    tensors = {}
    for leaf, place in table.items():
      for layer, array in enumerate(np.asarray(leaf_of(leaf))):
        turned = array.transpose(place.order).reshape(place.shape(shapes[leaf][1:]))
        tensors[_PREFIX + place.name.format(layer=layer)] = np.ascontiguousarray(turned.astype(stored))
    save_file(tensors, partial / WEIGHTS, metadata={'format': 'pt'})
    alpha = config.lora.alpha
    jsonl.write_json(partial / CONFIG, {
        'peft_type': 'LORA', 'task_type': 'CAUSAL_LM', 'base_model_name_or_path': base_name, 'r': config.lora.rank,
        'lora_alpha': int(alpha) if alpha == int(alpha) else alpha, 'target_modules': list(config.lora.targets),
        'lora_dropout': 0.0, 'bias': 'none', 'fan_in_fan_out': False, 'use_rslora': False, 'use_dora': False,
        'modules_to_save': None, 'init_lora_weights': True, 'inference_mode': True})


def read_lora_config(folder: str | os.PathLike) -> LoraConfig:
  """Rank, alpha and targets of an adapter.

  Raises:
    DataError: it is no LoRA, has features that are not supported (named), or is broken.
  """
  folder = pathlib.Path(folder)
  modules = {name.rpartition('.lora_')[0].rpartition('.')[2] for name in _read_tensors(folder / WEIGHTS)}
  return _lora_config(folder / CONFIG, _read_config(folder), [name for name in LORA_TARGETS if name in modules])


def load_adapter(folder: str | os.PathLike, config: PolicyConfig, abstract: Any) -> Any:
  """The adapter's part of the params of a policy, placed as told.

  Args:
    folder: of the adapter.
    config: of the base, with `read_lora_config` of the folder.
    abstract: the adapter's leaves as jax.ShapeDtypeStructs with shardings.
  Raises:
    DataError: the adapter was made for another base, or holds a NaN; all that differs is listed.
  """
  path, table, leaves = pathlib.Path(folder) / WEIGHTS, adapter_places(config), named_leaves(abstract)
  tensors = _read_tensors(path)
  expected = expected_tensors(table, {name: leaf.shape for name, leaf in leaves.items()})
  problems = {
      'missing': [name for name in expected if name not in tensors],
      'for nothing in this base': sorted(set(tensors) - set(expected)),
      'of another shape': [f'{name} {list(tensors[name].shape)} instead of {list(shape)}' for name, shape in expected.items()
                           if name in tensors and tensors[name].shape != shape],
      'not finite': [name for name, value in tensors.items() if not np.isfinite(value).all()],
  }
  told = '; '.join(f'{len(names)} {what}: {first_names(names)}' for what, names in problems.items() if names)
  if told:
    raise DataError(f'{path}: the adapter does not fit its base: {told}; give the --base that it was trained for')
  arrays = [jax.device_put(_stacked(tensors, table[name], leaf.shape).astype(leaf.dtype), leaf.sharding)
            for name, leaf in leaves.items()]
  return jax.tree.unflatten(jax.tree.structure(abstract), arrays)


def _stacked(tensors: Mapping[str, np.ndarray], place: Place, shape: Sequence[int]) -> np.ndarray:
  order, layer_shape = place.order, shape[1:]
  split = [layer_shape[axis] for axis in order]
  back = [order.index(axis) for axis in range(len(order))]
  return np.stack([tensors[place.name.format(layer=layer)].reshape(split).transpose(back) for layer in range(shape[0])])


def _read_config(folder: str | os.PathLike) -> dict[str, Any]:
  path = pathlib.Path(folder) / CONFIG
  values = jsonl.read_json(path)
  if not isinstance(values, dict):
    raise DataError(f'{path}: must hold an object; download it again')
  return values


def _lora_config(path: pathlib.Path, values: Mapping[str, Any], targets: Sequence[str]) -> LoraConfig:
  """The adapter's config; anything that would change what it computes and is not known here is refused by name."""
  if values.get('peft_type') != 'LORA':
    raise DataError(f'{path}: peft_type={values.get("peft_type")!r} is not supported; only LORA is')
  neutral = {'bias': ('none', None), 'init_lora_weights': _PLAIN_STARTS}
  for name, value in values.items():
    if name not in _KNOWN and (value not in neutral[name] if name in neutral else value):
      raise DataError(f'{path}: {name}={value!r} is not supported; use a plain LoRA adapter')
  rank, alpha = values.get('r'), values.get('lora_alpha')
  if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
    raise DataError(f'{path}: r={rank!r} must be a whole number above 0')
  if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha > 0:
    raise DataError(f'{path}: lora_alpha={alpha!r} must be a number above 0')
  if not targets:
    raise DataError(f'{path}: the adapter is for none of {", ".join(LORA_TARGETS)}; only these linear maps can have one')
  return LoraConfig(rank=rank, alpha=float(alpha), targets=tuple(targets))


def _read_tensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Name in the base, e.g. model.layers.0.mlp.up_proj.lora_A.weight -> float32 values."""
  check_readable(path)
  found = {}
  try:
    with safetensors.safe_open(path, framework='numpy') as file:
      for name in file.keys():
        found[text_name(name.removeprefix(_PREFIX))] = file.get_tensor(name).astype(np.float32)
  except (safetensors.SafetensorError, OSError) as error:
    raise DataError(f'{path}: cut short or corrupt ({error}); download it again') from None
  return found
