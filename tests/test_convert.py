"""python -m eijax.convert both ways, and a run that starts from a Hugging Face folder."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys

import hf_folders
import hf_policy
import jax
import numpy as np
import pytest

from eijax import convert, train
from eijax.checkpoints.folder import restore_params
from eijax.errors import DataError, EijaxError, UsageError
from eijax.policy.config import PolicyConfig
from eijax.simulator import opening
from eijax.training import policy_source
from test_hf_weights import same_bits, stored
from tiny_run import tiny_config, use_one_device, write_scenarios

ROOT = pathlib.Path(__file__).resolve().parent.parent
TEXT = ROOT / 'tests' / 'hf_text' / 'qwen3'
# As many rows as the tokenizer has ids, and some more, as the published policies.
CASE = hf_folders.CASES['qwen3_tied_modern_sharded']
CASE = dataclasses.replace(CASE, config=CASE.config | {'vocab_size': 1300})


def model_folder(folder, dtype='bfloat16', **changes) -> pathlib.Path:
  """Weights, config and tokenizer. changes: of the config."""
  hf_folders.write_folder(folder, dataclasses.replace(CASE, config=CASE.config | changes), dtype=dtype)
  for path in TEXT.iterdir():
    shutil.copy(path, folder)
  return pathlib.Path(folder)


@pytest.fixture(name='model', scope='module')
def fixture_model(tmp_path_factory):
  return model_folder(tmp_path_factory.mktemp('model'))


def command(*arguments):
  return subprocess.run([sys.executable, '-m', 'eijax.convert', *arguments], capture_output=True, text=True, timeout=300,
                        check=False, cwd=ROOT)


def test_there_and_back_is_bit_exact(model, tmp_path):
  ours, back = tmp_path / 'ours', tmp_path / 'back'
  result = command(f'--from={model}', f'--to={ours}')
  assert result.returncode == 0 and f'written: {ours}' in result.stdout, result.stderr
  assert '100%' in result.stderr  # Progress.
  result = command(f'--from={ours}', f'--to={back}', '--max_shard_gib=0.00005')
  assert result.returncode == 0, result.stderr
  expected, found = hf_folders.tensors(CASE, 'bfloat16'), stored(back)
  assert found.keys() == expected.keys() and all(same_bits(found[name], expected[name]) for name in expected)
  assert len(list(back.glob('*.safetensors'))) > 1
  for name in ('config.json', 'generation_config.json', 'tokenizer.json', 'tokenizer_config.json', 'chat_template.jinja'):
    assert json.loads((back / name).read_text()) == json.loads((model / name).read_text()) if name.endswith('.json') else (
        back / name).read_bytes() == (model / name).read_bytes()


def test_what_convert_writes_holds_the_policy(model, tmp_path):
  convert.import_folder(str(model), str(tmp_path / 'ours'))
  config, mesh, params = hf_policy.load(model)
  assert policy_source.read_shapes(tmp_path / 'ours' / 'policy') == config
  assert policy_source.read_tokenizer(tmp_path / 'ours' / 'policy').encode('What a day') == policy_source.read_tokenizer(model).encode('What a day')
  found = restore_params(tmp_path / 'ours' / 'checkpoints', policy_source.abstract_params(config, mesh))
  jax.tree.map(np.testing.assert_array_equal, found, params)


def test_local_layers_survive_the_description(tmp_path):
  """Values of several numbers come back as they were: JSON has no tuples."""
  config = PolicyConfig(vocab_size=8, num_layers=3, hidden_dim=4, num_heads=1, num_kv_heads=1, head_dim=2, mlp_dim=4,
                        local_layers=(0, 2), window=3)
  (tmp_path / 'config.json').write_text(json.dumps(dataclasses.asdict(config)))
  assert policy_source.read_shapes(tmp_path) == config


@pytest.mark.parametrize('arguments, code, words', [
    (['--from=nowhere', '--to=there'], 2, '--from=nowhere is neither a Hugging Face folder (config.json with a model_type) nor the workdir'),
    (['--from=nowhere'], 2, '--from=nowhere and --to= must both be given'),
    (['--from={model}', '--to=there', '--dtype=bfloat16'], 2, '--dtype is of exports'),
    (['--from={model}', '--to={model}'], 2, 'exists and is not empty; choose another folder'),
    (['--from={model}', '--to=/dev/null/there'], 1, 'choose another folder'),
])
def test_refusals_are_one_line(model, arguments, code, words):
  result = command(*(argument.format(model=model) for argument in arguments))
  assert result.returncode == code and words in result.stderr
  assert result.stderr.count('\n') == 1 and result.stderr.startswith('error: ')


def test_help_lists_the_flags():
  result = command('--help')
  assert result.returncode == 0
  for words in ('--from', '--to', '--step', '--dtype', '--max_shard_gib', 'in GiB'):
    assert words in result.stdout


def test_a_failed_import_leaves_nothing(model, tmp_path, monkeypatch):
  def full(*_, **__):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(convert, 'save_params', full)
  with pytest.raises(EijaxError, match=r'ours could not be written \(No space left on device\)'):
    convert.import_folder(str(model), str(tmp_path / 'ours'))
  assert not list(tmp_path.iterdir())


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
  folder = model_folder(tmp_path / 'model', vocab_size=300)
  with pytest.raises(DataError, match='its tokenizer has ids up to .*, but the weights have only 300 rows'):
    convert.import_folder(str(folder), str(tmp_path / 'ours'))


# ---- Training from a folder -------------------------------------------------------------------------


def run_config(scenarios, model, **changes):
  policy = dataclasses.replace(hf_policy.read_architecture(model), scan_unroll=3)
  config = tiny_config(scenarios, policy=policy, policy_source=str(model), warmup=None, num_steps=1)
  context = 640  # The small tokenizer takes more pieces for a line than that of the demo.
  return dataclasses.replace(
      config, sampler=dataclasses.replace(config.sampler, spans=(context,), chunks=(160,)),
      packing=dataclasses.replace(config.packing, row_lengths=(context,)), **changes)


@pytest.mark.slow
def test_a_run_from_a_folder_ends_as_a_folder(model, tmp_path, monkeypatch):
  use_one_device(monkeypatch.setattr)
  scenarios = write_scenarios(tmp_path / 'scenarios')
  train.train(run_config(scenarios, model), str(tmp_path / 'run'), tpu=False, resume=True)
  # Step 0 is the folder's policy to the bit, step 1 another.
  for step, same in ((0, True), (1, False)):
    convert.export_folder(str(tmp_path / 'run'), str(tmp_path / str(step)), step=step, dtype=None, max_shard_bytes=2**30)
    found, expected = stored(tmp_path / str(step)), hf_folders.tensors(CASE, 'bfloat16')
    assert found.keys() == expected.keys()
    assert all(same_bits(found[name], expected[name]) for name in expected) == same
    hf_policy.load(tmp_path / str(step))
  # A run from that run keeps what belongs to the model.
  policy_source.save_description(
      tmp_path / 'next', hf_policy.read_architecture(model), policy_source.read_tokenizer(model), str(tmp_path / 'run'))
  assert (tmp_path / 'next' / policy_source.HF_CONFIG).read_bytes() == (model / 'config.json').read_bytes()


@pytest.mark.parametrize('harm, message', [
    (lambda folder: os.truncate(next(folder.glob('*2-of*.safetensors')), 900), 'cut short or corrupt'),
    (lambda folder: (folder / 'tokenizer.json').unlink(), 'neither tokenizer.json nor tokenizer.model is there'),
    (lambda folder: (folder / 'chat_template.jinja').unlink(), 'no chat template'),
    (lambda folder: (folder / 'config.json').write_text(
        (folder / 'config.json').read_text().replace('"num_hidden_layers": 3', '"num_hidden_layers": 2')),
     'num_layers 2 instead of 3'),
])
def test_a_bad_folder_is_refused_before_any_work(model, tmp_path, monkeypatch, harm, message):
  use_one_device(monkeypatch.setattr)
  scenarios = write_scenarios(tmp_path / 'scenarios')
  folder = tmp_path / 'model'
  shutil.copytree(model, folder)
  config = run_config(scenarios, folder)
  harm(folder)
  monkeypatch.setattr(opening, 'running_server', lambda **_: pytest.fail('work was begun before the refusal'))
  with pytest.raises((DataError, UsageError), match=message):
    train.train(config, str(tmp_path / 'run'), tpu=False, resume=True)
