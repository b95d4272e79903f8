"""A whole run, small: what it writes, what it compiles, and that being killed changes nothing."""

import concurrent.futures
import json
import math
import pathlib
import signal

import jax
import numpy as np
import pytest

from eijax import train
from eijax.checkpoints.folder import CheckpointFolder
from eijax.config import SimulatorConfig
from eijax.errors import EijaxError
from eijax.learning import optimizer as optimizer_lib, sharding, step as step_lib
from eijax.policy.decoder import Decoder
from eijax.scenarios.record import SCENES
from eijax.training.run_folder import RunFolder
from fake_endpoint import FakeEndpoint
from forked import every_program_is_kept, run_program
from tiny_run import NUM_STEPS, tiny_config, use_one_device, write_scenarios

ROOT = pathlib.Path(__file__).resolve().parent.parent
# What a clock or the machine decides.
MEASURED = ('seconds/', '_secs/', 'latency', 'tokens_per_sec', 'peak_memory_mib')
COMPILED = '/jax/core/compile/backend_compile_duration'


class Baseline:
  """An uninterrupted run, and the programs that had been compiled at the end of each step."""

  def __init__(self, folder):
    self.scenarios = write_scenarios(folder / 'scenarios')
    self.path = folder / 'run'
    self.config = tiny_config(self.scenarios)
    self.num_compiled = []


@pytest.fixture(scope='module')
def baseline(tmp_path_factory):
  result = Baseline(tmp_path_factory.mktemp('train'))
  compiled = []
  add_metrics = RunFolder.add_metrics

  def count(self, row):
    result.num_compiled.append(len(compiled))
    add_metrics(self, row)

  # The processes that are killed below find every program compiled.
  with pytest.MonkeyPatch.context() as patch, every_program_is_kept():
    use_one_device(patch.setattr)
    patch.setattr(RunFolder, 'add_metrics', count)
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if name == COMPILED else None)
    try:
      train.train(result.config, str(result.path), tpu=False, resume=True)
    finally:
      jax.monitoring.clear_event_listeners()
  return result


def lines(path):
  return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def lasting(row):
  """A metrics row without what a clock decides."""
  return {name: value for name, value in row.items() if not any(part in name for part in MEASURED)}


def test_files_of_a_run(baseline):
  found = {str(path.relative_to(baseline.path)) for path in baseline.path.rglob('*') if path.is_file()}
  assert {name for name in found if not name.startswith(('checkpoints/', 'tensorboard/'))} == {
      'config.json', 'metrics.jsonl', 'report.html', 'policy/config.json', 'policy/tokenizer.model',
      *(f'episodes/step_{step:06d}.jsonl' for step in range(NUM_STEPS)),
      *(f'eval/step_{step:06d}/{name}' for step in (0, 2, 3) for name in ('results.jsonl', 'summary.json'))}
  assert len([name for name in found if name.startswith('tensorboard/events.out.tfevents.')]) == 1
  config = json.loads((baseline.path / 'config.json').read_text())
  assert {'versions', 'git_revision', 'preset', 'seed', 'policy', 'advantages', 'simulator'} <= set(config)
  assert config['versions']['jax'] == jax.__version__
  assert '<svg' in (baseline.path / 'report.html').read_text()


def test_metrics_are_those_that_are_documented(baseline):
  rows = lines(baseline.path / 'metrics.jsonl')
  assert [row['step'] for row in rows] == list(range(NUM_STEPS))
  manual = (ROOT / 'BUILD.md').read_text().split('## Metrics')[1].split('\n## ')[0]
  for row in rows:
    for name, value in row.items():
      shown = 'simulator_*' if name.startswith('simulator_') else 'reward/SCENE' if name.startswith('reward/') else name
      assert f'`{shown}`' in manual, f'{name} is not in BUILD.md'
      # A step of two scenarios leaves two scenes out.
      assert value is None and name.startswith('reward/') or math.isfinite(value), name
    assert row['episodes'] == 4 and row['failed_episodes'] == 0
    assert row['simulator_requests'] == round(4 * row['rounds_mean'])
  # Sampler and learner score alike: one update at this learning rate moves the ratio by far less than 5 %.
  assert rows[0]['clip_fraction'] < 0.5 and abs(rows[0]['importance_ratio'] - 1) < 0.05


def test_every_step_of_a_talk_is_kept(baseline):
  for step in range(NUM_STEPS):
    rows = lines(baseline.path / f'episodes/step_{step:06d}.jsonl')
    assert len(rows) == 4 and len({row['key'] for row in rows}) == 4 and len({row['group'] for row in rows}) == 2
    for row in rows:
      assert row['error'] is None and -1 <= row['reward'] <= 1
      assert len(row['advantages']) == row['num_rounds'] == len(row['turns'])


@pytest.mark.parametrize('step', (0, 2, 3))
def test_held_out_talks_before_between_and_after(baseline, step):
  folder = baseline.path / f'eval/step_{step:06d}'
  assert sorted(row['id'] for row in lines(folder / 'results.jsonl')) == sorted(f'{scene}-test-0' for scene in SCENES)
  summary = json.loads((folder / 'summary.json').read_text())
  assert summary['n'] == 4 and summary['failed'] == 0 and set(summary['scenes']) == set(SCENES)


def test_nothing_is_compiled_after_the_first_step(baseline):
  # The first step's end sees the update's program; what follows runs programs that exist, evaluations included.
  assert baseline.num_compiled[0] > 0
  assert baseline.num_compiled == [baseline.num_compiled[0]] * NUM_STEPS


def state_at_end(path, config):
  mesh = sharding.make_mesh('', jax.devices()[:1])
  abstract = step_lib.abstract_train_state(
      step_lib.params_init(Decoder(config.policy)), optimizer_lib.make_optimizer(config.optimizer), mesh)
  with CheckpointFolder(path / 'checkpoints') as checkpoints:
    step, state, _ = checkpoints.restore(abstract)
  assert step == NUM_STEPS
  return state


def assert_equal_runs(actual, expected, config):
  assert list(map(lasting, lines(actual / 'metrics.jsonl'))) == list(map(lasting, lines(expected / 'metrics.jsonl')))
  for name in ('policy/tokenizer.model', 'policy/config.json', *(f'episodes/step_{step:06d}.jsonl' for step in range(NUM_STEPS))):
    assert (actual / name).read_bytes() == (expected / name).read_bytes(), name
  for step in (0, 2, 3):
    name = f'eval/step_{step:06d}'
    # A resumed evaluation writes its rows in another order.
    assert sorted((actual / name / 'results.jsonl').read_text().splitlines()) == sorted(
        (expected / name / 'results.jsonl').read_text().splitlines())
    assert json.loads((actual / name / 'summary.json').read_text()) == json.loads((expected / name / 'summary.json').read_text())
  jax.tree.map(np.testing.assert_array_equal, state_at_end(actual, config), state_at_end(expected, config))
  assert (actual / 'report.html').exists()


def test_an_evaluation_without_a_score_stops_the_run_and_is_held_again(baseline, tmp_path, monkeypatch):
  use_one_device(monkeypatch.setattr)
  with FakeEndpoint(answer=lambda request: 'no JSON at all') as endpoint:
    config = tiny_config(baseline.scenarios, simulator=SimulatorConfig(urls=(endpoint.url,), model='m', max_attempts=1))
    with pytest.raises(EijaxError, match='all held-out talks at step 0 failed; see .*failed.jsonl; mend the cause'):
      train.train(config, str(tmp_path), tpu=False, resume=True)
  assert [path.name for path in (tmp_path / 'eval/step_000000').iterdir()] == ['failed.jsonl']
  assert {row['ended_by'] for row in lines(tmp_path / 'eval/step_000000/failed.jsonl')} == {'simulator_failed'}


def test_a_policy_that_diverged_is_reported():
  update = {'loss': np.float32(1), 'grad_norm_max': np.float32(2), 'num_tokens': np.float32(3)}
  assert train.mean_of_updates([update, {**update, 'grad_norm_max': np.float32(4)}]) == {
      'loss': 1, 'grad_norm_max': 4, 'num_tokens': 6, 'num_updates': 2}
  with pytest.raises(EijaxError, match='loss=nan must be finite: the policy has diverged'):
    train.mean_of_updates([update, {**update, 'loss': np.float32('nan')}])


# What befalls a run, one after another, each time it is started again; two such runs side by side.
FATES = (
    ('warm-up', 'evaluation', 'talks', 'save', 'none'),
    ('update', 'full disk in metrics', 'full disk in a checkpoint', 'later evaluation', 'none'),
)


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_equals_one_that_is_not(baseline, tmp_path):
  def live(number):
    return run_program('tiny_run.py', baseline.scenarios, str(tmp_path / str(number)), *FATES[number], timeout_secs=300)

  with concurrent.futures.ThreadPoolExecutor(len(FATES)) as pool:
    for number, ends in enumerate(pool.map(live, range(len(FATES)))):
      for moment, result in zip(FATES[number], ends, strict=True):
        expected = 0 if moment == 'none' else 1 if 'disk' in moment else -signal.SIGKILL
        assert result.status == expected, f'{moment}: {result.status}\n{result.stdout}\n{result.stderr}'
        assert 'Traceback' not in result.stderr
        if 'disk' in moment:
          assert 'No space left on device' in result.stderr.splitlines()[-1]
          assert result.stderr.splitlines()[-1].startswith('error: ')
      assert_equal_runs(tmp_path / str(number), baseline.path, baseline.config)
