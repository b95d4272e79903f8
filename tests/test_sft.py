"""Fine-tuning: a whole run, small; what it writes and compiles, that being killed changes nothing, and who can use it."""

import dataclasses
import json
import math
import pathlib
import shutil
import signal

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from eijax import convert, flags as train_flags, presets
from eijax.checkpoints import layout
from eijax.checkpoints.folder import restore_params
from eijax.config import SftConfig
from eijax.errors import PreemptedError, UsageError
from eijax.learning.supervised import SupervisedLearner
from eijax.sft import run as run_lib
from eijax.sft.held_out import HeldOut
from eijax.sft.metrics import MetricsRows
from eijax.sft.run import fine_tune
from eijax.training import policy_source
from eijax.training.local_policy import describe_local_policy, load_local_policy
from forked import every_program_is_kept, run_program
from saved_run import one_device_mesh, write_run
from test_convert import model_folder
from tiny_run import sigterm_at, use_one_device
from tiny_sft import build, talks, tiny_flags, write_chats

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEASURED = ('seconds/', 'tokens_per_sec', 'peak_memory_mib')


@dataclasses.dataclass
class Run:
  path: pathlib.Path
  policy: pathlib.Path
  flags: list[str]
  config: SftConfig
  learners: list


@pytest.fixture(scope='module', name='run')
def fixture_run(tmp_path_factory):
  folder = tmp_path_factory.mktemp('sft')
  policy, _, _ = write_run(folder / 'policy')
  arguments = tiny_flags(policy, write_chats(folder / 'chats.jsonl', talks(40)))
  result = Run(folder / 'run', policy, arguments, build(*arguments), [])
  # The processes that are killed below find every program compiled.
  with pytest.MonkeyPatch.context() as patch, every_program_is_kept():
    use_one_device(patch.setattr)
    made = lambda *args, **kwargs: result.learners.append(SupervisedLearner(*args, **kwargs)) or result.learners[-1]
    patch.setattr(run_lib, 'SupervisedLearner', made)
    fine_tune(result.config, str(result.path), tpu=False, resume=True)
  return result


def lines(path):
  return [json.loads(line) for line in path.read_text(encoding='utf-8').splitlines()]


def lasting(row):
  return {name: value for name, value in row.items() if not any(part in name for part in MEASURED)}


def summary(path, step):
  return json.loads((path / f'eval/step_{step:06d}/summary.json').read_text())


def test_the_loss_falls_in_training_and_on_held_out_conversations(run):
  rows = lines(run.path / 'metrics.jsonl')
  assert len(rows) == json.loads((run.path / 'data.json').read_text())['num_steps'] >= 8
  assert rows[-1]['loss'] < 0.6 * rows[0]['loss']
  before, after = summary(run.path, 0), summary(run.path, len(rows))
  assert after['loss'] < 0.6 * before['loss'] and after['perplexity'] == pytest.approx(math.exp(after['loss']))
  assert before['num_tokens'] == after['num_tokens'] > 0 and after['num_conversations'] == 8


def test_files_and_metrics_are_those_that_are_documented(run):
  names = {path.name for path in run.path.iterdir()}
  assert names == {'config.json', 'data.json', 'metrics.jsonl', 'report.html', 'policy', 'checkpoints', 'eval', 'tensorboard'}
  rows = lines(run.path / 'metrics.jsonl')
  last = len(rows)
  assert [row['step'] for row in rows] == list(range(last))
  manual = (ROOT / 'BUILD.md').read_text().split('### Fine-tuning')[1].split('\n## ')[0]
  for row in rows:
    measured = (row['step'] + 1) % 4 == 0 or row['step'] + 1 == last
    for name, value in row.items():
      assert f'`{name}`' in manual, f'{name} is not in BUILD.md'
      assert (value is None) == (name.startswith('held_out') and not measured), name
      assert value is None or math.isfinite(value), name
    if measured:
      assert row['held_out_loss'] == summary(run.path, row['step'] + 1)['loss']
  assert rows[-1]['epoch'] == 4
  data = json.loads((run.path / 'data.json').read_text())
  assert data['training']['conversations'] == 32 and data['held_out_seen_in_training'] == 0
  assert 4 * data['training']['tokens'] == sum(row['num_tokens'] for row in rows)  # Every reply once an epoch.
  page = (run.path / 'report.html').read_text()
  assert '<svg' in page and 'The held-out loss fell from' in page and 'not finished' not in page


def test_no_more_is_compiled_than_there_are_declared_lengths(run):
  used = {row['row_length'] for row in lines(run.path / 'metrics.jsonl')}
  assert used == {32, 80}
  learner, = run.learners
  # pylint: disable=protected-access
  assert learner._update._cache_size() == 2 and learner._measure._cache_size() <= 2


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_equals_one_that_is_not(run, tmp_path):
  moments = ('first measure', 'update', 'measure', 'save', 'none')
  lives = run_program('tiny_sft.py', str(tmp_path / 'run'), *moments, '--', *run.flags, timeout_secs=600)
  for moment, result in zip(moments, lives, strict=True):
    assert result.status == (0 if moment == 'none' else -signal.SIGKILL), f'{moment}\n{result.stdout}\n{result.stderr}'
    assert 'Traceback' not in result.stderr
  assert 'resumed at step' in result.stdout
  assert_equal_runs(tmp_path / 'run', run)


def assert_equal_runs(actual, run):
  expected = run.path
  assert list(map(lasting, lines(actual / 'metrics.jsonl'))) == list(map(lasting, lines(expected / 'metrics.jsonl')))
  for path in (*expected.glob('eval/*/summary.json'), expected / 'data.json', *(expected / 'policy').iterdir()):
    assert (actual / path.relative_to(expected)).read_bytes() == path.read_bytes()
  jax.tree.map(np.testing.assert_array_equal, params_of(actual, run.config.policy), params_of(expected, run.config.policy))


# Moment, and the step that the run goes on from. Each start of the run meets the next one.
MOMENTS = (
    # The second update is finished, so the run is at step 2, which has no checkpoint of its own.
    ((MetricsRows, 'hold', 2), 2),
    # The measurement after step 4 is dropped: the row of that step lacks its loss until the next start.
    ((HeldOut, '_batches', 1), 4),
    # The checkpoint after step 6, at a moment when its files are half there.
    ((ocp.StandardCheckpointHandler, 'finalize', 1), 6),
)


@pytest.mark.slow
def test_a_run_that_is_stopped_at_any_moment_equals_one_that_is_not(run, tmp_path, monkeypatch):
  use_one_device(monkeypatch.setattr)
  monkeypatch.setattr(run_lib, 'write_report', lambda path: path / 'report.html')  # Tested above.
  start = lambda: fine_tune(run.config, str(tmp_path), tpu=False, resume=True)
  for call, step in MOMENTS:
    with sigterm_at(*call), pytest.raises(PreemptedError, match=f'stopped by SIGTERM; saved at step {step}: the same command goes on'):
      start()
    assert layout.latest_step(tmp_path / 'checkpoints') == step
  assert lines(tmp_path / 'metrics.jsonl')[3]['held_out_loss'] is not None
  start()
  assert_equal_runs(tmp_path, run)


def test_before_there_is_anything_to_save(run, tmp_path, monkeypatch):
  use_one_device(monkeypatch.setattr)
  with sigterm_at(run_lib, 'encode', 1), pytest.raises(PreemptedError, match='nothing was to be saved yet'):
    fine_tune(run.config, str(tmp_path / 'run'), tpu=False, resume=True)


def params_of(workdir, policy):
  return jax.device_get(restore_params(workdir / 'checkpoints', policy_source.abstract_params(policy, one_device_mesh())))


def test_the_result_is_a_policy_for_every_command(run, tmp_path):
  loaded = load_local_policy(str(run.path), one_device_mesh())  # As eijax.evaluate and eijax.serve do.
  assert loaded.thinking is False and loaded.sampling == presets.demo().sampling
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(loaded.params), params_of(run.path, run.config.policy))
  convert.export_folder(str(run.path), str(tmp_path / 'hf'), step=None, dtype=None, max_shard_bytes=2**30)
  assert (tmp_path / 'hf/model.safetensors').exists()
  values = train_flags.flags.FlagValues()
  train_flags.define(values)
  values(['train', f'--policy={run.path}'])
  config = train_flags.build_config(values)  # As eijax.train does: shapes and recipe are those of the run.
  assert (config.preset, config.policy_source, config.policy.hidden_dim) == ('demo', str(run.path), run.config.policy.hidden_dim)
  policy_source.check_source(config)
  again = build(*tiny_flags(run.path, 'x.jsonl'))
  policy_source.check_source(again)
  assert again.policy == run.config.policy


def test_a_policy_of_its_own_starts_with_a_trained_tokenizer(tmp_path, monkeypatch):
  use_one_device(monkeypatch.setattr)
  from tiny_run import write_scenarios  # pylint: disable=import-outside-toplevel

  monkeypatch.setattr(run_lib, 'shipped_folder', lambda: write_scenarios(tmp_path / 'scenarios'))
  arguments = ['--data=' + write_chats(tmp_path / 'chats.jsonl', talks(30)), '--vocab_size=400', '--num_layers=2', '--hidden_dim=32',
               '--head_dim=16', '--mlp_dim=48', '--row_lengths=128', '--rows_per_minibatch=4', '--num_epochs=3', '--max_steps=5',
               '--held_out_fraction=0', '--scan_unroll=1']
  fine_tune(build(*arguments), str(tmp_path / 'run'), tpu=False, resume=True)
  rows = lines(tmp_path / 'run/metrics.jsonl')
  assert len(rows) == 5 and rows[-1]['loss'] < rows[0]['loss'] and not (tmp_path / 'run/eval').exists()
  assert describe_local_policy(str(tmp_path / 'run')).step == 5
  assert 'No held-out loss' in (tmp_path / 'run/report.html').read_text()


@pytest.mark.slow
def test_an_adapter_alone_is_trained_on_a_hugging_face_folder(tmp_path, monkeypatch):
  use_one_device(monkeypatch.setattr)
  model = model_folder(tmp_path / 'model', dtype='float32')
  arguments = [f'--policy={model}', '--data=' + write_chats(tmp_path / 'chats.jsonl', talks(12)), '--row_lengths=128', '--lora_rank=2',
               '--lora_alpha=4', '--rows_per_minibatch=4', '--learning_rate=0.02', '--num_epochs=3', '--compute_dtype=float32',
               '--num_micro_batches=1', '--held_out_fraction=0.2']
  config = build(*arguments)
  fine_tune(config, str(tmp_path / 'run'), tpu=False, resume=True)
  rows = lines(tmp_path / 'run/metrics.jsonl')
  assert rows[-1]['loss'] < rows[0]['loss']
  after = params_of(tmp_path / 'run', config.policy)
  before = jax.device_get(policy_source.params_of(config, one_device_mesh()))
  changed = {jax.tree_util.keystr(path).split("'")[-2] for path, same in jax.tree_util.tree_leaves_with_path(
      jax.tree.map(np.array_equal, before, after)) if not same}
  assert changed == {'lora_a', 'lora_b'}
  assert load_local_policy(str(tmp_path / 'run'), one_device_mesh()).config.lora.rank == 2
  shutil.rmtree(model)  # The run goes on without it.
  fine_tune(config, str(tmp_path / 'run'), tpu=False, resume=True)


def test_other_data_or_settings_are_kept_apart(run, tmp_path, monkeypatch):
  use_one_device(monkeypatch.setattr)
  shutil.copytree(run.path, tmp_path / 'run')
  for more, words in ((['--seed=1'], 'seed was 0, now 1'), (['--data=' + write_chats(tmp_path / 'other.jsonl', talks(40, seed=1))],
                                                            'conversations.digest was')):
    with pytest.raises(UsageError, match=words):
      fine_tune(build(*run.flags, *more), str(tmp_path / 'run'), tpu=False, resume=True)
  with pytest.raises(UsageError, match='drop --noresume'):
    fine_tune(run.config, str(tmp_path / 'run'), tpu=False, resume=False)
