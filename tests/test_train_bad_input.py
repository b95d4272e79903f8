"""What a user may get wrong: one clear message, before any work, and nothing lost."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time

from absl import flags
import pytest

from eijax import flags as flags_lib, jsonl, presets, train
from eijax.checkpoints import layout
from eijax.config import SimulatorConfig
from eijax.errors import CheckpointError, DataError, EijaxError, SimulatorError, UsageError
from eijax.settings import to_plain
from eijax.simulator import opening
from eijax.training import policy_source
from eijax.training.run_folder import RunFolder
from fake_endpoint import FakeEndpoint
from tiny_run import tiny_config, use_one_device, write_scenarios

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope='module')
def scenarios(tmp_path_factory):
  return write_scenarios(tmp_path_factory.mktemp('scenarios'))


@pytest.fixture(autouse=True)
def no_work(monkeypatch):
  """One device, and neither a simulator nor a policy may be started: refusals come first."""

  def never(*_, **__):
    raise AssertionError('work was begun before the refusal')

  use_one_device(monkeypatch.setattr)
  monkeypatch.setattr(opening, 'running_server', never)
  monkeypatch.setattr(policy_source, 'from_warm_up', never)


def files(folder):
  return {path: path.read_bytes() for path in pathlib.Path(folder).rglob('*') if path.is_file()}


def refusal(error, config, workdir, *, resume=True):
  """The one-line message with which a run is refused; the workdir stays as it was."""
  before = files(workdir)
  with pytest.raises(error) as caught:
    train.train(config, str(workdir), tpu=False, resume=resume)
  assert type(caught.value) is error and error.exit_code in (1, 2)
  message = str(caught.value)
  assert '\n' not in message and files(workdir) == before
  return message


def built(scenarios, *arguments):
  values = flags.FlagValues()
  flags_lib.define(values)
  values(['train', f'--scenarios={scenarios}', *arguments])
  return flags_lib.build_config(values)


# ---- Settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize('argument, message', [
    ('--mesh=fsdp=3', "mesh='fsdp=3' means data=1,fsdp=3,sequence=1,tensor=1 = 3 devices, but 1 is present; .*fsdp=1"),
    ('--mesh=rows=1', "mesh='rows=1': 'rows=1' must be AXIS=SIZE with AXIS one of data, fsdp, sequence, tensor"),
    ('--rows_per_minibatch=6', r'rows_per_minibatch=6 must be divisible by num_micro_batches \(4\) .*use 4 or 8'),
    ('--preset=qwen3_8b', "preset='qwen3_8b' starts from a trained policy and has none of its own; give --policy=FOLDER"),
    ('--policy=nowhere', r"policy='nowhere' is neither a preset nor the folder of a run \(it lacks policy/config.json\)"),
    ('--scenarios=nowhere', 'nowhere/train: no such folder; scenarios must hold train and test folders'),
])
def test_settings_are_refused_before_any_work(scenarios, tmp_path, argument, message):
  error = DataError if 'scenarios' in argument else UsageError
  with pytest.raises(error, match=message):
    train.train(built(scenarios, argument), str(tmp_path / 'run'), tpu=False, resume=True)
  assert not files(tmp_path)


def test_devices_must_share_slots_and_rows_evenly(scenarios, tmp_path, monkeypatch):
  monkeypatch.undo()  # Eight devices.
  for arguments, message in (
      (['--num_slots=4'], r'num_slots=4 must be divisible by the data shards of the mesh \(8\); use 8'),
      (['--rows_per_minibatch=16'], 'rows_per_minibatch=16 must be divisible .* use 32'),
      (['--rows_per_minibatch=32', '--warmup_rows=4'], 'warmup_rows=4 must be divisible .* use 8'),
      (['--mesh=tensor=8', '--num_micro_batches=1'], "axis 'heads' has size 2, which mesh tensor=8 does not divide"),
  ):
    with pytest.raises(UsageError, match=message):
      train.train(built(scenarios, *arguments), str(tmp_path / 'run'), tpu=False, resume=True)
  assert not files(tmp_path)


def test_a_policy_of_other_shapes_is_named(scenarios, tmp_path):
  jsonl.write_json(tmp_path / 'old/policy/config.json', to_plain(tiny_config(scenarios).policy))
  changed = dataclasses.replace(tiny_config(scenarios).policy, num_layers=3)
  message = refusal(
      UsageError, tiny_config(scenarios, policy_source=str(tmp_path / 'old'), policy=changed), tmp_path / 'run')
  assert 'num_layers 2 instead of 3' in message
  message = refusal(CheckpointError, tiny_config(scenarios, policy_source=str(tmp_path / 'old')), tmp_path / 'run')
  assert 'old/checkpoints holds no finished checkpoint' in message


# ---- Scenarios ------------------------------------------------------------------------------------


def test_a_broken_scenario_line_is_named(tmp_path):
  write_scenarios(tmp_path / 'scenarios')
  path = tmp_path / 'scenarios/train/repair_final.jsonl'
  path.write_text(path.read_text() + '{"id": "x", \n')
  message = refusal(DataError, tiny_config(str(tmp_path / 'scenarios')), tmp_path / 'run')
  assert message.startswith(f'{path}:3: column ') and 'broken JSON' in message


def test_anchors_out_of_order_are_named(tmp_path):
  write_scenarios(tmp_path / 'scenarios')
  path = tmp_path / 'scenarios/test/defense_final.jsonl'
  record = json.loads(path.read_text())
  record['rub_goals']['target_anger'] = 80
  path.write_text(json.dumps(record) + '\n')
  message = refusal(DataError, tiny_config(str(tmp_path / 'scenarios')), tmp_path / 'run')
  assert message.startswith(f'{path}:1: field `rub_goals.target_anger` = 80 breaks the rule')
  assert 'target_anger < initial_anger (target_anger=80, initial_anger=70)' in message


# ---- Workdir --------------------------------------------------------------------------------------


@pytest.mark.parametrize('name', ('file', 'file/below'))
def test_a_file_in_place_of_the_workdir(scenarios, tmp_path, name):
  (tmp_path / 'file').write_text('mine')
  message = refusal(EijaxError, tiny_config(scenarios), tmp_path / name)
  assert message.startswith(f'workdir {tmp_path / name} cannot be created') and 'choose another --workdir' in message
  assert (tmp_path / 'file').read_text() == 'mine'


def begin(workdir, config):
  """A run that has been claimed and has a step without anything in it."""
  RunFolder(workdir, to_plain(config), resume=True).claim()
  (workdir / 'checkpoints/000002').mkdir(parents=True)
  (workdir / 'metrics.jsonl').write_text('{"step": 0}\n{"step": 1}\n')


def test_a_run_with_other_settings_is_kept_apart(scenarios, tmp_path):
  begin(tmp_path, tiny_config(scenarios))
  message = refusal(UsageError, tiny_config(scenarios, seed=1, num_steps=9), tmp_path)
  assert 'holds a run with other settings (num_steps was 3, now 9; seed was 0, now 1)' in message


def test_noresume_keeps_a_run(scenarios, tmp_path):
  begin(tmp_path, tiny_config(scenarios))
  assert 'holds a run already; drop --noresume' in refusal(UsageError, tiny_config(scenarios), tmp_path, resume=False)


@pytest.mark.parametrize('content, words', [('{"seed": 0,\n', 'config.json:2: column 1: broken JSON'),
                                            ('[]', 'config.json: must hold the settings')])
def test_a_damaged_config_is_named(scenarios, tmp_path, content, words):
  begin(tmp_path, tiny_config(scenarios))
  (tmp_path / 'config.json').write_text(content)
  assert words in refusal(DataError, tiny_config(scenarios), tmp_path)


def test_a_run_without_its_config_is_not_overwritten(scenarios, tmp_path):
  begin(tmp_path, tiny_config(scenarios))
  (tmp_path / 'config.json').unlink()
  message = refusal(CheckpointError, tiny_config(scenarios), tmp_path)
  assert 'holds parts of a run but no config.json' in message


def test_a_damaged_checkpoint_is_named(scenarios, tmp_path):
  with FakeEndpoint() as endpoint:
    config = tiny_config(scenarios, simulator=SimulatorConfig(urls=(endpoint.url,), model='m'))
    begin(tmp_path, config)
    layout.write_json(tmp_path / 'checkpoints/000002/manifest.json', {'arrays': {}})
    message = refusal(CheckpointError, config, tmp_path)
  assert f'{tmp_path}/checkpoints/000002 is damaged: manifest.json cannot be read' in message
  assert 'restore it from a copy' in message


def test_damaged_metrics_are_named(scenarios, tmp_path):
  config = tiny_config(scenarios)
  begin(tmp_path, config)
  run = RunFolder(tmp_path, to_plain(config), resume=True)
  for content, words in (('{"step": 0}\n{"loss": 1}\n', 'row 2 has no `step`'),
                         ('{"step"\n{"step": 1}\n', 'metrics.jsonl:1: column')):
    (tmp_path / 'metrics.jsonl').write_text(content)
    with pytest.raises(DataError, match=words):
      run.rewind(2)
    assert (tmp_path / 'metrics.jsonl').read_text() == content


# ---- Simulator ------------------------------------------------------------------------------------


def test_a_mended_simulator_url_starts_the_run_that_was_refused(scenarios, tmp_path):
  def with_url(url):
    return tiny_config(scenarios, simulator=SimulatorConfig(urls=(url,), model='m'))

  with FakeEndpoint() as endpoint:
    endpoint.close()
    assert 'cannot be reached' in refusal(SimulatorError, with_url(endpoint.url), tmp_path / 'run')
  with FakeEndpoint() as endpoint, pytest.raises(AssertionError, match='work was begun'):
    train.train(with_url(endpoint.url), str(tmp_path / 'run'), tpu=False, resume=True)
  # By now the folder is this run's.
  assert json.loads((tmp_path / 'run/config.json').read_text())['simulator']['urls'] == [endpoint.url]


# ---- The command itself ---------------------------------------------------------------------------


def command(*arguments, **variables):
  """A run of the command, with whatever backends jax looks for on its own."""
  environment = {name: value for name, value in os.environ.items() if name != 'JAX_PLATFORMS'}
  start = time.monotonic()
  result = subprocess.run(
      [sys.executable, '-m', 'eijax.train', *arguments], cwd=ROOT, env=environment | variables, capture_output=True,
      text=True, timeout=120, check=False)
  return result, time.monotonic() - start


def only_line(result):
  """stderr, which must be one line that says what is wrong: no traceback, no chatter of libraries."""
  assert result.stderr.count('\n') == 1 and result.stderr.startswith('error: '), result.stderr
  return result.stderr


def test_help_lists_the_flags():
  result, _ = command('--help')
  assert result.returncode == 0 and not result.stderr
  assert {name for name in flags_lib.OVERRIDES if f'--{name}:' not in result.stdout} == {
      name for name in flags_lib.OVERRIDES if f'--[no]{name}:' in result.stdout}
  for name in ('--preset', '--policy', '--[no]tpu', '--workdir', '--[no]resume'):
    assert f'{name}:' in result.stdout


@pytest.mark.parametrize('arguments, words', [
    (['--num_step=3'], "Unknown command line flag 'num_step'. Did you mean: num_steps"),
    (['--num_steps=many'], "--num_steps=many"),
    (['--preset=gpt'], f"preset='gpt' is unknown; use one of {', '.join(presets.PRESETS)}"),
    (['--tpu'], '--tpu was given, but jax finds no TPU here'),
])
def test_bad_flags_exit_with_2(tmp_path, arguments, words):
  result, _ = command(*arguments, f'--workdir={tmp_path / "run"}')
  assert result.returncode == 2 and words in only_line(result)
  assert not (tmp_path / 'run').exists()


def test_an_unreachable_simulator_is_reported_at_once(scenarios, tmp_path):
  result, seconds = command(
      '--simulator_url=http://127.0.0.1:1/v1', f'--scenarios={scenarios}', f'--workdir={tmp_path / "run"}',
      XLA_FLAGS='')
  assert result.returncode == 1
  assert 'http://127.0.0.1:1/v1 cannot be reached (Connection refused); check the URL' in only_line(result)
  assert seconds < 60  # Mostly imports; eight retries with back-off would take minutes.
  assert not files(tmp_path / 'run')


def test_a_refused_key_is_never_shown(scenarios, tmp_path):
  key = 'sk-very-secret-0815'
  with FakeEndpoint(keys=('right',)) as endpoint:
    result, _ = command(
        f'--simulator_url={endpoint.url}', '--simulator_model=m', f'--scenarios={scenarios}',
        f'--workdir={tmp_path / "run"}', XLA_FLAGS='', EIJAX_SIMULATOR_API_KEYS=key)
  assert result.returncode == 1
  message = only_line(result)
  assert '401 (the key is refused)' in message and 'set EIJAX_SIMULATOR_API_KEYS' in message
  assert key not in result.stdout + result.stderr
  assert not files(tmp_path / 'run')
