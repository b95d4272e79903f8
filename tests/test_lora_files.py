"""Adapters on disk: checkpoints that hold the base once, merged exports, folders of peft, and a run from end to end."""

import dataclasses
import json
import shutil
import subprocess
import sys

import hf_folders
import hf_policy
import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eijax import convert, train
from eijax.checkpoints import folder, layout
from eijax.errors import CheckpointError, DataError, UsageError
from eijax.hf import adapter
from eijax.hf.load import named_leaves
from eijax.learning import sharding
from eijax.policy import lora
from eijax.policy.config import LoraConfig
from eijax.policy.decoder import Decoder
from eijax.settings import to_plain
from eijax.training import policy_source
from eijax.training.local_policy import load_local_policy
from learning_cases import CONFIG, Learner, batch
from lora_cases import LORA, adapted, moved, one_device, with_fresh_adapter
from test_convert import CASE, ROOT, model_folder, run_config
from test_hf_weights import same_bits, stored
from tiny_run import use_one_device, write_scenarios

POLICY = Decoder(adapted(CONFIG))
FAMILIES = ('qwen3', 'qwen2', 'llama', 'gemma3')


def same(actual, expected):
  jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b)), actual, expected)


# ---- Checkpoints ------------------------------------------------------------------------------------


@pytest.fixture(name='saved', scope='module')
def fixture_saved(tmp_path_factory):
  """Three steps of a learner on eight devices; (folder, states)."""
  path, learner = tmp_path_factory.mktemp('saved'), Learner('fsdp=8', 8, policy=POLICY)
  states = []
  with folder.CheckpointFolder(path, keep=2) as checkpoints:
    for number in range(3):
      learner.run(batch(number))
      checkpoints.save(number, learner.state, {'step': number})
      states.append(jax.tree.map(np.asarray, learner.state))
  return path, learner, states


def test_the_base_is_written_once(saved):
  path, learner, _ = saved
  assert {p.name for p in path.iterdir()} == {'base', '000001', '000002'}
  trained, frozen = (set(named_leaves(part)) for part in lora.split(learner.state.params))
  for place, step, names in ((path, 1, trained), (path, 2, trained), (path / 'base', 0, frozen)):
    arrays = layout.read_manifest(place, step)['arrays']
    assert {name.removeprefix('params.') for name in arrays if name.startswith('params.')} == names


def test_a_restored_run_goes_on_as_if_never_stopped(saved, tmp_path):
  path, learner, states = saved
  with folder.CheckpointFolder(path) as checkpoints:
    step, state, _ = checkpoints.restore(learner.abstract)
    same(state, states[2])
    assert step == 2 and jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, learner.state)
    same(checkpoints.restore(learner.abstract, step=1)[1], states[1])
  expected = learner.run(batch(7))
  final = jax.tree.map(np.asarray, learner.state)
  learner.state = state
  assert learner.run(batch(7)) == expected
  same(learner.state, final)
  # On one device, by the readers of parameters alone.
  one = Learner(policy=POLICY).abstract.params
  same(folder.restore_params(path, one, step=1), states[1].params)
  reader = folder.ParamsReader(path, 1)
  leaves = named_leaves(states[1].params)
  assert reader.shapes == {name: leaf.shape for name, leaf in leaves.items()}
  for name in ('layers.query.kernel', 'layers.out.lora_a'):
    same(reader.read(name, jax.sharding.SingleDeviceSharding(jax.devices()[0])), leaves[name])


def test_damage_to_the_base_is_named(saved, tmp_path):
  path, learner, _ = saved
  one = Learner(policy=POLICY).abstract.params
  copy = tmp_path / 'damaged'
  shutil.copytree(path, copy)
  file = max((p for p in (copy / 'base/000000/params').rglob('*') if p.is_file()), key=lambda p: p.stat().st_size)
  file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
  with pytest.raises(CheckpointError, match='base/000000 is damaged: .* has a wrong checksum'):
    folder.restore_params(copy, one)
  # That of another run.
  other = tmp_path / 'other'
  with folder.CheckpointFolder(other) as checkpoints:
    stranger = Learner(policy=POLICY).state
    checkpoints.save(0, stranger.replace(params=jax.tree.map(lambda x: x + 1, stranger.params)), {})
  shutil.rmtree(copy / 'base')
  shutil.copytree(other / 'base', copy / 'base')
  with pytest.raises(CheckpointError, match='base holds the frozen parameters of another run'):
    folder.restore_params(copy, one)
  shutil.rmtree(copy / 'base')
  with pytest.raises(CheckpointError, match='base/000000 is damaged: manifest.json cannot be read'):
    folder.restore_params(copy, one)
  with pytest.raises(CheckpointError, match=r'of another policy or optimizer: params.layers.down.lora_a is float32\[2, 32, 3\] there '
                                            'but no such array here'):
    folder.restore_params(path, Learner().abstract.params)
  wide = Decoder(adapted(CONFIG, dataclasses.replace(LORA, rank=5)))
  with pytest.raises(CheckpointError, match=r'down.lora_a is float32\[2, 32, 3\] there but float32\[2, 32, 5\] here'):
    folder.restore_params(path, Learner(policy=wide).abstract.params)


def test_what_an_interrupted_first_save_left_is_removed(tmp_path):
  state = Learner(policy=POLICY).state
  with folder.CheckpointFolder(tmp_path) as checkpoints:
    checkpoints.save(0, state, {})
  (tmp_path / '000000' / 'manifest.json').unlink()  # Killed between the base and the step.
  with folder.CheckpointFolder(tmp_path) as checkpoints:
    assert not list(tmp_path.iterdir())
    # Another base may begin here.
    checkpoints.save(0, state.replace(params=jax.tree.map(lambda x: x + 1, state.params)), {})
  found = folder.restore_params(tmp_path, Learner(policy=POLICY).abstract.params)
  same(found, jax.tree.map(lambda x: x + 1, state.params))


# ---- Folders of peft --------------------------------------------------------------------------------


def adapter_case(name, path, adapter_config=LORA):
  """(folder of the base, its config with an adapter, params with one that is not at its start)."""
  base_folder = hf_folders.write_folder(path / 'base', hf_folders.CASES[name])
  config, _, base = hf_policy.load(base_folder)
  config = adapted(config, adapter_config)
  return base_folder, config, moved(with_fresh_adapter(base, config))


def write_adapter(target, config, params, **changes):
  leaves = named_leaves(params)
  values = dict(dtype='float32', base_name='some/base')
  adapter.save_adapter(target, config, {name: leaf.shape for name, leaf in leaves.items()}, leaves.__getitem__, **values | changes)
  return target


@pytest.mark.parametrize('name', FAMILIES)
def test_an_adapter_is_what_peft_expects_and_comes_back(name, tmp_path):
  """W + alpha / r * B A, on the published names and layouts, is the merged export of the same params."""
  lora_config = dataclasses.replace(LORA, targets=('q_proj', 'v_proj', 'o_proj', 'down_proj'))
  base_folder, config, params = adapter_case(name, tmp_path, lora_config)
  target = write_adapter(tmp_path / 'adapter', config, params)
  values = json.loads((target / 'adapter_config.json').read_text())
  assert (values['r'], values['lora_alpha'], values['target_modules']) == (3, 7.5, ['q_proj', 'v_proj', 'o_proj', 'down_proj'])
  assert (values['peft_type'], values['base_model_name_or_path']) == ('LORA', 'some/base')
  tensors = load_file(target / 'adapter_model.safetensors')
  assert len(tensors) == 2 * 4 * config.num_layers
  merged = dict(hf_folders.tensors(hf_folders.CASES[name]))
  for key, a in tensors.items():
    stem = key.removeprefix('base_model.model.').removesuffix('.lora_A.weight')
    if stem + '.lora_A.weight' in key:
      b = tensors[key.replace('lora_A', 'lora_B')]
      assert a.shape[0] == b.shape[1] == 3
      merged[f'{stem}.weight'] = merged[f'{stem}.weight'] + 2.5 * b @ a
  found = hf_policy.load(base_folder)[0]
  assert adapter.read_lora_config(target) == lora_config
  placed = adapter.load_adapter(target, config, lora.split(policy_source.abstract_params(config, one_device()))[0])
  same(placed, lora.split(params)[0])
  # An export of merged params, read as NumPy.
  shapes, leaf_of = lora.merged_leaves({key: leaf.shape for key, leaf in named_leaves(params).items()},
                                       named_leaves(params).__getitem__, config)
  convert.save_folder(tmp_path / 'merged', found, shapes, leaf_of, dtype='float32', max_shard_bytes=2**30)
  exported = stored(tmp_path / 'merged')
  assert exported.keys() == merged.keys()
  for key, value in merged.items():
    # Three products and a sum in float32, weights of size 1.
    np.testing.assert_allclose(exported[key], value, rtol=0, atol=2e-6, err_msg=key)


@pytest.fixture(name='case', scope='module')
def fixture_case(tmp_path_factory):
  path = tmp_path_factory.mktemp('case')
  base_folder, config, params = adapter_case('qwen2', path)
  return base_folder, config, params, write_adapter(path / 'adapter', config, params)


@pytest.mark.parametrize('changes, words', [
    ({'peft_type': 'IA3'}, "peft_type='IA3' is not supported; only LORA is"),
    ({'use_dora': True}, 'use_dora=True is not supported; use a plain LoRA adapter'),
    ({'use_rslora': True}, 'use_rslora=True is not supported'),
    ({'rank_pattern': {'q_proj': 8}}, 'rank_pattern='),
    ({'modules_to_save': ['lm_head']}, 'modules_to_save='),
    ({'bias': 'all'}, "bias='all' is not supported"),
    ({'init_lora_weights': 'pissa'}, "init_lora_weights='pissa' is not supported"),
    ({'r': 0}, 'r=0 must be a whole number above 0'),
    ({'lora_alpha': 'much'}, "lora_alpha='much' must be a number above 0"),
    ({'r': 4}, r'q_proj.lora_A.weight \[3, 24\] instead of \[4, 24\]'),
])
def test_adapters_that_would_be_misread_are_refused(case, tmp_path, changes, words):
  _, config, _, source = case
  target = tmp_path / 'adapter'
  shutil.copytree(source, target)
  path = target / 'adapter_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  with pytest.raises(DataError, match=words):
    read(target, config)


def read(target, config):
  config = dataclasses.replace(config, lora=adapter.read_lora_config(target))
  return adapter.load_adapter(target, config, lora.split(policy_source.abstract_params(config, one_device()))[0])


def test_adapters_of_another_base_are_refused(case, tmp_path):
  _, config, _, target = case
  with pytest.raises(DataError, match='14 missing: model.layers.3.* and 8 more; give the --base that it was trained for'):
    read(target, dataclasses.replace(config, num_layers=4))
  with pytest.raises(DataError, match='14 for nothing in this base: model.layers.2'):
    read(target, dataclasses.replace(config, num_layers=2))
  with pytest.raises(DataError, match=r'of another shape: .*mlp.gate_proj.lora_B.weight \[44, 3\] instead of \[48, 3\]'):
    read(target, dataclasses.replace(config, mlp_dim=48))


def test_broken_adapters_are_refused(case, tmp_path):
  _, config, _, source = case
  target = tmp_path / 'adapter'
  shutil.copytree(source, target)
  path = target / 'adapter_model.safetensors'
  tensors = load_file(path)
  first = sorted(tensors)[0]
  short = {name: value for name, value in tensors.items() if name != first}
  save_file(short | {'base_model.model.lm_head.lora_A.weight': tensors[first]}, path)
  with pytest.raises(DataError, match='1 missing: model.layers.0.*1 for nothing in this base: lm_head.lora_A.weight'):
    read(target, config)
  save_file(tensors | {first: np.full_like(tensors[first], np.nan)}, path)
  with pytest.raises(DataError, match='1 not finite'):
    read(target, config)
  path.write_bytes(path.read_bytes()[:-8])
  with pytest.raises(DataError, match='cut short or corrupt'):
    read(target, config)


# ---- The commands -----------------------------------------------------------------------------------


@pytest.fixture(name='model', scope='module')
def fixture_model(tmp_path_factory):
  return model_folder(tmp_path_factory.mktemp('model'))


def command(*arguments):
  return subprocess.run([sys.executable, '-m', 'eijax.convert', *arguments], capture_output=True, text=True, timeout=300,
                        check=False, cwd=ROOT)


@pytest.mark.slow
def test_a_run_trains_an_adapter_and_gives_it_back(model, tmp_path, monkeypatch):
  """From a folder in bfloat16: trained, killed and resumed, exported in every part, and read again."""
  use_one_device(monkeypatch.setattr)
  config = run_config(write_scenarios(tmp_path / 'scenarios'), model)
  config = dataclasses.replace(config, policy=dataclasses.replace(config.policy, lora=LORA), num_steps=2, checkpoint_every=1)
  workdir = tmp_path / 'run'
  train.train(config, str(workdir), tpu=False, resume=True)
  rows = (workdir / 'metrics.jsonl').read_text().splitlines()
  mesh = sharding.make_mesh('')
  final = folder.restore_params(workdir / 'checkpoints', policy_source.abstract_params(config.policy, mesh))

  # Without its last step, the run comes to the same end.
  layout.remove_step(workdir / 'checkpoints', 2)
  shutil.rmtree(workdir / 'eval' / 'step_000002')
  train.train(config, str(workdir), tpu=False, resume=True)
  again = (workdir / 'metrics.jsonl').read_text().splitlines()
  assert [json.loads(row)['loss'] for row in again] == [json.loads(row)['loss'] for row in rows]
  same(folder.restore_params(workdir / 'checkpoints', policy_source.abstract_params(config.policy, mesh)), final)

  # What evaluation and serving load is the trained policy itself.
  loaded = load_local_policy(str(workdir), mesh)
  assert loaded.config == config.policy
  same(loaded.params, final)

  export = lambda name, **options: convert.export_folder(
      str(workdir), str(tmp_path / name), **dict(step=None, dtype=None, max_shard_bytes=2**30) | options)
  expected = hf_folders.tensors(CASE, 'bfloat16')
  export('base', part='base')
  found = stored(tmp_path / 'base')
  assert found.keys() == expected.keys() and all(same_bits(found[name], expected[name]) for name in expected)
  export('merged', dtype='float32')
  _, _, merged = hf_policy.load(tmp_path / 'merged')
  prompt = hf_policy.prompts(config.policy.vocab_size, (40,))[0]
  applied = hf_policy.logits(config.policy, final, prompt)
  scale = np.abs(applied).max()
  plain = dataclasses.replace(config.policy, lora=LoraConfig())
  np.testing.assert_allclose(hf_policy.logits(plain, merged, prompt), applied, rtol=0, atol=2e-4 * scale)
  export('adapter', part='adapter')
  assert adapter.base_of_adapter(tmp_path / 'adapter') == str(model)

  # The adapter beside its base is the policy again, as a folder of ours and as the start of another run.
  convert.import_folder(str(model), str(tmp_path / 'ours'), str(tmp_path / 'adapter'))
  assert policy_source.read_shapes(tmp_path / 'ours' / 'policy').lora == LORA
  whole = policy_source.abstract_params(policy_source.read_shapes(tmp_path / 'ours' / 'policy'), mesh)
  same(folder.restore_params(tmp_path / 'ours' / 'checkpoints', whole), final)
  assert load_local_policy(str(tmp_path / 'ours'), mesh).config.lora == LORA
  for other in (LoraConfig(), LoraConfig(rank=5)):
    next_config = dataclasses.replace(config, policy_source=str(tmp_path / 'ours'), policy=dataclasses.replace(config.policy, lora=other))
    policy_source.check_source(next_config)
    _, params = policy_source.load(next_config, mesh)
    np.testing.assert_allclose(hf_policy.logits(next_config.policy, params, prompt), applied, rtol=0, atol=2e-4 * scale)
    if other.rank:
      assert not any(np.any(x) for name, x in named_leaves(params).items() if name.endswith('lora_b'))


@pytest.mark.slow
def test_convert_refuses_in_one_line(model, case, tmp_path):
  base_folder, _, _, source = case
  ours = tmp_path / 'ours'
  convert.import_folder(str(model), str(ours))
  for arguments, words in (
      ((f'--from={ours}', f'--to={tmp_path}/a', '--part=adapter'), 'holds no adapter, its run trained all weights; use --part=merged'),
      ((f'--from={ours}', f'--to={tmp_path}/a', '--base=b'), '--base=b is of adapters'),
      ((f'--from={model}', f'--to={tmp_path}/a', '--part=base'), '--part is of exports'),
      ((f'--from={source}', f'--to={tmp_path}/a'), '--base=some/base must be the folder of the model'),
  ):
    result = command(*arguments)
    assert result.returncode == 2 and words in result.stderr, (arguments, result.stderr)
    assert result.stderr.count('\n') == 1 and result.stderr.startswith('error: ')
  # The base is checked like any model; this one has no tokenizer.
  result = command(f'--from={source}', f'--to={tmp_path}/a', f'--base={base_folder}')
  assert result.returncode == 1 and 'tokenizer' in result.stderr


def test_the_settings_of_an_adapter_survive_the_description(tmp_path):
  config = adapted(CONFIG, LoraConfig(rank=2, alpha=3.0, targets=('up_proj', 'q_proj')))
  (tmp_path / 'config.json').write_text(json.dumps(to_plain(config)))
  assert policy_source.read_shapes(tmp_path) == config
  (tmp_path / 'config.json').write_text(json.dumps(to_plain(config) | {'lora': {'size': 3}}))
  with pytest.raises(DataError, match='not the shapes of a policy'):
    policy_source.read_shapes(tmp_path)
  with pytest.raises(UsageError, match='lora_rank=-2'):
    dataclasses.replace(config.lora, rank=-2)
