"""A policy on this machine, ready to be sampled from: weights, tokenizer and the settings that it was trained with.

`load_local_policy` is the one door for every command that runs a policy without training it. It may be that of a
run, that of a Hugging Face folder, or what eijax.convert made of one. The latter two have not been trained here:
their settings are those of the preset that training would take.
"""

import dataclasses
import os
import pathlib
from typing import Any

from jax.sharding import Mesh

from eijax import jsonl, presets
from eijax.checkpoints import layout
from eijax.checkpoints.folder import restore_params
from eijax.errors import DataError, UsageError
from eijax.hf.architecture import is_hf_folder, read_architecture
from eijax.hf.files import WeightFiles
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
  sampling, shapes, thinking: as the policy was trained, or would be; callers may use others. chat_format: for this
  `thinking`.
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
  """What a folder says of a policy, without its weights. `step` is that of the checkpoint; a Hugging Face folder has none."""

  folder: pathlib.Path
  step: int | None
  config: PolicyConfig
  sampling: SamplingConfig
  shapes: SamplerShapes
  thinking: bool

  @property
  def name(self) -> str:
    return self.folder.name if self.step is None else f'{self.folder.name}@{self.step}'


def is_local_policy(source: str) -> bool:
  """Whether `source` names a folder, with or without @STEP."""
  return os.path.isdir(source) or os.path.isdir(source.rpartition('@')[0])


def describe_local_policy(source: str) -> SavedPolicy:
  """Read and check what `source` holds, without reading weights or touching a device.

  Args:
    source: the workdir of a run (its latest checkpoint), WORKDIR@STEP, or the folder of a Hugging Face model.
  Raises:
    UsageError: `source` is none of these.
    CheckpointError: it has no finished checkpoint, or none of that step.
    DataError: its config.json or policy/config.json is broken, or a model is none that can be run.
  """
  folder, step = _folder_and_step(source)
  if is_hf_folder(folder):
    if step is not None:
      raise UsageError(f'policy={source!r}: the folder of a Hugging Face model has no steps; give {str(folder)!r} alone')
    WeightFiles(folder)  # Whole, or refused now.
    return _untrained(folder, None, read_architecture(folder))
  is_import = (folder / 'policy' / policy_source.HF_CONFIG).exists() and not (folder / 'config.json').exists()
  parts = (*(() if is_import else ('config.json',)), f'policy/{policy_source.CONFIG}')
  lacking = [part for part in parts if not (folder / part).exists()]
  if not lacking and not holds_tokenizer(folder / 'policy'):
    lacking = [f'policy/{FILE_NAME}']
  if lacking:
    raise UsageError(f'policy={source!r} is not the folder of a run (it lacks {lacking[0]}); give the --workdir of '
                     'a training run, alone for its latest checkpoint or as WORKDIR@STEP, or the folder of a Hugging Face model')
  step = layout.pick_step(folder / 'checkpoints', step)
  if is_import:
    return _untrained(folder, step, policy_source.read_shapes(folder / 'policy'))
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
    source: see `describe_local_policy`.
  Raises:
    UsageError, DataError, CheckpointError: see `describe_local_policy`; also damaged weights, or a tokenizer that
      does not go with them.
  """
  saved = describe_local_policy(source)
  is_model = saved.step is None
  tokenizer = policy_source.read_tokenizer(saved.folder if is_model else saved.folder / 'policy')
  policy_source.check_tokenizer(source, tokenizer, saved.config)
  chat_format = tokenizer.chat_format(thinking=saved.thinking)
  if is_model:
    params = policy_source.read_weights(saved.folder, saved.config, mesh)
  else:
    params = restore_params(
        saved.folder / 'checkpoints', policy_source.abstract_params(saved.config, mesh), saved.step)
  return LocalPolicy(
      config=saved.config, tokenizer=tokenizer, chat_format=chat_format, params=params,
      sampling=saved.sampling, shapes=saved.shapes, thinking=saved.thinking, name=saved.name)


def _untrained(folder: pathlib.Path, step: int | None, config: PolicyConfig) -> SavedPolicy:
  """A policy from elsewhere, run as the preset nearest in size would train it."""
  recipe = presets.with_policy(presets.get(presets.nearest(config)), config)
  # An adapter that came in with the weights is a part of the policy, not of the recipe.
  policy = dataclasses.replace(recipe.policy, lora=config.lora)
  return SavedPolicy(folder=folder.resolve(), step=step, config=policy, sampling=recipe.sampling,
                     shapes=recipe.sampler, thinking=recipe.episodes.thinking)


def _folder_and_step(source: str) -> tuple[pathlib.Path, int | None]:
  """Split WORKDIR@STEP; a folder whose own name holds an @ stays whole."""
  if os.path.isdir(source):
    return pathlib.Path(source), None
  folder, at, step = source.rpartition('@')
  if not at or not os.path.isdir(folder):
    raise UsageError(f'policy={source!r} is no folder; give the --workdir of a training run, alone for its latest '
                     'checkpoint or as WORKDIR@STEP, or the folder of a Hugging Face model')
  if not step.isascii() or not step.isdecimal():
    raise UsageError(f'policy={source!r}: the step after @ must be a whole number, e.g. {folder}@20')
  return pathlib.Path(folder), int(step)
