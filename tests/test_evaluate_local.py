"""A policy on this machine as the model under test."""

import dataclasses
import threading

import pytest

from eijax import presets
from eijax.errors import UsageError
from eijax.evaluate import local
from eijax.evaluate.config import EvaluateConfig, ModelConfig
from eijax.evaluate.run import Options, run
from eijax.evaluation.store import read_rows
from eijax.sampling.config import SamplerShapes
from eijax.simulator.config import SimulatorConfig
from eijax.simulator.server import SimulatorServer
from saved_run import write_run
from test_convert import model_folder
from tiny_run import use_one_device


@pytest.fixture(scope='module')
def saved(tmp_path_factory):
  workdir, config, _ = write_run(tmp_path_factory.mktemp('local'), steps=(1, 2))
  return workdir, config


@pytest.fixture(scope='module')
def simulator_url():
  server = SimulatorServer()
  threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
  yield server.url
  server.shutdown()
  server.server_close()


def make_config(saved, url, name=None, **changes):
  workdir, config = saved
  values = dict(model=ModelConfig(name=name or str(workdir)), simulator=SimulatorConfig(urls=(url,), max_attempts=3),
                scenarios=config.scenarios, samples=2, max_rounds=2)
  return EvaluateConfig(**(values | changes))


def test_a_checkpoint_is_evaluated_and_resumed(saved, simulator_url, tmp_path, monkeypatch):
  use_one_device(monkeypatch.setattr)
  config = make_config(saved, simulator_url)
  summary = run(config, Options(out=str(tmp_path / 'a')))
  rows = read_rows(tmp_path / 'a')
  assert summary['model'] == 'run@2' and summary['n'] == 8 and summary['failed'] == 0
  assert summary['settings']['model']['step'] == 2 and summary['settings']['model']['max_new_tokens'] == 12
  # First weights write until the limit, or stop by chance.
  assert sum(row['truncated_turns'] for row in rows) > 0 and all(row['num_rounds'] == 2 for row in rows)
  # Cut after three talks, it comes to the same end.
  (tmp_path / 'b').mkdir()
  for name in ('config.json', 'results.jsonl'):
    content = (tmp_path / 'a' / name).read_bytes()
    (tmp_path / 'b' / name).write_bytes(content if name == 'config.json' else b''.join(content.splitlines(keepends=True)[:3]))
  run(config, Options(out=str(tmp_path / 'b')))
  assert (tmp_path / 'a' / 'results.jsonl').read_bytes() == (tmp_path / 'b' / 'results.jsonl').read_bytes()


def test_a_hugging_face_folder_is_evaluated(saved, simulator_url, tmp_path, monkeypatch):
  use_one_device(monkeypatch.setattr)
  model, recipe = model_folder(tmp_path / 'model'), presets.get('qwen3_0_6b')
  # The recipe as it is, but for shapes that compile within seconds.
  small = dataclasses.replace(
      recipe, sampler=SamplerShapes(num_slots=4, spans=(640,), chunks=(160,)),
      sampling=dataclasses.replace(recipe.sampling, max_new_tokens=8))
  monkeypatch.setitem(presets.PRESETS, 'qwen3_0_6b', lambda: small)
  summary = run(make_config(saved, simulator_url, str(model), keep_thoughts=True), Options(out=str(tmp_path / 'out')))
  assert summary['model'] == 'model' and (summary['n'], summary['failed']) == (8, 0)
  settings = summary['settings']['model']
  assert (settings['name'], settings['step'], settings['thinking'], settings['temperature']) == (
      str(model), None, True, recipe.sampling.temperature)
  assert all(row['num_rounds'] == 2 for row in read_rows(tmp_path / 'out'))


def test_the_latest_checkpoint_is_named_so_that_a_later_one_is_not_mixed_in(saved, simulator_url):
  facts = local.describe(make_config(saved, simulator_url).model)
  assert facts.settings['step'] == 2
  assert local.describe(ModelConfig(name=f'{saved[0]}@1')).settings['step'] == 1


@pytest.mark.parametrize('changes, words', [
    ({'extra_body': '{"stop": ["x"]}'}, "'stop' means nothing to a local policy; use some of top_p, top_k"),
    ({'extra_body': '{"top_k": 1.5}'}, 'top_k must be a number'),
    ({'temperature': 0.0}, 'temperature=0.0 must be above 0'),
    ({'max_tokens': 320}, 'model_max_tokens=320 must be below the context of the policy, 320'),
])
def test_what_a_local_policy_cannot_do_is_said(saved, changes, words):
  with pytest.raises(UsageError) as caught:
    local.describe(ModelConfig(name=str(saved[0]), **changes))
  assert words in str(caught.value)


def test_settings_reach_the_sampler(saved):
  facts = local.describe(ModelConfig(name=str(saved[0]), temperature=0.3, max_tokens=7, extra_body='{"top_p": 0.8, "top_k": 4}', thinking='on'))
  assert facts.thinking and facts.lockstep
  assert {name: facts.settings[name] for name in ('temperature', 'max_new_tokens', 'top_p', 'top_k', 'thinking')} == {
      'temperature': 0.3, 'max_new_tokens': 7, 'top_p': 0.8, 'top_k': 4, 'thinking': True}
