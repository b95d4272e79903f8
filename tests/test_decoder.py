"""Decoder against an independent float64 implementation, and its paths against each other."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import numpy_qwen3
import pytest

from eijax.errors import UsageError
from eijax.learning.sharding import LOGICAL_AXES
from eijax.policy import decoder as decoder_lib
from eijax.policy.config import PolicyConfig
from eijax.policy.decoder import Decoder, init_cache

# No two dimensions are equal, and hidden_dim is not num_heads * head_dim: a
# swapped axis cannot pass. Three query heads share a key-value head.
CONFIG = PolicyConfig(vocab_size=31, num_layers=3, hidden_dim=20, num_heads=6, num_kv_heads=2, head_dim=8, mlp_dim=27,
                      rope_theta=10_000.0)
ONE_KV_HEAD = dataclasses.replace(CONFIG, num_heads=5, num_kv_heads=1, head_dim=10, num_layers=1, norm_eps=1e-3)
TIED = dataclasses.replace(CONFIG, tie_embeddings=True, num_heads=3, num_kv_heads=3, head_dim=6, rope_theta=1e6)
# Logits of these params are of order 1 to 10; float32 carries 7 digits, and three
# layers of sums of up to 48 terms lose two of them. A wrong formula misses by order 1.
ATOL = 1e-4
# Every forward pass has this many tokens, so that a config compiles once.
T = 16


@functools.cache
def random_params(config):
  """Params in float64 that leave nothing at its neutral value: a norm left out, or used twice, shows."""
  one = jnp.ones((1, 1), jnp.int32)
  shapes = nn.unbox(jax.eval_shape(Decoder(config).init, jax.random.key(0), one, one, one))['params']
  rng = np.random.default_rng(0)

  def draw(path, leaf):
    if path[-1].key == 'scale':
      return rng.uniform(0.5, 2.0, leaf.shape)
    return rng.normal(0, 0.3, leaf.shape)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def single(config):
  return jax.tree.map(lambda x: jnp.asarray(x, jnp.dtype(config.param_dtype)), random_params(config))


def tokens_of(num, seed=0):
  """Random ids int32[num]."""
  return np.random.default_rng(seed).integers(0, CONFIG.vocab_size, num).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def logits_of(config, params, tokens, positions, segment_ids):
  return Decoder(config).apply({'params': params}, tokens, positions, segment_ids)


def full_logits(config, tokens):
  """Logits of one segment alone, float32[len(tokens), V]."""
  num = len(tokens)
  ids, segment_ids = np.zeros((1, T), np.int32), np.zeros((1, T), np.int32)
  ids[0, :num], segment_ids[0, :num] = tokens, 1
  positions = np.arange(T, dtype=np.int32)[None]
  return np.asarray(logits_of(config, single(config), ids, positions, segment_ids))[0, :num]


@pytest.mark.parametrize('config', [CONFIG, TIED, ONE_KV_HEAD], ids=['grouped', 'tied', 'one_kv_head'])
def test_logits_equal_independent_implementation(config):
  tokens = tokens_of(13)
  expected = numpy_qwen3.forward(config, random_params(config), tokens)
  assert np.abs(expected).max() > 1  # The comparison has something to compare.
  np.testing.assert_allclose(full_logits(config, tokens), expected, atol=ATOL)


def packed_row():
  """Segments of 5, 1 and 7 tokens and 3 of padding: (segments, tokens, positions, segment_ids), each [1, T]."""
  segments = [tokens_of(5, 1), tokens_of(1, 2), tokens_of(7, 3)]
  padding = 3
  tokens = np.concatenate([*segments, tokens_of(padding, 4)])
  positions = np.concatenate([*(np.arange(len(s)) for s in segments), np.zeros(padding, int)]).astype(np.int32)
  ids = np.concatenate([*(np.full(len(s), i + 1) for i, s in enumerate(segments)), np.zeros(padding, int)]).astype(np.int32)
  return segments, tokens[None], positions[None], ids[None]


def test_packed_equals_unpacked():
  segments, tokens, positions, ids = packed_row()
  packed = np.asarray(logits_of(CONFIG, single(CONFIG), tokens, positions, ids))[0]
  assert np.isfinite(packed).all()  # Padding too: a NaN there would poison a masked loss.
  start = 0
  for segment in segments:
    np.testing.assert_allclose(packed[start:start + len(segment)], full_logits(CONFIG, segment), atol=ATOL)
    start += len(segment)


def test_no_segment_leaks_into_another():
  """A token of enormous, then another embedding: only later tokens of its own segment notice, to the last bit."""
  _, tokens, positions, ids = packed_row()
  poison = CONFIG.vocab_size - 1
  tokens = np.where(tokens == poison, 0, tokens)
  clean, poisoned = single(CONFIG), single(CONFIG)
  poisoned['embedding'] = poisoned['embedding'].at[poison].set(1e6)
  for place in (0, 2, 5, 6, 9, 12, 14):
    hit = tokens.copy()
    hit[0, place] = poison
    before, after = (np.asarray(logits_of(CONFIG, params, hit, positions, ids))[0] for params in (clean, poisoned))
    changed = (before != after).any(axis=1)
    expected = (ids[0] == ids[0, place]) & (np.arange(T) >= place)
    np.testing.assert_array_equal(changed, expected)


@functools.partial(jax.jit, static_argnums=0)
def extend(span, params, tokens, start, cache):
  hidden, cache = Decoder(CONFIG).apply({'params': params}, tokens, start, cache, span, method='extend')
  return Decoder(CONFIG).apply({'params': params}, hidden, method='logits'), cache


def test_cached_equals_full_forward():
  """Rows of 11, 6 and 1 tokens, in chunks that end in padding at other places in each row."""
  rows = [tokens_of(11, 5), tokens_of(6, 6), tokens_of(1, 7)]
  # How many tokens of each row a chunk appends; the chunk is as long as told.
  chunks = [(4, (4, 1, 0)), (4, (2, 3, 1)), (3, (1, 0, 0)), (3, (3, 2, 0)), (3, (1, 0, 0))]
  params, cache = single(CONFIG), init_cache(CONFIG, 3, 11)
  # Stale values, as a former talk leaves them: no query may see them.
  cache = jax.tree.map(lambda x: x + 1e3, cache)
  done, collected = np.zeros(3, np.int32), [[], [], []]
  for length, takes in chunks:
    tokens = np.full((3, length), 9, np.int32)
    for row, take in enumerate(takes):
      tokens[row, :take] = rows[row][done[row]:done[row] + take]
    # The last chunks pad beyond the cache; the first read a part of it only.
    span = 8 if (done + length).max() <= 8 else None
    logits, cache = extend(span, params, tokens, done, cache)
    for row, take in enumerate(takes):
      collected[row].append(np.asarray(logits)[row, :take])
    done = done + np.array(takes, np.int32)
  assert done.tolist() == [len(row) for row in rows]
  for row, parts in zip(rows, collected):
    np.testing.assert_allclose(np.concatenate(parts), full_logits(CONFIG, row), atol=ATOL)


def test_a_cache_for_each_layer_equals_the_whole_one():
  """Also with layers that see a window only, and the cells behind the span stay as they were."""
  config = dataclasses.replace(CONFIG, local_layers=(0, 2), window=3, local_rope_theta=500.0)
  params = single(config)
  tokens = jnp.stack([tokens_of(5, 8), tokens_of(5, 9)])
  begun = jax.tree.map(lambda x: x + 7.0, init_cache(config, 2, 11))
  start = jnp.array([0, 2], jnp.int32)

  def run(cache):
    states = []
    for step in range(tokens.shape[1]):
      hidden, cache = Decoder(config).apply(
          {'params': params}, tokens[:, step:step + 1], start + step, cache, 8, method='extend')
      states.append(hidden)
    return jnp.concatenate(states, axis=1), cache

  states, whole = jax.jit(run)(begun)
  apart, layers = jax.jit(lambda cache: run(cache.by_layer(8)))(begun)
  # The same products in another program: float32 sums in another order.
  np.testing.assert_allclose(apart, states, atol=1e-5)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), begun.with_layers(layers), whole)


def mean_loss(log_probs, tokens):
  """Of the last segment of the packed row, 7 tokens from 6 on."""
  return -log_probs[np.arange(6, 12), tokens[0, 7:13]].mean()


@functools.cache
def loss_and_gradient(config):
  _, tokens, positions, ids = packed_row()

  def loss(params):
    logits = Decoder(config).apply({'params': params}, tokens, positions, ids)
    return mean_loss(jax.nn.log_softmax(logits)[0], tokens)

  return jax.device_get(jax.jit(jax.value_and_grad(loss))(single(config)))


@pytest.mark.parametrize('change', [{'remat': 'full'}, {'remat': 'dots', 'scan_unroll': 2}], ids=['full', 'dots_unrolled'])
def test_remat_and_unroll_change_no_value(change):
  value, gradient = loss_and_gradient(CONFIG)
  assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(gradient)) > 1e-4  # Every parameter has its part in the loss.
  other_value, other = loss_and_gradient(dataclasses.replace(CONFIG, **change))
  # Fused differently, so summed in another order; gradients are of order 1e-3 to 1.
  np.testing.assert_allclose(other_value, value, rtol=1e-5)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5, rtol=1e-3), other, gradient)


def test_gradient_equals_differences():
  """Along one direction through all params, by float64 differences of the independent implementation."""
  segments, tokens, _, _ = packed_row()
  params, rng = random_params(CONFIG), np.random.default_rng(9)
  direction = jax.tree.map(lambda x: rng.normal(size=x.shape), params)

  def loss(step):
    moved = jax.tree.map(lambda x, d: x + step * d, params, direction)
    logits = numpy_qwen3.forward(CONFIG, moved, segments[2])
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return mean_loss(np.concatenate([np.zeros((6, CONFIG.vocab_size)), log_probs]), tokens)

  value, gradient = loss_and_gradient(CONFIG)
  slope = sum(np.sum(g * d) for g, d in zip(jax.tree.leaves(gradient), jax.tree.leaves(direction)))
  np.testing.assert_allclose(value, loss(0), atol=ATOL)
  # Central differences in float64 are good to about 1e-8 here; the gradient itself is float32.
  np.testing.assert_allclose(slope, (loss(1e-5) - loss(-1e-5)) / 2e-5, rtol=1e-3)


AXES = {
    'embedding': ('vocab', 'embed'), 'head': ('vocab', 'embed'), 'final_norm.scale': ('norm',),
    'layers.attention_norm.scale': ('layers', 'norm'), 'layers.mlp_norm.scale': ('layers', 'norm'),
    'layers.query_norm.scale': ('layers', 'head_dim'), 'layers.key_norm.scale': ('layers', 'head_dim'),
    'layers.query.kernel': ('layers', 'embed', 'heads', 'head_dim'),
    'layers.key.kernel': ('layers', 'embed', 'kv_heads', 'head_dim'),
    'layers.value.kernel': ('layers', 'embed', 'kv_heads', 'head_dim'),
    'layers.out.kernel': ('layers', 'heads', 'head_dim', 'embed'),
    'layers.gate.kernel': ('layers', 'embed', 'mlp'), 'layers.up.kernel': ('layers', 'embed', 'mlp'),
    'layers.down.kernel': ('layers', 'mlp', 'embed'),
}


@pytest.mark.parametrize('config', [CONFIG, TIED], ids=['untied', 'tied'])
def test_every_parameter_names_its_axes(config):
  one = jnp.ones((1, 1), jnp.int32)
  boxed = jax.eval_shape(Decoder(config).init, jax.random.key(0), one, one, one)['params']
  found = {'.'.join(key.key for key in path): box
           for path, box in jax.tree_util.tree_leaves_with_path(boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned))}
  names = set(AXES) - ({'head'} if config.tie_embeddings else set())
  assert {name: box.names for name, box in found.items()} == {name: AXES[name] for name in names}
  sizes = {'vocab': config.vocab_size, 'embed': config.hidden_dim, 'norm': config.hidden_dim, 'mlp': config.mlp_dim,
           'layers': config.num_layers, 'heads': config.num_heads, 'kv_heads': config.num_kv_heads,
           'head_dim': config.head_dim}
  for name, box in found.items():
    assert box.unbox().shape == tuple(sizes[axis] for axis in AXES[name])
  assert {axis for axes in AXES.values() for axis in axes} <= set(LOGICAL_AXES)


@pytest.mark.parametrize('config', [CONFIG, TIED, ONE_KV_HEAD])
def test_num_params_counts_them(config):
  assert config.num_params == sum(leaf.size for leaf in jax.tree.leaves(random_params(config)))


def test_published_sizes():
  """Qwen3-8B and Qwen3-0.6B: the sums over the shapes in the published weight files."""
  shape = {'vocab_size': 151936, 'num_kv_heads': 8, 'head_dim': 128}
  large = PolicyConfig(num_layers=36, hidden_dim=4096, num_heads=32, mlp_dim=12288, **shape)
  small = PolicyConfig(num_layers=28, hidden_dim=1024, num_heads=16, mlp_dim=3072, tie_embeddings=True, **shape)
  assert (large.num_params, small.num_params) == (8_190_735_360, 596_049_920)


def test_bfloat16_compute_keeps_float32_logits():
  config = dataclasses.replace(CONFIG, compute_dtype='bfloat16', param_dtype='bfloat16')
  _, tokens, positions, ids = packed_row()
  run = functools.partial(Decoder(config).apply, {'params': single(config)}, method='hidden')
  hidden = jax.eval_shape(run, tokens, positions, ids)
  logits = logits_of(config, single(config), tokens, positions, ids)
  cache = init_cache(config, 1, 4)
  assert (hidden.dtype, logits.dtype, cache.keys.dtype) == (jnp.bfloat16, jnp.float32, jnp.bfloat16)
  exact = np.asarray(logits_of(CONFIG, single(CONFIG), tokens, positions, ids))
  # bfloat16 carries 8 bits; the error grows over three layers, but the direction stays.
  similarity = np.sum(exact * logits) / np.linalg.norm(exact) / np.linalg.norm(logits)
  assert similarity > 0.995
  # A float32 result of bfloat16 products, not a rounded one: its low mantissa bits are in use.
  assert (np.asarray(logits) != np.asarray(logits.astype(jnp.bfloat16).astype(jnp.float32))).any()


@pytest.mark.parametrize('bad, message', [
    ({'num_layers': 0}, 'num_layers=0 must be at least 1'), ({'num_heads': 5}, 'num_heads=5 must be a multiple'),
    ({'head_dim': 7}, 'head_dim=7 must be even'), ({'remat': 'some'}, "remat='some' is unknown; use one of none, full, dots"),
    ({'compute_dtype': 'float16'}, "compute_dtype='float16' is unknown; use one of float32, bfloat16"),
    ({'scan_unroll': 0}, 'scan_unroll=0 must be')])
def test_bad_config_is_refused(bad, message):
  with pytest.raises(UsageError, match=message):
    dataclasses.replace(CONFIG, **bad)


def test_blocks_of_queries_equal_one_product():
  # Three blocks and a rest of one query; two segments, one of which crosses a block's edge; padding at the end.
  t, block = 2 * 256 + 1, 256
  rng = np.random.default_rng(0)
  query, keys, values, weight = (
      jnp.asarray(rng.normal(size=shape), jnp.float32)
      for shape in ((2, t, 4, 6), (2, 2, t, 6), (2, 2, t, 6), (2, t, 4, 6)))
  segment = jnp.asarray(np.searchsorted([100, 300], np.arange(t), side='right') + 1)[None]
  segment = jnp.where(jnp.arange(t)[None] < 500, segment, 0)
  mask = jnp.broadcast_to((segment[:, :, None] == segment[:, None, :]) & jnp.tril(jnp.ones((t, t), bool))[None], (2, t, t))
  assert decoder_lib.QUERY_BLOCK == block

  def outcome(attend):
    def loss(query, keys, values):
      attended = attend(query, keys, values, mask, 0.4)
      return jnp.sum(attended * weight), attended

    (_, attended), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(query, keys, values)
    return attended, grads

  # Sums of the same terms, less zeros, perhaps in another order: a few units in the last place of values of order 1 to 10.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
               outcome(decoder_lib.attend_causal), outcome(decoder_lib.attend))
