"""The safetensors files of a folder: what they hold, whether they are whole, and slices of them. No jax."""

from collections.abc import Mapping, Sequence
import dataclasses
import os
import pathlib

import ml_dtypes
import numpy as np
import safetensors

from eijax import jsonl
from eijax.errors import DataError

SINGLE = 'model.safetensors'
INDEX = 'model.safetensors.index.json'
DTYPES = {'F32': np.dtype(np.float32), 'BF16': np.dtype(ml_dtypes.bfloat16), 'F16': np.dtype(np.float16)}
# Prefixes under which a text model lies beside a vision tower, and what belongs to the tower.
_OUTER = (('model.language_model.', 'model.'), ('language_model.model.', 'model.'), ('language_model.lm_head.', 'lm_head.'))
_NOT_TEXT = ('vision_tower.', 'multi_modal_projector.', 'model.vision_tower.', 'model.multi_modal_projector.')
# Old releases stored a constant of the rotary embedding beside the weights.
_CONSTANT = '.rotary_emb.inv_freq'
_MAX_NAMED = 6  # Names of one kind in one message.


@dataclasses.dataclass(frozen=True)
class Tensor:
  """Where a tensor lies: file, its name there, safetensors dtype, shape."""

  path: pathlib.Path
  name: str
  dtype: str
  shape: tuple[int, ...]

  @property
  def num_bytes(self) -> int:
    return int(np.prod(self.shape, dtype=np.int64)) * DTYPES[self.dtype].itemsize


def text_name(name: str) -> str:
  """The name that a tensor of the text model has where no vision tower lies beside."""
  return next((new + name.removeprefix(old) for old, new in _OUTER if name.startswith(old)), name)


class WeightFiles:
  """The tensors of a folder by name; headers, lengths and index are checked, no weight is read.

  Args:
    folder: with model.safetensors, or with model.safetensors.index.json and what it names.
  Raises:
    DataError: none there, a file that is missing, cut short or broken, or an index that does not fit its files.
  """

  def __init__(self, folder: str | os.PathLike):
    self.folder = pathlib.Path(folder)
    self.tensors: dict[str, Tensor] = {}
    self.left_out: list[str] = []  # Of a vision tower.
    index = self._index()
    for name in sorted(set(index.values())) if index is not None else (SINGLE,):
      self._add(self.folder / name, index)
    lost = sorted(set(index or ()) - self._seen)
    if lost:
      raise DataError(f'{self.folder / INDEX}: names {first_names(lost)}, which its files lack; download the folder again')

  def _index(self) -> dict[str, str] | None:
    path = self.folder / INDEX
    self._seen: set[str] = set()
    if not path.exists():
      if not (self.folder / SINGLE).exists():
        pickled = sorted(p.name for pattern in ('*.bin', '*.pt', '*.pth', '*.gguf') for p in self.folder.glob(pattern))
        also = f' ({pickled[0]} is not read: only safetensors are)' if pickled else ''
        raise DataError(f'{self.folder}: neither {SINGLE} nor {INDEX} is there{also}; give a folder with safetensors weights')
      return None
    index = jsonl.read_json(path)
    table = index.get('weight_map') if isinstance(index, dict) else None
    if not isinstance(table, dict) or not table or not all(
        isinstance(name, str) and name == os.path.basename(name) for name in table.values()):
      raise DataError(f'{path}: weight_map must map names of tensors to files of this folder; download the file again')
    absent = sorted({name for name in table.values() if not (self.folder / name).exists()})
    if absent:
      raise DataError(f'{path}: names {first_names(absent)}, missing in the folder; download what is missing')
    return table

  def _add(self, path: pathlib.Path, index: Mapping[str, str] | None) -> None:
    check_readable(path)
    try:
      with safetensors.safe_open(path, framework='numpy') as file:
        for name in file.keys():
          view = file.get_slice(name)
          self._enter(Tensor(path, name, str(view.get_dtype()), tuple(view.get_shape())), index)
    except (safetensors.SafetensorError, OSError) as error:
      raise DataError(f'{path}: cut short or corrupt ({error}); download it again') from None

  def _enter(self, tensor: Tensor, index: Mapping[str, str] | None) -> None:
    if index is not None and index.get(tensor.name) != tensor.path.name:
      raise DataError(f'{tensor.path}: holds {tensor.name}, which {INDEX} puts into {index.get(tensor.name, "no file")}; '
                      'download the folder again')
    self._seen.add(tensor.name)
    if tensor.name.startswith(_NOT_TEXT):
      self.left_out.append(tensor.name)
    elif not tensor.name.endswith(_CONSTANT):
      self.tensors[text_name(tensor.name)] = tensor

  def check(self, expected: Mapping[str, Sequence[int]], *, tied: bool) -> None:
    """Compare with the tensors that a policy needs.

    Args:
      expected: name -> shape.
      tied: the policy has no head of its own; one that is stored all the same is passed over, as its
        config.json says.
    Raises:
      DataError: lists all that are missing, not known, of another shape or of another type.
    """
    found = {name: t for name, t in self.tensors.items() if not (tied and name == 'lm_head.weight')}
    shared = [name for name in expected if name in found]
    problems = {
        'missing': [name for name in expected if name not in found],
        'not part of this architecture': sorted(set(found) - set(expected)),
        'of another shape': [f'{name} {list(found[name].shape)} instead of {list(expected[name])}' for name in shared
                             if found[name].shape != tuple(expected[name])],
        f'of a type other than {", ".join(DTYPES)}': [
            f'{name} {found[name].dtype}' for name in shared if found[name].dtype not in DTYPES],
    }
    told = '; '.join(f'{len(names)} {what}: {first_names(names)}' for what, names in problems.items() if names)
    if told:
      raise DataError(f'{self.folder}: the weights do not fit config.json: {told}; use the files that belong together')

  def read(self, name: str, slices: tuple[slice, ...]) -> np.ndarray:
    """A part of a tensor, in its stored type.

    The file is opened for each part: its pages count as memory of this process for as long as it is open.
    """
    tensor = self.tensors[name]
    try:
      with safetensors.safe_open(tensor.path, framework='numpy') as file:
        return file.get_slice(tensor.name)[slices]
    except (safetensors.SafetensorError, OSError) as error:
      raise DataError(f'{tensor.path}: {tensor.name} cannot be read ({error}); download the file again') from None


def check_readable(path: pathlib.Path) -> None:
  """Touch both ends of a file, and tell a pointer to large-file storage from weights.

  Raises:
    DataError: it cannot be read, or is such a pointer.
  """
  try:
    with open(path, 'rb') as file:
      head = file.read(40)
      file.seek(-1, os.SEEK_END)
      file.read(1)
  except OSError as error:
    raise DataError(f'{path}: cannot be read ({error.strerror}); download it again') from None
  if head.startswith(b'version https://git-lfs'):
    raise DataError(f'{path}: is a pointer of Git LFS, not the weights; fetch them with `git lfs pull`')


def first_names(names: Sequence[str]) -> str:
  """The first few, and how many more there are, for a message."""
  more = len(names) - _MAX_NAMED
  return ', '.join(names[:_MAX_NAMED]) + (f' and {more} more' if more > 0 else '')
