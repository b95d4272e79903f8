"""A policy on this machine, ready to be sampled from: weights, tokenizer and the settings that it was trained with.

`load_local_policy` is the one door for every command that runs a policy without training it.
"""

import dataclasses
import os
import pathlib
from typing import Any

from jax.sharding import Mesh

from eijax import jsonl
from eijax.checkpoints import layout
from eijax.checkpoints.folder import restore_params
from eijax.errors import DataError, UsageError
from eijax.policy.config import PolicyConfig
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.text.load import holds_tokenizer
from eijax.text.ports import ChatFormat, Tokenizer
from eijax.text.tokenizer import FILE_NAME
from eijax.training import policy_source


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LocalPolicy:
  """Everything that a sampler needs.

  params: `Decoder` params (unboxed), placed on the mesh that the policy was loaded for.
  sampling, shapes, thinking: as the policy was trained; callers may use others. chat_format: for this `thinking`.
  name: folder and step, for people.
  """

  config: PolicyConfig
  tokenizer: Tokenizer
  chat_format: ChatFormat
  params: Any
  sampling: SamplingConfig
  shapes: SamplerShapes
  thinking: bool
  name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedPolicy:
  """What a run's folder says of a policy, without its weights. `step` is that of the checkpoint."""

  folder: pathlib.Path
  step: int
  config: PolicyConfig
  sampling: SamplingConfig
  shapes: SamplerShapes
  thinking: bool

  @property
  def name(self) -> str:
    return f'{self.folder.name}@{self.step}'


def is_local_policy(source: str) -> bool:
  """Whether `source` names a folder, with or without @STEP."""
  return os.path.isdir(source) or os.path.isdir(source.rpartition('@')[0])


def describe_local_policy(source: str) -> SavedPolicy:
  """Read and check what `source` holds, without reading weights or touching a device.

  Args:
    source: the workdir of a run (its latest checkpoint), or WORKDIR@STEP.
  Raises:
    UsageError: `source` is no run's folder.
    CheckpointError: it has no finished checkpoint, or none of that step.
    DataError: its config.json or policy/config.json is broken.
  """
  folder, step = _folder_and_step(source)
  parts = ('config.json', f'policy/{policy_source.CONFIG}')
  lacking = [part for part in parts if not (folder / part).exists()]
  if not lacking and not holds_tokenizer(folder / 'policy'):
    lacking = [f'policy/{FILE_NAME}']
  if lacking:
    raise UsageError(f'policy={source!r} is not the folder of a run (it lacks {lacking[0]}); give the --workdir of '
                     'a training run, alone for its latest checkpoint or as WORKDIR@STEP')
  step = layout.pick_step(folder / 'checkpoints', step)
  path = folder / 'config.json'
  run = jsonl.read_json(path)
  try:
    sampling, shapes, thinking = run['sampling'], run['sampler'], run['episodes']['thinking']
    sampling = SamplingConfig(**sampling)
    shapes = SamplerShapes(**{name: tuple(value) if isinstance(value, list) else value for name, value in shapes.items()})
  except (KeyError, TypeError, AttributeError, UsageError) as error:
    what = f'{error} is missing' if isinstance(error, KeyError) else error
    raise DataError(f'{path}: not the settings of a run ({what}); restore it from a copy') from None
  return SavedPolicy(folder=folder.resolve(), step=step, config=policy_source.read_shapes(folder / 'policy'),
                     sampling=sampling, shapes=shapes, thinking=bool(thinking))


def load_local_policy(source: str, mesh: Mesh) -> LocalPolicy:
  """Load a policy onto the devices of a mesh.

  Args:
    source: the workdir of a run (its latest checkpoint), or WORKDIR@STEP.
  Raises:
    UsageError, DataError, CheckpointError: see `describe_local_policy`; also a damaged checkpoint.
  """
  saved = describe_local_policy(source)
  tokenizer = policy_source.read_tokenizer(saved.folder / 'policy')
  params = restore_params(
      saved.folder / 'checkpoints', policy_source.abstract_params(saved.config, mesh), saved.step)
  return LocalPolicy(
      config=saved.config, tokenizer=tokenizer, chat_format=tokenizer.chat_format(thinking=saved.thinking), params=params,
      sampling=saved.sampling, shapes=saved.shapes, thinking=saved.thinking, name=saved.name)


def _folder_and_step(source: str) -> tuple[pathlib.Path, int | None]:
  """Split WORKDIR@STEP; a folder whose own name holds an @ stays whole."""
  if os.path.isdir(source):
    return pathlib.Path(source), None
  folder, at, step = source.rpartition('@')
  if not at or not os.path.isdir(folder):
    raise UsageError(f'policy={source!r} is no folder; give the --workdir of a training run, alone for its latest '
                     'checkpoint or as WORKDIR@STEP')
  if not step.isascii() or not step.isdecimal():
    raise UsageError(f'policy={source!r}: the step after @ must be a whole number, e.g. {folder}@20')
  return pathlib.Path(folder), int(step)
