"""Scenarios as a tensorflow-datasets builder, stored as ArrayRecord: no TensorFlow is needed.

  import eijax.datasets.eibench
  source = tfds.data_source('eibench', split='train')                                   # The shipped set.
  source = tfds.data_source('eibench', split='test', builder_kwargs={'folder': DIR})    # Any other.

API: https://www.tensorflow.org/datasets/api_docs/python/tfds/core/GeneratorBasedBuilder
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from eijax import jsonl
from eijax.errors import DataError
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES, SPLITS, Anchors, Scenario
from eijax.scenarios.shipped import shipped_folder

_DESCRIPTION = """\
Situations for measuring and training how language models act in emotional talks: a simulated user with a persona
sheet, a sheet for the model under test, and the anchors of anger and trust between which a talk is scored. Four
scenes: support, defense, repair, charm. `record` is the whole record as JSON; the other features are its main fields.
The format is that of EIBench (arXiv 2606.15532)."""
_CITATION = """\
@article{eibench2026,
  title = {EIBench},
  journal = {arXiv preprint arXiv:2606.15532},
  year = {2026},
}"""
_DIGEST_CHARS = 16


@dataclasses.dataclass(eq=False)
class EibenchConfig(tfds.core.BuilderConfig):
  """A folder of scenarios. Its name holds a digest of the content, so that no old copy passes for a new set."""

  folder: str = ''


class Eibench(tfds.core.GeneratorBasedBuilder):
  """Reads {train,test}/SCENE_final.jsonl of a folder, in the order of the files."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}

  def __init__(
    self,
    *,
    folder: str | os.PathLike | None = None,
    config: EibenchConfig | None = None,
    file_format: str | tfds.core.FileFormat | None = 'array_record',
    **kwargs,
  ):
    """Choose the scenarios.

    Args:
      folder: with train or test or both in it; None is the set that comes with the project.
      config: instead of a folder, the config of another builder (as when one is unpickled).
      file_format: as in tfds.
      **kwargs: data_dir and version, as in tfds.
    Raises:
      DataError: the folder holds no scenario files, or one of a split is missing.
    """
    if folder is not None and config is not None:
      raise ValueError(f'folder={folder!r} and config={config!r} name the scenarios twice; give one of them')
    if config is None:
      config = _config_of(pathlib.Path(folder if folder is not None else shipped_folder()))
    super().__init__(config=config, file_format=file_format, **kwargs)

  def _info(self) -> tfds.core.DatasetInfo:
    text = tfds.features.Text
    return tfds.core.DatasetInfo(
      builder=self,
      description=_DESCRIPTION,
      citation=_CITATION,
      homepage='https://arxiv.org/abs/2606.15532',
      features=tfds.features.FeaturesDict({
        **{name: text() for name in _TEXTS},
        **{name: tfds.features.Sequence(text()) for name in _LISTS},
        'anchors': {field.name: np.int32 for field in dataclasses.fields(Anchors)},
        'record': text(),
      }),
      # Training has an order of its own, which is to be the same over files and over this.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    del dl_manager  # The files are here.
    folder = pathlib.Path(self.builder_config.folder)
    return {split: self._generate_examples(folder, split) for split in _splits_of(folder)}

  def _generate_examples(self, folder: pathlib.Path, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    scenarios = load_split(folder, split)
    records = (obj for scene in SCENES for _, obj in jsonl.read(folder / split / f'{scene}_final.jsonl'))
    for index, (scenario, record) in enumerate(zip(scenarios, records, strict=True)):
      yield index, _example(scenario, record)


_TEXTS = ('id', 'scene', 'title', 'data_source', 'language', 'aggressor_prompt', 'opening_line', 'defender_prompt', 'goal')
_LISTS = ('success_criteria', 'must_avoid')


def _example(scenario: Scenario, record: Mapping[str, Any]) -> dict[str, Any]:
  """The features of one scenario; an opening line that is not there is ''."""
  text = json.dumps(record, ensure_ascii=False)
  if not text.isascii():
    try:
      text.encode()
    except UnicodeEncodeError:
      text = json.dumps(record)  # Half a surrogate pair: only its escape can be stored.
  return {
    **{name: _storable(getattr(scenario, name) or '') for name in _TEXTS},
    **{name: [_storable(item) for item in getattr(scenario, name)] for name in _LISTS},
    'anchors': dataclasses.asdict(scenario.anchors),
    'record': text,
  }


def _storable(text: str) -> str:
  return text.encode('utf-8', 'replace').decode()


def _splits_of(folder: pathlib.Path) -> tuple[str, ...]:
  return tuple(split for split in SPLITS if (folder / split).is_dir())


def _config_of(folder: pathlib.Path) -> EibenchConfig:
  """The config of a folder: its name, and a digest over names and content of its files."""
  folder = folder.resolve()
  digest = hashlib.sha256()
  for split in _splits_of(folder):
    for scene in SCENES:
      path = folder / split / f'{scene}_final.jsonl'
      try:
        content = path.read_bytes()
      except OSError as error:
        raise DataError(f'{path}: cannot be read ({error.strerror}); a split needs a file of every scene') from None
      digest.update(f'{split}/{scene} {len(content)}\n'.encode())
      digest.update(content)
  if not _splits_of(folder):
    raise DataError(f'{folder}: holds no scenarios; it must have {" or ".join(SPLITS)} folders with SCENE_final.jsonl')
  label = 'shipped' if folder == shipped_folder().resolve() else re.sub(r'[^a-z0-9]+', '_', folder.name.lower()).strip('_')
  return EibenchConfig(
    name='-'.join(filter(None, (label, digest.hexdigest()[:_DIGEST_CHARS]))),
    description=f'Scenarios of {folder.name}, sha256 {digest.hexdigest()}.',
    folder=str(folder),
  )
