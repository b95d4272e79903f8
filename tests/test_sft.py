"""Fine-tuning: a whole run, small; what it writes and compiles, that being killed changes nothing, and who can use it."""

import dataclasses
import importlib.util
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest

from eijax import convert, flags as train_flags, presets
from eijax.checkpoints.folder import restore_params
from eijax.config import SftConfig
from eijax.errors import EijaxError, UsageError
from eijax.learning import optimizer as optimizer_lib, packing, sharding, step as step_lib
from eijax.learning.supervised import SupervisedLearner, rows_at, segments_of
from eijax.sft import flags as flags_lib, run as run_lib
from eijax.sft.epochs import packed_by_length, plan_epoch
from eijax.sft.run import fine_tune
from eijax.training import policy_source
from eijax.training.local_policy import describe_local_policy, load_local_policy
from learning_cases import POLICY, VOCAB
from saved_run import one_device_mesh, write_run
from test_convert import model_folder
from test_flags import leaves
from tiny_run import use_one_device
from tiny_sft import build, talks, tiny_flags, write_chats

ROOT = pathlib.Path(__file__).resolve().parent.parent
MEASURED = ('seconds/', 'tokens_per_sec', 'peak_memory_mib')
CONFIG = optimizer_lib.OptimizerConfig(learning_rate=1e-2)


# ---- The learner ----------------------------------------------------------------------------------


def random_talks(num, seed=0):
  """Segments of one or two turns."""
  rng = np.random.default_rng(seed)
  ids = lambda low, high: rng.integers(0, VOCAB, rng.integers(low, high)).tolist()
  result = []
  for _ in range(num):
    prompt, response = ids(3, 9), ids(1, 8)
    turns = [(prompt, response)]
    if rng.random() < 0.5:
      turns.append((prompt + response + ids(1, 5), ids(1, 8)))
    result += segments_of(turns, 64)
  return result


def one_update(mesh, batch, num_micro_batches=1, chunk_length=0):
  learner = SupervisedLearner(
      POLICY, optimizer_lib.make_optimizer(CONFIG), mesh, num_micro_batches=num_micro_batches, chunk_length=chunk_length)
  state = learner.state_of(fresh_params(learner))
  measured = learner.measure(state.params, [batch])
  (_, state, metrics), = learner.updates(state, [batch], lambda _: np.float32(1e-2))
  return jax.device_get(state.params), jax.tree.map(float, metrics), measured


def fresh_params(learner):
  init, shardings = step_lib.params_init(POLICY), step_lib.state_shardings(learner.abstract).params
  return jax.jit(lambda key: nn.unbox(init(key)), out_shardings=shardings)(jax.random.key(0))


def assert_same_update(left, right):
  # Float32 sums in another order; Adam's first update divides by the gradient's own size, which magnifies rounding.
  np.testing.assert_allclose(left[1]['loss'], right[1]['loss'], rtol=2e-5)
  np.testing.assert_allclose(left[1]['grad_norm'], right[1]['grad_norm'], rtol=1e-4)
  np.testing.assert_allclose(left[2], right[2], rtol=2e-5)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4), left[0], right[0])


@pytest.fixture(scope='module', name='layouts')
def fixture_layouts():
  """The same segments a row each, and packed: (alone, packed), batches of one shape."""
  segments = random_talks(16)
  packed = packing.assign_rows(list(map(len, segments)), 64)
  assert len(packed) < 10
  fill = lambda rows: packing.fill_rows(segments, rows, num_rows=16, row_length=64)
  return fill([[i] for i in range(16)]), fill(packed)


def test_packed_rows_have_the_loss_and_the_update_of_rows_of_their_own(layouts):
  alone, packed = (one_update(one_device_mesh(), batch) for batch in layouts)
  assert alone[1]['num_tokens'] == packed[1]['num_tokens'] == alone[2][1]
  np.testing.assert_allclose(alone[1]['loss'], alone[2][0], rtol=1e-5)  # What is measured is what is learned.
  assert_same_update(alone, packed)


def test_the_measured_loss_is_the_cross_entropy_of_the_replies(layouts):
  alone = layouts[0]
  (loss, count) = one_update(one_device_mesh(), alone)[2]
  learner = SupervisedLearner(POLICY, optimizer_lib.make_optimizer(CONFIG), one_device_mesh())
  logits = np.asarray(POLICY.apply({'params': fresh_params(learner)}, alone.tokens, alone.positions, alone.segment_ids), np.float64)
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  chosen = np.take_along_axis(log_probs, alone.targets[..., None], -1)[..., 0][alone.loss_mask]
  assert count == chosen.size
  np.testing.assert_allclose(loss, -chosen.mean(), rtol=1e-5)


@pytest.mark.parametrize('spec, num_micro_batches, chunk_length', [('fsdp=8', 1, 0), ('data=2,fsdp=2,tensor=2', 2, 16)])
def test_eight_devices_learn_like_one(layouts, spec, num_micro_batches, chunk_length):
  expected = one_update(one_device_mesh(), layouts[1])
  assert_same_update(one_update(sharding.make_mesh(spec), layouts[1], num_micro_batches, chunk_length), expected)


# ---- Epochs ---------------------------------------------------------------------------------------


def test_an_epoch_has_every_segment_once_in_rows_that_hold_them():
  rng = np.random.default_rng(1)
  segments = [range(int(n)) for n in (*rng.integers(1, 97, 300), *rng.integers(1, 25, 1200))]
  config = packing.PackingConfig(row_lengths=(24, 48, 96), rows_per_minibatch=4)
  planned = plan_epoch(segments, config, epoch=0, seed=3, multiple=2)
  members = [i for batch in planned for row in batch.rows for i in row]
  assert sorted(members) == list(range(1500))
  for batch in planned:
    assert batch.num_rows == rows_at(config, batch.row_length, 2) and batch.num_rows % 2 == 0
    assert len(batch.rows) <= batch.num_rows
    assert all(sum(len(segments[i]) for i in row) <= batch.row_length for row in batch.rows)
  assert {24, 96} <= {batch.row_length for batch in planned} <= {24, 48, 96}
  filled = sum(map(len, segments)) / sum(batch.num_rows * batch.row_length for batch in planned)
  assert filled > 0.9  # The last mini-batch of the shortest rows alone may stay part empty.
  assert planned == plan_epoch(segments, config, epoch=0, seed=3, multiple=2)
  for other in (dict(epoch=1, seed=3), dict(epoch=0, seed=4)):
    assert planned != plan_epoch(segments, config, multiple=2, **other)


def test_large_sets_are_packed_block_by_block(monkeypatch):
  monkeypatch.setattr('eijax.sft.epochs.BLOCK', 50)
  segments = [range(10)] * 126
  planned = plan_epoch(segments, packing.PackingConfig(row_lengths=(32,), rows_per_minibatch=2), epoch=0, seed=0, multiple=1)
  sizes = [sum(map(len, batch.rows)) for batch in planned]
  assert sum(sizes) == 126 and min(sizes) >= 3  # No last block of a few.


def test_a_few_long_conversations_share_their_update_with_short_ones():
  config = packing.PackingConfig(row_lengths=(10, 40), rows_per_minibatch=4)
  (length, rows), (shorter, others) = packed_by_length([(0, 38), *((i, 8) for i in range(1, 60))], config, 1)
  assert (length, shorter) == (40, 10) and rows[0] == [0] and list(map(len, rows[1:])) == [5, 5, 5]
  assert others == [[i] for i in range(16, 60)]
  assert packed_by_length([(7, 38), (9, 40)], config, 1) == [(40, [[9], [7]])]


def test_rows_of_every_length_are_shared_evenly():
  config = packing.PackingConfig(row_lengths=(100, 300, 1000), rows_per_minibatch=8)
  assert [rows_at(config, length, 8) for length in config.row_lengths] == [80, 24, 8]


# ---- A run ----------------------------------------------------------------------------------------


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
  least = jax.config.jax_persistent_cache_min_compile_time_secs
  with pytest.MonkeyPatch.context() as patch:
    use_one_device(patch.setattr)
    made = lambda *args, **kwargs: result.learners.append(SupervisedLearner(*args, **kwargs)) or result.learners[-1]
    patch.setattr(run_lib, 'SupervisedLearner', made)
    # The processes that are killed below find every program compiled.
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
    try:
      fine_tune(result.config, str(result.path), tpu=False, resume=True)
    finally:
      jax.config.update('jax_persistent_cache_min_compile_time_secs', least)
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
  assert names == {'config.json', 'data.json', 'metrics.jsonl', 'report.html', 'policy', 'checkpoints', 'eval'}
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


def test_a_run_that_is_killed_again_and_again_equals_one_that_is_not(run, tmp_path):
  environment = os.environ | {
      'PYTHONPATH': str(ROOT), 'JAX_COMPILATION_CACHE_DIR': jax.config.jax_compilation_cache_dir,
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0', 'JAX_NUMPY_RANK_PROMOTION': 'raise'}
  for moment in ('first measure', 'update', 'measure', 'save', 'none'):
    result = subprocess.run(
        [sys.executable, str(ROOT / 'tests/tiny_sft.py'), str(tmp_path / 'run'), moment, '--', *run.flags], env=environment,
        capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == (0 if moment == 'none' else -signal.SIGKILL), f'{moment}\n{result.stdout}\n{result.stderr}'
    assert 'Traceback' not in result.stderr
  assert 'resumed at step' in result.stdout
  actual, expected = tmp_path / 'run', run.path
  assert list(map(lasting, lines(actual / 'metrics.jsonl'))) == list(map(lasting, lines(expected / 'metrics.jsonl')))
  for path in (*expected.glob('eval/*/summary.json'), expected / 'data.json', *(expected / 'policy').iterdir()):
    assert (actual / path.relative_to(expected)).read_bytes() == path.read_bytes()
  jax.tree.map(np.testing.assert_array_equal, params_of(actual, run.config.policy), params_of(expected, run.config.policy))


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


# ---- Flags ----------------------------------------------------------------------------------------


def test_every_value_has_a_flag():
  without = {'algorithm', 'preset', 'policy_source', 'scratch', 'packing.num_minibatches'} | {
      f'policy.{name}' for name in (
          'activation', 'qkv_bias', 'query_key_norm', 'norm_offset', 'branch_norms', 'embedding_scale', 'attention_scale',
          'rope_scaling', 'rope_factor', 'rope_low_turns', 'rope_high_turns', 'rope_original_length', 'local_layers',
          'window', 'local_rope_theta')}
  paths = [path for path, _ in flags_lib.OVERRIDES.values()]
  assert len(set(paths)) == len(paths)
  assert {*paths, *without} == set(leaves(build('--data=a.jsonl')))


def test_recipes():
  demo, real = build('--data=a.jsonl, b.jsonl'), build('--data=a.jsonl', '--policy=qwen3_8b')
  assert demo.data.sources == ('a.jsonl', 'b.jsonl') and demo.scratch and not real.scratch
  assert demo.optimizer == presets.demo().warmup.optimizer and demo.packing == presets.demo().warmup.packing
  assert build('--data=a', '--preset=qwen3_8b').optimizer.learning_rate == 1e-5
  with pytest.raises(UsageError, match='too_long='):
    build('--data=a', '--too_long=squeeze')
  with pytest.raises(UsageError, match='--data= must name at least one source'):
    build('--data=,')
  with pytest.raises(UsageError, match='num_epochs=0'):
    build('--data=a', '--num_epochs=0')


# ---- What a user may get wrong --------------------------------------------------------------------


def command(*arguments):
  environment = {name: value for name, value in os.environ.items() if name != 'XLA_FLAGS'}
  return subprocess.run([sys.executable, '-m', 'eijax.sft', *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
                        timeout=300, check=False)


def test_help_lists_the_flags():
  result = command('--help')
  assert result.returncode == 0 and not result.stderr
  for name in (*flags_lib.OVERRIDES, 'policy', 'preset', 'workdir', 'tpu', 'resume'):
    assert f'--{name}:' in result.stdout or f'--[no]{name}:' in result.stdout


@pytest.mark.parametrize('arguments, status, words', [
    (['--data=CHATS', '--num_epoch=1'], 2, "Unknown command line flag 'num_epoch'. Did you mean: num_epochs"),
    (['--data=BROKEN'], 1, 'broken.jsonl:2: column'),
])
def test_the_command_refuses_in_one_line(bad_input, tmp_path, arguments, status, words):
  result = command(*bad_input(arguments), f'--workdir={tmp_path / "run"}')
  assert result.returncode == status and result.stderr.count('\n') == 1
  assert result.stderr.startswith('error: ') and words in result.stderr
  assert not (tmp_path / 'run').exists()


@pytest.fixture(name='bad_input')
def fixture_bad_input(run, tmp_path):
  """Replaces names in arguments by files: chats, a file with a broken line, a policy without its tokenizer."""
  good = write_chats(tmp_path / 'chats.jsonl', talks(6))
  (tmp_path / 'broken.jsonl').write_text(pathlib.Path(good).read_text().splitlines()[0] + '\n{"messages": [\n')
  headless = tmp_path / 'headless'
  for name in ('policy', 'checkpoints'):
    shutil.copytree(run.path / name, headless / name)
  (headless / 'policy/tokenizer.model').unlink()
  names = {'CHATS': good, 'BROKEN': str(tmp_path / 'broken.jsonl'), 'HEADLESS': str(headless)}

  def replaced(arguments):
    for name, path in names.items():
      arguments = [argument.replace(name, path) for argument in arguments]
    return arguments

  return replaced


@pytest.mark.parametrize('arguments, status, words', [
    ([], 2, '--data= must name at least one source'),
    (['--data=nowhere.jsonl'], 1, 'nowhere.jsonl: cannot be read'),
    (['--data=no_such_set'], 2, "'no_such_set' is neither a folder nor a data set"),
    (['--data=CHATS', '--held_out=nowhere.jsonl'], 1, 'nowhere.jsonl: cannot be read'),
    (['--data=CHATS', '--policy=nowhere'], 2, "policy='nowhere' is neither a preset nor the folder of a run"),
    (['--data=CHATS', '--policy=HEADLESS'], 1, 'policy/tokenizer.model: the tokenizer cannot be read'),
    (['--data=CHATS', '--preset=qwen3_8b'], 2, "preset='qwen3_8b' starts from a trained policy and has none of its own"),
    (['--data=CHATS', '--lora_rank=2'], 2, 'lora_rank=2 adapts a trained policy'),
    (['--data=CHATS', '--mesh=fsdp=3'], 2, "mesh='fsdp=3' means"),
    (['--data=CHATS', '--num_micro_batches=2'], 2, 'rows_per_minibatch=3 must be divisible by num_micro_batches (2)'),
])
def test_refusals_come_before_any_work(bad_input, tmp_path, monkeypatch, arguments, status, words):
  if 'no_such_set' in arguments[-1:] and importlib.util.find_spec('tensorflow_datasets') is None:
    words = "pip install 'eijax[data]'"
  use_one_device(monkeypatch.setattr)
  with pytest.raises(EijaxError) as caught:
    fine_tune(build(*bad_input(arguments)), str(tmp_path / 'run'), tpu=False, resume=True)
  assert caught.value.exit_code == status and words in str(caught.value) and '\n' not in str(caught.value)
  assert not (tmp_path / 'run/config.json').exists()


def test_other_data_or_settings_are_kept_apart(run, tmp_path, monkeypatch):
  use_one_device(monkeypatch.setattr)
  shutil.copytree(run.path, tmp_path / 'run')
  for more, words in ((['--seed=1'], 'seed was 0, now 1'), (['--data=' + write_chats(tmp_path / 'other.jsonl', talks(40, seed=1))],
                                                            'conversations.digest was')):
    with pytest.raises(UsageError, match=words):
      fine_tune(build(*run.flags, *more), str(tmp_path / 'run'), tpu=False, resume=True)
  with pytest.raises(UsageError, match='drop --noresume'):
    fine_tune(run.config, str(tmp_path / 'run'), tpu=False, resume=False)
