"""The tensorflow-datasets builder and its reader: what they give equals what the files give."""

import importlib.util
import json
import pathlib
import pickle
import subprocess
import sys

import pytest

from eijax.datasets.source import load_tfds
from eijax.errors import DataError, UsageError
from eijax.scenarios.load import load_split
from eijax.scenarios.order import step_scenarios
from eijax.scenarios.record import SCENES, SPLITS
from eijax.scenarios.shipped import shipped_folder
from talks import make_record

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXTRA = ('tensorflow_datasets', 'array_record', 'importlib_resources')
MISSING = [name for name in EXTRA if importlib.util.find_spec(name) is None]
needs_extra = pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}: pip install 'eijax[data]'")


def write_set(folder, splits=SPLITS, num=5, **changes):
  for split in splits:
    for scene in SCENES:
      path = folder / split / f'{scene}_final.jsonl'
      path.parent.mkdir(parents=True, exist_ok=True)
      records = [make_record(scene, id=f'{split}-{scene}-{n}', **changes) for n in range(num)]
      path.write_text(''.join(json.dumps(record) + '\n' for record in records))
  return folder


@pytest.fixture(scope='module')
def prepared(tmp_path_factory):
  """The shipped set, prepared once."""
  data_dir = tmp_path_factory.mktemp('tfds')
  return data_dir, {split: load_tfds('eibench', split, data_dir) for split in SPLITS}


@pytest.fixture
def tfds():
  return pytest.importorskip('tensorflow_datasets')


@needs_extra
@pytest.mark.parametrize('split', SPLITS)
def test_shipped_set_equals_its_files(prepared, split):
  assert prepared[1][split] == load_split(shipped_folder(), split)


@needs_extra
def test_order_over_it_equals_order_over_the_files(prepared):
  files = load_split(shipped_folder(), 'train')
  for step in (0, 1, 17, 250, 251):  # 251 is in the second pass. Any step can be asked for first: a resumed run does.
    assert step_scenarios(prepared[1]['train'], step, 8, seed=3) == step_scenarios(files, step, 8, seed=3)


@needs_extra
def test_data_source_gives_the_main_fields(prepared, tfds):
  import eijax.datasets.eibench  # pylint: disable=import-outside-toplevel,unused-import

  source = tfds.data_source('eibench', split='test', data_dir=prepared[0])
  scenarios = load_split(shipped_folder(), 'test')
  assert len(source) == len(scenarios)
  for index in (0, len(source) // 2, len(source) - 1):
    example, scenario = source[index], scenarios[index]
    for name in ('id', 'scene', 'title', 'language', 'aggressor_prompt', 'defender_prompt', 'goal', 'data_source'):
      assert example[name].decode() == getattr(scenario, name)
    assert example['opening_line'].decode() == (scenario.opening_line or '')
    assert tuple(item.decode() for item in example['success_criteria']) == scenario.success_criteria
    assert tuple(item.decode() for item in example['must_avoid']) == scenario.must_avoid
    assert {name: int(value) for name, value in example['anchors'].items()} == vars(scenario.anchors)
    assert json.loads(example['record'])['id'] == scenario.id


@needs_extra
def test_slices_of_splits(prepared, tfds):
  import eijax.datasets.eibench  # pylint: disable=import-outside-toplevel,unused-import

  source = tfds.data_source('eibench', split='test[10:14]', data_dir=prepared[0])
  assert [e['id'].decode() for e in source] == [s.id for s in load_split(shipped_folder(), 'test')[10:14]]


@needs_extra
def test_any_folder_in_the_format(tmp_path, tfds):
  import eijax.datasets.eibench  # pylint: disable=import-outside-toplevel,unused-import

  folder = write_set(tmp_path / 'Eigene Menge', appraisal=True, title='一无所有 🙂', unknown={'kept': [1, None]})
  for split in SPLITS:
    assert load_tfds(folder, split, tmp_path / 'tfds') == load_split(folder, split)
  source = tfds.data_source(
    'eibench', split='train', data_dir=tmp_path / 'tfds', builder_kwargs={'folder': str(folder)}
  )
  assert len(source) == 20 and source[0]['title'].decode() == '一无所有 🙂'


@needs_extra
def test_chinese_wrapped_and_odd_records(tmp_path):
  folder = write_set(tmp_path / 'set', aggressor_profile__system_prompt='### 背景\n你叫陈哲，32岁。', must_avoid=[])
  path = folder / 'train' / 'charm_final.jsonl'
  # Wrapped, with a blank line, a mark of byte order, and half a surrogate pair.
  odd = json.dumps({'row': make_record('charm', id='odd', title='half \ud83d')})
  path.write_text('\ufeff' + odd + '\n\n' + path.read_text())
  loaded = load_tfds(folder, 'train', tmp_path / 'tfds')
  assert loaded == load_split(folder, 'train')
  assert next(s for s in loaded if s.id == 'odd').title == 'half \ud83d'
  assert loaded[0].language == 'zh' and loaded[0].must_avoid == ()


@needs_extra
def test_changed_files_are_prepared_anew(tmp_path):
  folder = write_set(tmp_path / 'set')
  before = load_tfds(folder, 'train', tmp_path / 'tfds')
  write_set(folder, title='B title')  # As long as before.
  after = load_tfds(folder, 'train', tmp_path / 'tfds')
  assert after == load_split(folder, 'train') and after != before
  assert len(list((tmp_path / 'tfds' / 'eibench').iterdir())) == 2


@needs_extra
def test_same_content_is_prepared_once(tmp_path):
  folder = write_set(tmp_path / 'set')
  load_tfds(folder, 'train', tmp_path / 'tfds')
  (record,) = (tmp_path / 'tfds').rglob('*train*array_record*')
  stamp = record.stat().st_mtime_ns
  load_tfds(folder, 'train', tmp_path / 'tfds')
  assert record.stat().st_mtime_ns == stamp


@needs_extra
def test_one_split_alone(tmp_path):
  folder = write_set(tmp_path / 'set', splits=['train'])
  assert load_tfds(folder, 'train', tmp_path / 'tfds') == load_split(folder, 'train')
  with pytest.raises(UsageError, match="split='test' must be one of train"):
    load_tfds(folder, 'test', tmp_path / 'tfds')


@needs_extra
def test_prepared_copies_are_read_without_the_files(tmp_path):
  folder = write_set(tmp_path / 'set')
  expected = load_tfds(folder, 'test', tmp_path / 'tfds')
  (config,) = (tmp_path / 'tfds' / 'eibench').iterdir()
  for path in sorted(folder.rglob('*'), reverse=True):
    path.rmdir() if path.is_dir() else path.unlink()
  assert load_tfds(f'eibench/{config.name}', 'test', tmp_path / 'tfds') == expected
  assert load_tfds(config / '1.0.0', 'test') == expected


@needs_extra
def test_builder_can_be_pickled(tmp_path):
  # Input pipelines send builders to their workers.
  from eijax.datasets.eibench import Eibench  # pylint: disable=import-outside-toplevel

  builder = Eibench(folder=write_set(tmp_path / 'set'), data_dir=tmp_path / 'tfds')
  copy = pickle.loads(pickle.dumps(builder))
  assert copy.info.full_name == builder.info.full_name and copy.data_dir == builder.data_dir


@needs_extra
def test_bad_record_is_named(tmp_path):
  folder = write_set(tmp_path / 'set')
  path = folder / 'train' / 'repair_final.jsonl'
  path.write_text(path.read_text() + json.dumps(make_record('repair', goal_one_liner=7)) + '\n')
  with pytest.raises(DataError, match=r'repair_final.jsonl:6: field `goal_one_liner` = 7'):
    load_tfds(folder, 'train', tmp_path / 'tfds')
  assert not list((tmp_path / 'tfds').rglob('dataset_info.json'))


@needs_extra
def test_missing_file_of_a_scene_is_named(tmp_path):
  folder = write_set(tmp_path / 'set')
  (folder / 'test' / 'charm_final.jsonl').unlink()
  with pytest.raises(DataError, match='charm_final.jsonl: cannot be read'):
    load_tfds(folder, 'train', tmp_path / 'tfds')


def make_numbers(tfds, data_dir):
  """A data set of something else."""

  class Numbers(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
      return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({'number': tfds.features.Text()}))

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples()}

    def _generate_examples(self):
      yield 0, {'number': 'one'}

  builder = Numbers(data_dir=data_dir, file_format='array_record')
  builder.download_and_prepare()
  return builder


@needs_extra
def test_what_is_no_scenario_set_is_refused(tmp_path, tfds):
  with pytest.raises(UsageError, match='neither a folder nor a data set'):
    load_tfds('no_such_set', 'train', tmp_path)
  with pytest.raises(UsageError, match='neither a folder nor a data set'):
    load_tfds('eibench/no_such_config', 'train', tmp_path)
  with pytest.raises(UsageError, match='holds neither'):
    load_tfds(tmp_path, 'train')
  other = make_numbers(tfds, tmp_path)
  with pytest.raises(DataError, match='feature `record` is missing'):
    load_tfds(other.data_dir, 'train')


def test_unknown_split_is_refused(tmp_path):
  with pytest.raises(UsageError, match="split='valid' must be one of train, test"):
    load_tfds('eibench', 'valid', tmp_path)


@needs_extra
def test_folder_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(DataError, match='cannot be written'):
    load_tfds(write_set(tmp_path / 'set'), 'train', tmp_path / 'file' / 'tfds')


# Hides a module as if it were not installed, also where it is, and refuses connections.
PROGRAM = """
import importlib.machinery, socket, sys

find = importlib.machinery.PathFinder.find_spec

def find_others(name, path=None, target=None):
  return None if name == {hidden!r} else find(name, path, target)

def refuse(*args):
  raise AssertionError('a connection was tried')

importlib.machinery.PathFinder.find_spec = find_others
socket.socket.connect = socket.getaddrinfo = refuse
from eijax.datasets.source import load_tfds
from eijax.errors import UsageError
from eijax.scenarios.shipped import shipped_folder
try:
  print(len(load_tfds({folder!r}, 'train', {data_dir!r})))
except UsageError as error:
  print(error)
print(sorted(set(sys.modules) & {{'tensorflow', 'jax', 'torch'}}))
"""


def run_without(hidden, folder, data_dir):
  program = PROGRAM.format(hidden=hidden, folder=str(folder), data_dir=str(data_dir))
  result = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
  )
  assert result.returncode == 0, result.stderr
  return result.stdout.strip().splitlines()


@needs_extra
def test_no_tensorflow_and_no_network_are_needed(tmp_path):
  assert run_without('tensorflow', write_set(tmp_path / 'set'), tmp_path / 'tfds')[-2:] == ['20', '[]']


@pytest.mark.parametrize('name', EXTRA)
def test_without_the_extra_the_remedy_is_named(tmp_path, name):
  said, _ = run_without(name, write_set(tmp_path / 'set'), tmp_path / 'tfds')[-2:]
  assert "which is not installed; pip install 'eijax[data]'" in said
  assert not (tmp_path / 'tfds').exists()
