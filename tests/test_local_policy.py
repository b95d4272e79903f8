"""Loading a saved policy: the right weights and settings, and clear words where something is missing."""

import json
import shutil

import jax
import numpy as np
import pytest

from eijax.errors import CheckpointError, DataError, UsageError
from eijax.training.local_policy import describe_local_policy, is_local_policy, load_local_policy
from saved_run import one_device_mesh, write_run


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
