"""Loading a saved policy: the right weights and settings, and clear words where something is missing."""

import json
import shutil

import jax
import numpy as np
import pytest

from eijax import convert, presets
from eijax.errors import CheckpointError, DataError, UsageError
from eijax.training.local_policy import describe_local_policy, is_local_policy, load_local_policy
from saved_run import one_device_mesh, write_run
from test_convert import model_folder


@pytest.fixture(scope='module')
def run(tmp_path_factory):
  return write_run(tmp_path_factory.mktemp('saved'), steps=(2, 5))


def equal(actual, expected):
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), b), actual, expected)


def test_latest_and_named_step(run):
  workdir, config, params = run
  latest = load_local_policy(str(workdir), one_device_mesh())
  equal(latest.params, params[1])
  assert latest.name == 'run@5'
  assert (latest.config, latest.sampling, latest.shapes) == (config.policy, config.sampling, config.sampler)
  assert latest.thinking is False
  assert latest.chat_format.decode(latest.tokenizer.encode('The dog was red.')) == 'The dog was red.'
  former = load_local_policy(f'{workdir}@2', one_device_mesh())
  equal(former.params, params[0])
  assert former.name == 'run@2'


def test_description_reads_no_weights(run):
  workdir, config, _ = run
  saved = describe_local_policy(f'{workdir}@2')
  assert (saved.step, saved.config, saved.name) == (2, config.policy, 'run@2')


def test_what_counts_as_local(run):
  workdir, _, _ = run
  assert is_local_policy(str(workdir)) and is_local_policy(f'{workdir}@2')
  assert not is_local_policy('qwen3-8b') and not is_local_policy('gpt@home')


def test_bad_sources_are_refused_in_words(run, tmp_path):
  workdir, _, _ = run
  for source, kind, words in (
      (str(tmp_path / 'none'), UsageError, 'is no folder'),
      (str(tmp_path), UsageError, 'lacks config.json'),
      (f'{workdir}@last', UsageError, 'must be a whole number'),
      (f'{workdir}@3', CheckpointError, 'no checkpoint of step 3; it has 2, 5'),
  ):
    with pytest.raises(kind, match=words):
      describe_local_policy(source)
  broken = tmp_path / 'broken'
  shutil.copytree(workdir, broken)
  (broken / 'policy' / 'tokenizer.model').unlink()
  with pytest.raises(UsageError, match='lacks policy/tokenizer.model'):
    describe_local_policy(str(broken))
  shutil.copy(workdir / 'policy' / 'tokenizer.model', broken / 'policy' / 'tokenizer.model')
  settings = json.loads((workdir / 'config.json').read_text())
  for change, words in (
      (lambda plain: plain.pop('sampling'), "'sampling' is missing"),
      (lambda plain: plain['sampler'].update(spans=[]), 'spans='),
      (lambda plain: plain['sampling'].update(heat=1), 'heat'),
  ):
    plain = json.loads(json.dumps(settings))
    change(plain)
    (broken / 'config.json').write_text(json.dumps(plain))
    with pytest.raises(DataError, match='not the settings of a run') as caught:
      describe_local_policy(str(broken))
    assert words in str(caught.value)


def test_a_folder_whose_name_holds_an_at_stays_whole(run, tmp_path):
  workdir, _, _ = run
  other = tmp_path / 'run@2'
  shutil.copytree(workdir, other)
  assert describe_local_policy(str(other)).step == 5
  assert describe_local_policy(f'{other}@2').step == 2


def test_hugging_face_folders_and_their_imports(tmp_path):
  model = model_folder(tmp_path / 'model')
  convert.import_folder(str(model), str(tmp_path / 'ours'))
  recipe = presets.get('qwen3_0_6b')  # The smallest; it is larger still.
  loaded = [load_local_policy(str(tmp_path / name), one_device_mesh()) for name in ('model', 'ours')]
  equal(loaded[0].params, loaded[1].params)
  assert [policy.name for policy in loaded] == ['model', 'ours@0']
  for policy in loaded:
    assert (policy.sampling, policy.shapes, policy.thinking) == (recipe.sampling, recipe.sampler, recipe.episodes.thinking)
    assert policy.config == presets.with_policy(recipe, policy.config).policy and policy.config.num_layers == 3
    assert policy.chat_format.decode(policy.tokenizer.encode('The dog was red.')) == 'The dog was red.'
  assert is_local_policy(str(model)) and describe_local_policy(str(model)).step is None
  assert describe_local_policy(f'{tmp_path / "ours"}@0').step == 0
  with pytest.raises(UsageError, match='has no steps; give .*model. alone'):
    describe_local_policy(f'{model}@3')
  with pytest.raises(CheckpointError, match='no checkpoint of step 3'):
    describe_local_policy(f'{tmp_path / "ours"}@3')
  weights = next(model.glob('*2-of*.safetensors'))
  weights.write_bytes(weights.read_bytes()[:900])
  with pytest.raises(DataError, match='cut short or corrupt'):
    describe_local_policy(str(model))


def test_a_tokenizer_that_does_not_go_with_the_weights(tmp_path):
  model = model_folder(tmp_path / 'model', vocab_size=300)
  with pytest.raises(DataError, match='its tokenizer has ids up to .*, but the weights have only 300 rows'):
    load_local_policy(str(model), one_device_mesh())
