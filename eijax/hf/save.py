"""Params of a policy as a Hugging Face folder: sharded safetensors, index, config.json and what belongs beside.

Tensors go to disk one by one. The folder takes its name when all of it is written, so
that a killed or failed export leaves nothing that could be taken for a model.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import errno
import functools
import json
import os
import pathlib
import shutil
import struct
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from eijax import jsonl
from eijax.errors import EijaxError, UsageError
from eijax.hf import architecture
from eijax.hf.files import INDEX, SINGLE
from eijax.hf.names import LAYERS, Place, places
from eijax.policy.config import PolicyConfig

# What a model's folder holds beside weights, as far as it is copied.
COMPANIONS = (
    'generation_config.json', 'tokenizer.json', 'tokenizer.model', 'tokenizer_config.json',
    'special_tokens_map.json', 'added_tokens.json', 'vocab.json', 'merges.txt', 'chat_template.jinja', 'chat_template.json',
    'LICENSE', 'LICENSE.txt', 'NOTICE', 'README.md', 'USE_POLICY.md')
_STORED = {'float32': 'F32', 'bfloat16': 'BF16'}
_NUMPY = {'float32': np.dtype(np.float32), 'bfloat16': np.dtype(ml_dtypes.bfloat16)}


@dataclasses.dataclass(frozen=True)
class _Entry:
  """One tensor to write: its name and shape there, the leaf and, of stacked ones, the layer that it comes from."""

  name: str
  shape: tuple[int, ...]
  leaf: str
  layer: int | None
  place: Place


def copy_companions(source: str | os.PathLike, target: str | os.PathLike) -> None:
  """Copy tokenizer, templates and licences of a model's folder, whichever are there."""
  source, target = pathlib.Path(source), pathlib.Path(target)
  for name in COMPANIONS:
    if (source / name).is_file():
      jsonl.write_bytes(target / name, (source / name).read_bytes())


def stored_dtype(config_path: str | os.PathLike) -> str | None:
  """The dtype that a config.json names; None if it names none that is written here."""
  values = jsonl.read_json(config_path)
  inner = values.get('text_config') or {}
  named = next((part[key] for part in (values, inner) for key in ('dtype', 'torch_dtype') if part.get(key)), None)
  return named if named in _STORED else None


def save_folder(
    target: str | os.PathLike, config: PolicyConfig, shapes: Mapping[str, Sequence[int]],
    leaf_of: Callable[[str], jax.Array], *, dtype: str, max_shard_bytes: int,
    source_config: str | os.PathLike | None = None, companions: str | os.PathLike | None = None,
    on_bytes: Callable[[int], None] = lambda _: None,
) -> None:
  """Write a folder that transformers and vLLM load.

  Args:
    target: must not exist yet, or be empty.
    config: of the policy.
    shapes: dotted leaf name -> shape.
    leaf_of: dotted leaf name -> array; asked once for each, in the order of writing.
    dtype: float32 or bfloat16, of all weights.
    max_shard_bytes: of one file; a larger tensor gets a file of its own.
    source_config: config.json of the folder that the policy came from; kept but for the dtype. It must
      describe the same architecture.
    companions: a folder whose COMPANIONS are taken over.
    on_bytes: told how many bytes have been written.
  Raises:
    UsageError: target exists, or no model type has this architecture.
    EijaxError: the disk is full or cannot be written; nothing is left behind.
  """
  target = pathlib.Path(target)
  check_target(target)
  values = _config_of(config, source_config, dtype)
  files = _split(_entries(config, shapes), max_shard_bytes, _NUMPY[dtype].itemsize)
  total = sum(_num_bytes(entry, dtype) for entries in files.values() for entry in entries)
  with new_folder(target, total) as partial:
    fetch = _Fetch(leaf_of, dtype)
    for name, entries in files.items():
      _write_file(partial / name, entries, dtype, fetch, on_bytes)
    if len(files) > 1:
      table = {entry.name: name for name, entries in files.items() for entry in entries}
      jsonl.write_json(partial / INDEX, {'metadata': {'total_size': total}, 'weight_map': table})
    if companions is not None:
      copy_companions(companions, partial)
    jsonl.write_json(partial / architecture.CONFIG, values)


def check_target(target: pathlib.Path) -> None:
  """Refuse a folder that holds something already, with a UsageError."""
  try:
    taken = target.exists() and (not target.is_dir() or any(target.iterdir()))
  except OSError as error:
    raise EijaxError(f'{target} cannot be read ({error.strerror}); choose another folder') from None
  if taken:
    raise UsageError(f'{target} exists and is not empty; choose another folder, or remove it')


@contextlib.contextmanager
def new_folder(target: str | os.PathLike, num_bytes: int) -> Iterator[pathlib.Path]:
  """A folder to write into, which takes the name `target` when the block ends well and is removed otherwise.

  Args:
    target: as `check_target` passes it.
    num_bytes: that will be written; refused at once if the disk has no room for them.
  Raises:
    EijaxError: the disk is full or cannot be written.
  """
  target = pathlib.Path(os.path.abspath(target))
  partial = target.with_name(f'.{target.name}.partial')
  try:
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if free < num_bytes:
      raise OSError(errno.ENOSPC, f'{num_bytes / 2**20:,.0f} MiB are needed, {free / 2**20:,.0f} MiB are free')
    if partial.exists():  # Of a killed attempt.
      shutil.rmtree(partial)
    partial.mkdir()
    yield partial
    if target.exists():
      target.rmdir()
    os.replace(partial, target)
  except OSError as error:
    raise EijaxError(f'{target} could not be written ({error.strerror or error}); make room or choose another folder, '
                     'then start again; nothing was left behind') from None
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _config_of(config: PolicyConfig, source_config: str | os.PathLike | None, dtype: str) -> dict[str, Any]:
  own = architecture.config_values(config)
  if source_config is None:
    return {**own, 'torch_dtype': dtype}
  where = os.fspath(source_config)
  outer = jsonl.read_json(where)
  values = architecture.text_values(outer, where)
  if architecture.policy_config(values, where) != architecture.policy_config(own, where):
    raise UsageError(f'{where} describes another architecture than the policy has; give the folder that it came from')
  if values is not outer:  # The text model alone: its class is not that of the outer model.
    ids = {key: outer[key] for key in ('bos_token_id', 'eos_token_id', 'pad_token_id') if key in outer}
    values = {**values, **ids, 'architectures': own['architectures']}
  styles = [key for key in ('dtype', 'torch_dtype') if key in outer] or ['torch_dtype']
  return {key: value for key, value in values.items() if key not in ('dtype', 'torch_dtype')} | {styles[0]: dtype}


def _entries(config: PolicyConfig, shapes: Mapping[str, Sequence[int]]) -> Iterator[_Entry]:
  for leaf, place in places(config).items():
    shape = tuple(shapes[leaf])
    if leaf.startswith(LAYERS):
      for layer in range(shape[0]):
        yield _Entry(place.name.format(layer=layer), place.shape(shape[1:]), leaf, layer, place)
    else:
      yield _Entry(place.name, place.shape(shape), leaf, None, place)


def _split(entries: Iterator[_Entry], max_bytes: int, item_bytes: int) -> dict[str, list[_Entry]]:
  """File name -> its tensors."""
  groups, size = [[]], 0
  for entry in entries:
    num_bytes = int(np.prod(entry.shape, dtype=np.int64)) * item_bytes
    if groups[-1] and size + num_bytes > max_bytes:
      groups.append([])
      size = 0
    groups[-1].append(entry)
    size += num_bytes
  if len(groups) == 1:
    return {SINGLE: groups[0]}
  return {f'model-{i:05d}-of-{len(groups):05d}.safetensors': group for i, group in enumerate(groups, start=1)}


def _num_bytes(entry: _Entry, dtype: str) -> int:
  return int(np.prod(entry.shape, dtype=np.int64)) * _NUMPY[dtype].itemsize


class _Fetch:
  """Tensors by entry, as host arrays; keeps the leaf that the last one came from."""

  def __init__(self, leaf_of: Callable[[str], jax.Array], dtype: str):
    self._leaf_of, self._dtype = leaf_of, dtype
    self._name, self._leaf = None, None

  def __call__(self, entry: _Entry) -> np.ndarray:
    if entry.leaf != self._name:
      self._leaf = None  # Before the next one is made.
      self._name, self._leaf = entry.leaf, self._leaf_of(entry.leaf)
    part = _layer(self._leaf, 0 if entry.layer is None else entry.layer, stacked=entry.layer is not None, dtype=self._dtype)
    return np.ascontiguousarray(np.asarray(part).transpose(entry.place.order).reshape(entry.shape))


@functools.partial(jax.jit, static_argnames=('stacked', 'dtype'))
def _layer(leaf, layer, *, stacked, dtype):
  part = jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False) if stacked else leaf
  return part.astype(jnp.dtype(dtype))


def _write_file(path: pathlib.Path, entries: Sequence[_Entry], dtype: str, fetch: _Fetch, on_bytes) -> None:
  """Write one safetensors file, tensor by tensor: the library itself wants all of a file in memory at once.

  Source of the format: https://huggingface.co/docs/safetensors. Length of the header (uint64, little-endian), header
  (JSON, padded to eight bytes with spaces), data without gaps.
  """
  header, end = {'__metadata__': {'format': 'pt'}}, 0
  for entry in entries:
    begin, end = end, end + _num_bytes(entry, dtype)
    header[entry.name] = {'dtype': _STORED[dtype], 'shape': list(entry.shape), 'data_offsets': [begin, end]}
  text = json.dumps(header, separators=(',', ':')).encode()
  text += b' ' * (-len(text) % 8)
  with open(path, 'wb') as file:
    if hasattr(os, 'posix_fallocate'):  # A full disk is met before the work, not after.
      try:
        os.posix_fallocate(file.fileno(), 0, 8 + len(text) + end)
      except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
          raise
    file.write(struct.pack('<Q', len(text)) + text)
    for entry in entries:
      array = fetch(entry)
      file.write(array.reshape(-1).view(np.uint8).data)
      on_bytes(array.nbytes)
    file.flush()
    os.fsync(file.fileno())
