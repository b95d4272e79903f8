"""Weights from and to Hugging Face folders: layout, shards, round trips, damage, memory."""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import subprocess
import sys

import hf_folders
import hf_policy
import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from eijax.errors import DataError, EijaxError, UsageError
from eijax.hf import load, save
from eijax.hf.files import WeightFiles

TESTS = pathlib.Path(__file__).resolve().parent
CASE = hf_folders.CASES['qwen3']
SHARDED = hf_folders.CASES['qwen2']


def stored(folder) -> dict[str, np.ndarray]:
  result = {}
  for path in pathlib.Path(folder).glob('*.safetensors'):
    with safe_open(path, framework='numpy') as file:
      result |= {name: file.get_tensor(name) for name in file.keys()}
  return result


def same_bits(a, b) -> bool:
  return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_each_parameter_lies_where_it_should(tmp_path):
  _, _, params = hf_policy.load(hf_folders.write_folder(tmp_path, SHARDED))
  source, layers = hf_folders.tensors(SHARDED), jax.tree.map(np.asarray, params['layers'])
  n, k, h, d, f = 6, 2, 4, 24, 44
  for i in range(3):
    at = lambda name, i=i: source[f'model.layers.{i}.{name}']
    for ours, theirs, heads in (('query', 'q', n), ('key', 'k', k), ('value', 'v', k)):
      for head in range(heads):
        rows = at(f'self_attn.{theirs}_proj.weight')[head * h:(head + 1) * h]  # [H, D]
        np.testing.assert_array_equal(layers[ours]['kernel'][i, :, head], rows.T)
        np.testing.assert_array_equal(
            layers[ours]['bias'][i, head], at(f'self_attn.{theirs}_proj.bias')[head * h:(head + 1) * h])
    for head in range(n):
      np.testing.assert_array_equal(layers['out']['kernel'][i, head], at('self_attn.o_proj.weight')[:, head * h:(head + 1) * h].T)
    for ours in ('gate', 'up', 'down'):
      np.testing.assert_array_equal(layers[ours]['kernel'][i], at(f'mlp.{ours}_proj.weight').T)
    np.testing.assert_array_equal(layers['mlp_norm']['scale'][i], at('post_attention_layernorm.weight'))
  assert layers['gate']['kernel'].shape == (3, d, f)
  np.testing.assert_array_equal(params['embedding'], source['model.embed_tokens.weight'])
  np.testing.assert_array_equal(params['head'], source['lm_head.weight'])


@pytest.mark.parametrize('block_bytes', (1000, 2**23))
def test_sharded_equals_whole_whatever_the_blocks(tmp_path, monkeypatch, block_bytes):
  case = dataclasses.replace(SHARDED, config=SHARDED.config | {'vocab_size': 62})  # Two ways of splitting it.
  folder = hf_folders.write_folder(tmp_path, case)
  _, _, whole = hf_policy.load(folder)
  monkeypatch.setattr(load, '_BLOCK_BYTES', block_bytes)
  _, mesh, split = hf_policy.load(folder, 'data=2,fsdp=2,tensor=2', num_devices=8)
  assert mesh.shape['tensor'] == 2
  shapes = {name: leaf.sharding.shard_shape(leaf.shape) for name, leaf in load.named_leaves(split).items()}
  assert shapes['embedding'] == (31, 12) and shapes['layers.query.kernel'] == (3, 12, 3, 4)
  for name, leaf in load.named_leaves(split).items():
    np.testing.assert_array_equal(leaf, load.named_leaves(whole)[name], err_msg=name)


def save_params(params, config, target, **kwargs):
  leaves = load.named_leaves(params)
  shapes = {name: leaf.shape for name, leaf in leaves.items()}
  save.save_folder(target, config, shapes, leaves.__getitem__, **{'max_shard_bytes': 2**30, 'dtype': 'float32', **kwargs})


@pytest.mark.parametrize('dtype', ('float32', 'bfloat16'))
@pytest.mark.parametrize('name', hf_folders.CASES)
def test_round_trip_is_bit_exact(tmp_path, name, dtype):
  case = hf_folders.CASES[name]
  folder = hf_folders.write_folder(tmp_path / 'a', case, dtype=dtype)
  config, _, params = hf_policy.load(folder)  # float32, as they are trained.
  save_params(params, config, tmp_path / 'b', dtype=dtype, source_config=folder / 'config.json', companions=folder)
  expected, found = hf_folders.tensors(case, dtype), stored(tmp_path / 'b')
  assert found.keys() == expected.keys()
  assert all(same_bits(found[name], expected[name]) for name in expected)
  values = json.loads((tmp_path / 'b' / 'config.json').read_text())
  assert values.get('dtype', values.get('torch_dtype')) == dtype
  if not case.nested:
    assert values == json.loads((folder / 'config.json').read_text())
  assert (tmp_path / 'b' / 'generation_config.json').read_bytes() == (folder / 'generation_config.json').read_bytes()


def test_bfloat16_params_and_sharded_export(tmp_path):
  folder = hf_folders.write_folder(tmp_path / 'a', CASE, dtype='bfloat16')
  config, _, params = hf_policy.load(folder, 'fsdp=4', num_devices=4, param_dtype='bfloat16')
  assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {'bfloat16'}
  told = []
  save_params(params, config, tmp_path / 'b', dtype='bfloat16', max_shard_bytes=6000, on_bytes=told.append)
  found, expected = stored(tmp_path / 'b'), hf_folders.tensors(CASE, 'bfloat16')
  assert all(same_bits(found[name], expected[name]) for name in expected)
  index = json.loads((tmp_path / 'b' / 'model.safetensors.index.json').read_text())
  sizes = {path.name: path.stat().st_size for path in (tmp_path / 'b').glob('*.safetensors')}
  assert set(index['weight_map'].values()) == set(sizes) and len(sizes) > 3
  assert index['weight_map'].keys() == expected.keys()
  assert max(sizes.values()) < 6000 + 3000  # The header comes on top.
  assert index['metadata']['total_size'] == sum(value.nbytes for value in expected.values()) == sum(told)
  assert json.loads((tmp_path / 'b' / 'config.json').read_text())['torch_dtype'] == 'bfloat16'
  WeightFiles(tmp_path / 'b')  # The index fits the files.


def test_every_misfit_is_told_at_once(tmp_path):
  folder = hf_folders.write_folder(tmp_path, CASE)
  weights = hf_folders.tensors(CASE)
  del weights['model.layers.1.self_attn.q_norm.weight'], weights['lm_head.weight']
  weights['model.layers.0.self_attn.q_proj.bias'] = np.zeros(60, np.float32)
  weights['model.norm.weight'] = np.ones(23, np.float32)
  weights['model.layers.2.mlp.up_proj.weight'] = weights['model.layers.2.mlp.up_proj.weight'].astype(np.int32)
  save_file(weights, folder / 'model.safetensors')
  with pytest.raises(DataError) as caught:
    hf_policy.load(folder)
  for words in ('2 missing: lm_head.weight, model.layers.1.self_attn.q_norm.weight',
                '1 not part of this architecture: model.layers.0.self_attn.q_proj.bias',
                '1 of another shape: model.norm.weight [23] instead of [24]',
                '1 of a type other than F32, BF16, F16: model.layers.2.mlp.up_proj.weight I32'):
    assert words in str(caught.value)
  assert '\n' not in str(caught.value)


def test_the_config_decides_whether_the_head_is_tied(tmp_path):
  tied = dataclasses.replace(CASE, config=CASE.config | {'tie_word_embeddings': True})
  folder = hf_folders.write_folder(tmp_path / 'tied', tied)
  save_file(hf_folders.tensors(CASE), folder / 'model.safetensors')  # With a head, as some exports have.
  config, _, params = hf_policy.load(folder)
  assert config.tie_embeddings and 'head' not in params
  untied = hf_folders.write_folder(tmp_path / 'untied', CASE)
  save_file(hf_folders.tensors(tied), untied / 'model.safetensors')
  with pytest.raises(DataError, match='1 missing: lm_head.weight'):
    hf_policy.load(untied)


def test_a_vision_tower_is_left_out_by_name(tmp_path):
  folder = hf_folders.write_folder(tmp_path / 'nested', hf_folders.CASES['gemma3_nested'])
  plain = hf_folders.write_folder(tmp_path / 'plain', hf_folders.CASES['gemma3'])
  assert WeightFiles(folder).left_out == ['multi_modal_projector.mm_soft_emb_norm.weight',
                                          'vision_tower.vision_model.post_layernorm.weight']
  (first, _, one), (second, _, other) = hf_policy.load(folder), hf_policy.load(plain)
  assert first == second
  jax.tree.map(np.testing.assert_array_equal, one, other)


# ---- Damage: found before anything is trained ------------------------------------------------------


def cut(path):
  os.truncate(path, path.stat().st_size - 5)


def no_header(path):
  path.write_bytes(b'\xff' * 8 + path.read_bytes()[8:])


def broken_header(path):
  content = bytearray(path.read_bytes())
  content[20:24] = b'{{{{'
  path.write_bytes(bytes(content))


def pointer(path):
  path.write_text('version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n')


@pytest.mark.parametrize('name', ('model.safetensors', 'model-00002-of-00002.safetensors'))
@pytest.mark.parametrize('harm, message', [
    (cut, 'cut short or corrupt'), (no_header, 'cut short or corrupt'), (broken_header, 'cut short or corrupt'),
    (pointer, 'is a pointer of Git LFS'), (lambda path: path.write_bytes(b''), 'cannot be read'),
    (pathlib.Path.unlink, 'missing in the folder|is not read: only safetensors are'),
])
def test_a_damaged_file_is_named(tmp_path, name, harm, message):
  folder = hf_folders.write_folder(tmp_path, CASE if name == 'model.safetensors' else SHARDED)
  (folder / 'pytorch_model.bin').write_bytes(b'')
  harm(folder / name)
  with pytest.raises(DataError, match=message) as caught:
    WeightFiles(folder)
  assert str(tmp_path) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('change, message', [
    (lambda table: table.update({'model.extra': 'model-00001-of-00002.safetensors'}), 'names model.extra, which its files lack'),
    (lambda table: table.update({'lm_head.weight': 'model-00002-of-00002.safetensors'}), 'holds lm_head.weight, which .* puts into'),
    (lambda table: table.update({'lm_head.weight': '../model.safetensors'}), 'weight_map must map names'),
    (lambda table: table.clear(), 'weight_map must map names'),
])
def test_an_index_that_does_not_fit_its_files(tmp_path, change, message):
  folder = hf_folders.write_folder(tmp_path, SHARDED)
  path = folder / 'model.safetensors.index.json'
  index = json.loads(path.read_text())
  assert index['weight_map']['lm_head.weight'] == 'model-00001-of-00002.safetensors'
  change(index['weight_map'])
  path.write_text(json.dumps(index))
  with pytest.raises(DataError, match=message):
    WeightFiles(folder)


@pytest.mark.parametrize('value', (np.nan, np.inf))
def test_a_weight_that_is_not_finite(tmp_path, value):
  folder = hf_folders.write_folder(tmp_path, CASE)
  weights = hf_folders.tensors(CASE)
  weights['model.layers.2.mlp.down_proj.weight'][3, 4] = value
  save_file(weights, folder / 'model.safetensors')
  with pytest.raises(DataError, match='model.layers.2.mlp.down_proj.weight holds a NaN or an infinity'):
    hf_policy.load(folder)


# ---- Export that fails ------------------------------------------------------------------------------


@pytest.fixture(name='exported', scope='module')
def fixture_exported(tmp_path_factory):
  config, _, params = hf_policy.load(hf_folders.write_folder(tmp_path_factory.mktemp('source'), CASE))
  return params, config


def test_a_taken_target_is_refused(tmp_path, exported):
  (tmp_path / 'b').mkdir()
  (tmp_path / 'b' / 'mine').write_text('')
  with pytest.raises(UsageError, match='exists and is not empty; choose another folder'):
    save_params(*exported, tmp_path / 'b')
  (tmp_path / 'empty').mkdir()
  save_params(*exported, tmp_path / 'empty')
  assert stored(tmp_path / 'empty')


@pytest.mark.parametrize('owner, name, failing', [
    (shutil, 'disk_usage', lambda _: shutil._ntuple_diskusage(10, 9, 1)),  # pylint: disable=protected-access
    (os, 'posix_fallocate', 'full'), (os, 'fsync', 'full'),
])
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, exported, owner, name, failing):
  def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(owner, name, full if failing == 'full' else failing)
  with pytest.raises(EijaxError, match=r'b could not be written \(.*; make room') as caught:
    save_params(*exported, tmp_path / 'b')
  assert '\n' not in str(caught.value) and not list(tmp_path.iterdir())


def test_what_a_killed_export_left_is_swept(tmp_path, exported):
  (tmp_path / '.b.partial').mkdir()
  (tmp_path / '.b.partial' / 'model.safetensors').write_bytes(b'half')
  save_params(*exported, tmp_path / 'b')
  assert [path.name for path in tmp_path.iterdir()] == ['b'] and len(stored(tmp_path / 'b')) == len(hf_folders.shapes(CASE))


# ---- Memory -----------------------------------------------------------------------------------------


def test_the_host_holds_no_second_copy(tmp_path):
  """Peak resident memory beside the params stays under 1.3 times the largest tensor, with stacks larger than any tensor."""
  sizes = dict(vocab_size=40_000, hidden_size=768, intermediate_size=6144, num_hidden_layers=6)
  large = dataclasses.replace(CASE, config=CASE.config | sizes | {'tie_word_embeddings': True})
  folder = tmp_path / 'large'
  folder.mkdir()
  (folder / 'config.json').write_text(json.dumps(large.config))
  # Filled with one number each: drawing 60 million would take longer than the test.
  weights = {name: np.full(shape, i + 1, ml_dtypes.bfloat16) for i, (name, shape) in enumerate(hf_folders.shapes(large).items())}
  largest = max(value.nbytes for value in weights.values())
  save_file(weights, folder / 'model.safetensors')
  del weights
  warm_up = hf_folders.write_folder(tmp_path / 'small', hf_folders.CASES['qwen3_tied_modern_sharded'], dtype='bfloat16')
  result = subprocess.run([sys.executable, str(TESTS / 'hf_memory.py'), str(folder), str(warm_up)], capture_output=True,
                          text=True, timeout=300, check=False, cwd=TESTS.parent, env={**os.environ, 'PYTHONPATH': str(TESTS.parent)})
  assert result.returncode == 0, result.stderr
  used = json.loads(result.stdout)
  assert used['kept'] == 4 * sum(int(np.prod(shape)) for shape in hf_folders.shapes(large).values())
  assert used['beside'] < 1.3 * largest, used
