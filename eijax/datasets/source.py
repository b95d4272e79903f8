"""Scenarios from tensorflow-datasets, equal to what `eijax.scenarios.load` reads from files.

Needs the extra `data`, and no TensorFlow. Batches for training come from `eijax.scenarios.order`, over
this as over files.
"""

import importlib
import json
import os
import pathlib
from types import ModuleType

from eijax.errors import DataError, UsageError
from eijax.scenarios.load import parse_record
from eijax.scenarios.record import SPLITS, Scenario

SHIPPED = 'eibench'
PREPARED = 'dataset_info.json'


def load_tfds(
  name_or_folder: str | os.PathLike = SHIPPED, split: str = 'train', data_dir: str | os.PathLike | None = None
) -> tuple[Scenario, ...]:
  """Load one split through tensorflow-datasets; prepares it first where that has not been done.

  Args:
    name_or_folder: 'eibench' (the set that comes with the project); a folder of scenarios in the same
      format; a folder that tensorflow-datasets has prepared; or the name of a prepared data set, such as
      'eibench/shipped-0123456789abcdef'.
    split: train or test.
    data_dir: where prepared data sets stand; None is TFDS_DATA_DIR or ~/tensorflow_datasets.
  Returns:
    The scenarios in the order of `load_split`.
  Raises:
    UsageError: the extra is not installed, or there is no such split or data set.
    DataError: a record breaks a rule, or the data set holds no scenarios.
    EijaxError: the data set cannot be written.
  """
  if split not in SPLITS:
    raise UsageError(f'split={split!r} must be one of {", ".join(SPLITS)}; name one of them')
  builder = _builder(tfds_library(), name_or_folder, data_dir)
  if split not in builder.info.splits:
    raise UsageError(f'split={split!r} must be one of {", ".join(builder.info.splits)} in {name_or_folder}; name one')
  if 'record' not in (builder.info.features or {}):
    raise DataError(f'{name_or_folder}: feature `record` is missing, so it holds no scenarios; name another data set')
  scenarios, places = [], {}
  for index, example in enumerate(builder.as_data_source(split)):
    where = f'{builder.info.full_name} {split}[{index}]'
    try:
      obj = json.loads(example['record'])
    except ValueError as error:
      raise DataError(f'{where}: field `record` is no JSON ({error}); prepare the data set anew') from None
    scenario = parse_record(obj, where)
    if scenario.id in places:
      raise DataError(
        f'{where}: field `id` = {scenario.id!r} must be unique, and stands at {places[scenario.id]} already; '
        'give the record another id'
      )
    places[scenario.id] = where
    scenarios.append(scenario)
  if not scenarios:
    raise DataError(f'{name_or_folder}: split {split} holds no scenario; add at least one record')
  return tuple(scenarios)


def tfds_library() -> ModuleType:
  """tensorflow_datasets, which not every user needs."""
  try:
    # tensorflow-datasets asks for these two only while it writes.
    for name in ('array_record', 'importlib_resources'):
      importlib.import_module(name)
    return importlib.import_module('tensorflow_datasets')
  except ImportError as error:
    raise UsageError(
      f'reading from tensorflow-datasets needs {error.name or "a library"}, which is not installed; '
      "pip install 'eijax[data]'"
    ) from None


def _builder(tfds: ModuleType, name_or_folder: str | os.PathLike, data_dir: str | os.PathLike | None):
  """A tfds builder whose data stands on the disk."""
  folder = pathlib.Path(name_or_folder)
  if (folder / PREPARED).is_file():
    return tfds.builder_from_directory(folder)
  if str(name_or_folder) == SHIPPED or any((folder / split).is_dir() for split in SPLITS):
    from eijax.datasets.eibench import Eibench  # pylint: disable=import-outside-toplevel

    builder = Eibench(folder=None if str(name_or_folder) == SHIPPED else folder, data_dir=data_dir)
    try:
      builder.download_and_prepare()
    except OSError as error:
      raise DataError(
        f'{builder.data_dir}: cannot be written ({error.strerror or error}); choose a writable data_dir'
      ) from None
    return builder
  if folder.is_dir():
    raise UsageError(
      f'{folder}: must hold {" or ".join(SPLITS)} folders of scenarios, or {PREPARED}, and holds neither; '
      'name another folder'
    )
  return prepared_builder(tfds, str(name_or_folder), data_dir)


def prepared_builder(tfds: ModuleType, name: str, data_dir: str | os.PathLike | None):
  """The builder of a data set by its name.

  Raises:
    UsageError: there is none.
  """
  try:
    return tfds.builder(name, data_dir=data_dir)
  except (ValueError, AttributeError) as error:  # DatasetNotFoundError is a ValueError.
    first = str(error).strip().partition('\n')[0]
    raise UsageError(
      f'{name!r} is neither a folder nor a data set that is prepared in '
      f'{data_dir or "the default data_dir"} ({first}); prepare it, or name a folder or another data_dir'
    ) from None
