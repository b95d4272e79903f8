"""The policy: a pure-functional decoder in Flax linen.

One module from one million to 32 billion parameters, and for Qwen3 and its relatives
(Qwen2.5, Llama 3, Gemma 3); only `PolicyConfig` differs, which names the sources.
Grouped-query attention, rotary positions, gated MLP, pre-norm RMSNorm.

Axes: B batch, T query token, S key token, D model, N query heads, K key-value
heads, G = N / K, H head dim, F mlp, V vocabulary, L layers.
"""

import functools

import flax.linen as nn
from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from eijax.policy.config import PolicyConfig

# Large enough to vanish in a float32 softmax, finite so that a fully masked row
# (padding) gives a uniform average instead of NaN.
MASKED = -1e30
# Queries that share the keys they look at, and how many such blocks a row is cut into at most, so that long rows do not
# make a program of hundreds of products.
QUERY_BLOCK = 256
MAX_QUERY_BLOCKS = 8


@struct.dataclass
class KVCache:
  """Keys and values of all layers, in the layout that decoding reads.

  keys, values: compute_dtype[L, B, K, S, H], or [B, K, S, H] in the cache of one layer. Cell s
  of row b holds the token at position s; cells beyond a row's length hold stale values, which
  no query sees because a query at position p attends to cells 0..p only.
  """

  keys: jax.Array
  values: jax.Array

  @property
  def max_len(self) -> int:
    return self.keys.shape[-2]

  def by_layer(self, span: int) -> 'tuple[KVCache, ...]':
    """The first `span` cells as a cache for each layer.

    A product reads such a cache where it lies. Of the whole cache it first copies the layer's part: worth it where
    many tokens are decoded one by one, and only for a decoder whose layers are unrolled.
    """
    return tuple(jax.tree.map(lambda x: x[layer, :, :, :span], self) for layer in range(self.keys.shape[0]))

  def with_layers(self, layers: 'tuple[KVCache, ...]') -> 'KVCache':
    """This cache with its first cells as `by_layer` gave them and `Decoder.extend` went on from there."""
    return jax.tree.map(lambda x, *parts: x.at[:, :, :, :parts[0].shape[2]].set(jnp.stack(parts)), self, *layers)


def init_cache(config: PolicyConfig, batch: int, max_len: int) -> KVCache:
  """An empty cache for `batch` rows of at most `max_len` tokens."""
  shape = (config.num_layers, batch, config.num_kv_heads, max_len, config.head_dim)
  dtype = jnp.dtype(config.compute_dtype)
  return KVCache(keys=jnp.zeros(shape, dtype), values=jnp.zeros(shape, dtype))


def _frequencies(theta: float, head_dim: int) -> jax.Array:
  """Radians per token of each rotary pair, float32[H/2]. Source: https://arxiv.org/abs/2104.09864."""
  half = head_dim // 2
  return theta ** (-jnp.arange(half, dtype=jnp.float32) / half)


def rotary_frequencies(config: PolicyConfig) -> jax.Array:
  """`_frequencies` of the layers that see the whole context, scaled as the config says.

  Source of `linear`: https://arxiv.org/abs/2306.15595. Of `llama3`: https://arxiv.org/abs/2407.21783 and the
  reference code that it names; between the two bounds on the number of turns, the weight of the unscaled
  frequency rises linearly.
  """
  frequency = _frequencies(config.rope_theta, config.head_dim)
  if config.rope_scaling == 'none':
    return frequency
  slow = frequency / config.rope_factor
  if config.rope_scaling == 'linear':
    return slow
  turns = config.rope_original_length * frequency / (2 * np.pi)
  low, high = config.rope_low_turns, config.rope_high_turns
  keep = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
  return keep * frequency + (1 - keep) * slow


def rotary(x: jax.Array, positions: jax.Array, frequency: jax.Array) -> jax.Array:
  """Turn the halves of each head by its position. Source: https://arxiv.org/abs/2104.09864.

  Args:
    x: [B, T, N, H]; pairs are (x[..., i], x[..., i + H/2]), as in the published weights.
    positions: int32[B, T].
    frequency: float32[H/2], radians per token; angles are float32 whatever x is.
  """
  angle = positions.astype(jnp.float32)[:, :, None, None] * frequency[None, None, None, :]
  sin, cos = jnp.sin(angle), jnp.cos(angle)
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
  return turned.astype(x.dtype)


def _weights(scores: jax.Array, mask: jax.Array) -> jax.Array:
  """Softmax over the cells that the mask leaves, float32."""
  return jax.nn.softmax(jnp.where(mask, scores, MASKED), axis=-1)


def _attend_together(query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, scale: float) -> jax.Array:
  """All query heads of a key head in one product; query: [B, T, K, G, H], else see `attend`."""
  scores = jnp.einsum('BTKGH,BKSH->BKGTS', query, keys, preferred_element_type=jnp.float32) * scale
  weights = _weights(scores, mask[:, None, None, :, :]).astype(values.dtype)
  return jnp.einsum('BKGTS,BKSH->BTKGH', weights, values)


def _attend_by_head(query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, scale: float) -> jax.Array:
  """The same for one query token, T = 1, as products of one matrix and one vector."""
  heads = range(query.shape[3])
  scores = jnp.stack([
      jnp.einsum('BKH,BKSH->BKS', query[:, 0, :, g], keys, preferred_element_type=jnp.float32) for g in heads
  ], axis=2) * scale  # [B, K, G, S]
  weights = _weights(scores, mask[:, :, None, :]).astype(values.dtype)
  return jnp.stack([jnp.einsum('BKS,BKSH->BKH', weights[:, :, g], values) for g in heads], axis=2)[:, None]


def attend(query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, scale: float) -> jax.Array:
  """Grouped-query attention with a float32 softmax.

  Args:
    query: [B, T, N, H].
    keys, values: [B, K, S, H].
    mask: bool[B, T, S], true where the query may look.
    scale: factor on the scores.
  Returns:
    [B, T, N, H].
  """
  b, t, n, h = query.shape
  grouped = query.reshape(b, t, keys.shape[1], n // keys.shape[1], h)
  if t > 1:
    return _attend_together(grouped, keys, values, mask, scale).reshape(b, t, n, h)
  # XLA's CPU backend packs the whole matrix for a product of a few rows, and reads it once for a product of one: 4.5 ms
  # against 0.3 ms for 64 rows of 640 cells and two query heads.
  attended = jax.lax.platform_dependent(
      grouped, keys, values, mask,
      cpu=functools.partial(_attend_by_head, scale=scale), default=functools.partial(_attend_together, scale=scale))
  return attended.reshape(b, t, n, h)


def attend_causal(query: jax.Array, keys: jax.Array, values: jax.Array, mask: jax.Array, scale: float) -> jax.Array:
  """`attend` where no query looks at a key behind its own place, T = S: blocks of queries skip the keys behind them.

  With eight blocks 7 / 16 of the products are never computed; weights that the mask makes 0 do not change a sum.
  """
  t = query.shape[1]
  block = -(-t // (MAX_QUERY_BLOCKS * QUERY_BLOCK)) * QUERY_BLOCK
  parts = [
      attend(query[:, start:end], keys[:, :, :end], values[:, :, :end], mask[:, start:end, :end], scale)
      for start in range(0, t, block) for end in (min(start + block, t),)
  ]
  return jnp.concatenate(parts, axis=1)


class RMSNorm(nn.Module):
  """x / rms(x) * (scale + norm_offset), in float32."""

  config: PolicyConfig
  axis_name: str

  @nn.compact
  def __call__(self, x):
    cfg = self.config
    init = nn.with_logical_partitioning(nn.initializers.constant(1 - cfg.norm_offset), (self.axis_name,))
    scale = self.param('scale', init, (x.shape[-1],), jnp.dtype(cfg.param_dtype))
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + cfg.norm_eps)
    scale = scale.astype(jnp.float32) + cfg.norm_offset if cfg.norm_offset else scale.astype(jnp.float32)
    scale = scale.reshape((1,) * (x.ndim - 1) + (-1,))
    return (wide * scale).astype(x.dtype)


class Projection(nn.Module):
  """A linear map between named axes, computed in `compute_dtype`; with its part of the adapter, if it has one."""

  shape: tuple[int, ...]
  axes: tuple[str, ...]
  num_in: int  # How many leading axes of `shape` are contracted.
  config: PolicyConfig
  init_scale: float = 1.0
  use_bias: bool = False

  @nn.compact
  def __call__(self, x):
    init = nn.initializers.variance_scaling(
        self.init_scale, 'fan_in', 'normal',
        in_axis=tuple(range(self.num_in)), out_axis=tuple(range(self.num_in, len(self.shape))))
    kernel = self.param('kernel', nn.with_logical_partitioning(init, self.axes), self.shape,
                        jnp.dtype(self.config.weight_dtype))
    dims = tuple(range(x.ndim - self.num_in, x.ndim)), tuple(range(self.num_in))
    y = jax.lax.dot_general(x, kernel.astype(x.dtype), (dims, ((), ())))
    if self.name in self.config.lora.modules:
      y = y + self._low_rank(x, dims)
    if not self.use_bias:
      return y
    init = nn.with_logical_partitioning(nn.initializers.zeros_init(), self.axes[self.num_in:])
    bias = self.param('bias', init, self.shape[self.num_in:], jnp.dtype(self.config.weight_dtype))
    return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - bias.ndim) + bias.shape)

  def _low_rank(self, x, dims):
    """scale * x A B. A starts as peft draws it, uniform within fan_in ** -0.5, and B at 0: the policy is the base at first."""
    lora, num_in, dtype = self.config.lora, self.num_in, jnp.dtype(self.config.param_dtype)
    init = nn.initializers.variance_scaling(1 / 3, 'fan_in', 'uniform', in_axis=tuple(range(num_in)), out_axis=num_in)
    a = self.param('lora_a', nn.with_logical_partitioning(init, (*self.axes[:num_in], 'rank')),
                   (*self.shape[:num_in], lora.rank), dtype)
    b = self.param('lora_b', nn.with_logical_partitioning(nn.initializers.zeros_init(), ('rank', *self.axes[num_in:])),
                   (lora.rank, *self.shape[num_in:]), dtype)
    inner = jax.lax.dot_general(x, a.astype(x.dtype), (dims, ((), ()))) * lora.scale
    return jax.lax.dot_general(inner, b.astype(x.dtype), (((inner.ndim - 1,), (0,)), ((), ())))


@struct.dataclass
class Sight:
  """What queries may look at.

  full: bool[B, T, S], of layers that see the whole context. near: of local_layers; None if there are none.
  """

  full: jax.Array
  near: jax.Array | None


class Block(nn.Module):
  """One decoder layer, as the body of a scan over layers.

  With a cache, the layer writes its keys and values at `positions` and attends
  to the cache; without one, to the other tokens of the same segment. The cache
  is part of the scan's carry, so that it is updated in place. `layer` is its number
  (int32[]; None with a cache of this layer alone) and whether it is one of local_layers (bool[]).
  """

  config: PolicyConfig

  @nn.compact
  def __call__(self, carry, layer, positions, sight):
    cfg = self.config
    x, cache = carry
    layer, is_local = layer
    mask, frequency = sight.full, rotary_frequencies(cfg)
    if cfg.local_layers:
      mask = jnp.where(is_local, sight.near, mask)
      frequency = jnp.where(is_local, _frequencies(cfg.local_rope_theta, cfg.head_dim), frequency)
    norm = functools.partial(RMSNorm, cfg)
    dense = functools.partial(Projection, config=cfg)
    d, n, k, h, f = cfg.hidden_dim, cfg.num_heads, cfg.num_kv_heads, cfg.head_dim, cfg.mlp_dim

    y = norm('norm', name='attention_norm')(x)
    query = dense((d, n, h), ('embed', 'heads', 'head_dim'), 1, use_bias=cfg.qkv_bias, name='query')(y)
    key = dense((d, k, h), ('embed', 'kv_heads', 'head_dim'), 1, use_bias=cfg.qkv_bias, name='key')(y)
    value = dense((d, k, h), ('embed', 'kv_heads', 'head_dim'), 1, use_bias=cfg.qkv_bias, name='value')(y)
    if cfg.query_key_norm:
      query, key = norm('head_dim', name='query_norm')(query), norm('head_dim', name='key_norm')(key)
    query, key = rotary(query, positions, frequency), rotary(key, positions, frequency)
    if cache is None:
      keys, values = key.swapaxes(1, 2), value.swapaxes(1, 2)  # [B, K, S, H]
    else:
      rows = jnp.arange(x.shape[0])[:, None]
      here = (rows, slice(None), positions) if layer is None else (layer, rows, slice(None), positions)
      # Padding of a chunk may lie beyond the cache: such writes are dropped.
      cache = KVCache(
          keys=cache.keys.at[here].set(key, mode='drop'), values=cache.values.at[here].set(value, mode='drop'))
      of_layer = cache if layer is None else jax.tree.map(
          lambda cells: jax.lax.dynamic_index_in_dim(cells, layer, keepdims=False), cache)
      keys, values = (cells[:, :, :mask.shape[-1]] for cells in (of_layer.keys, of_layer.values))
    attended = (attend_causal if cache is None else attend)(query, keys, values, mask, cfg.attention_scale or h**-0.5)
    branch = dense((n, h, d), ('heads', 'head_dim', 'embed'), 2, init_scale=0.5 / cfg.num_layers, name='out')(attended)
    x = x + (norm('norm', name='attention_out_norm')(branch) if cfg.branch_norms else branch)

    y = norm('norm', name='mlp_norm')(x)
    gate = dense((d, f), ('embed', 'mlp'), 1, name='gate')(y)
    up = dense((d, f), ('embed', 'mlp'), 1, name='up')(y)
    active = nn.silu(gate) if cfg.activation == 'silu' else nn.gelu(gate, approximate=True)
    branch = dense((f, d), ('mlp', 'embed'), 1, init_scale=0.5 / cfg.num_layers, name='down')(active * up)
    x = x + (norm('norm', name='mlp_out_norm')(branch) if cfg.branch_norms else branch)
    return (x, cache), None


def _remat(block, name: str):
  """Wrap the layer so that the backward pass recomputes what `name` says."""
  if name == 'none':
    return block
  policy = {'full': None, 'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable}[name]
  return nn.remat(block, policy=policy, prevent_cse=False)


class Decoder(nn.Module):
  """Token ids to hidden states and logits.

  `hidden` is the training path (packed rows, no cache), `extend` the sampling
  path (a cache); both run the same layers. `logits` maps hidden states to the
  vocabulary, apart, so that a caller computes it only where it needs it.
  """

  config: PolicyConfig

  def setup(self):
    cfg = self.config
    init = nn.with_logical_partitioning(nn.initializers.normal(stddev=0.02), ('vocab', 'embed'))
    self.embedding = self.param('embedding', init, (cfg.vocab_size, cfg.hidden_dim), jnp.dtype(cfg.weight_dtype))
    if not cfg.tie_embeddings:
      self.head = self.param('head', init, (cfg.vocab_size, cfg.hidden_dim), jnp.dtype(cfg.weight_dtype))
    self.layers = nn.scan(
        _remat(Block, cfg.remat),
        variable_axes={'params': 0},
        split_rngs={'params': True},
        in_axes=(0, nn.broadcast, nn.broadcast),
        length=cfg.num_layers,
        unroll=cfg.scan_unroll,
        metadata_params={nn.PARTITION_NAME: 'layers'},
    )(cfg)
    self.final_norm = RMSNorm(cfg, 'norm')

  def _run(self, tokens, positions, key_positions, mask, cache):
    cfg = self.config
    # Gathered over fsdp for the lookup, and rows kept split: left alone, the partitioner splits D instead and
    # puts every row on every device. Outside the update step's mesh both constraints do nothing.
    table = nn.with_logical_constraint(self.embedding, ('vocab', None))
    x = jnp.take(table, tokens, axis=0).astype(jnp.dtype(cfg.compute_dtype))
    if cfg.embedding_scale != 1:
      x = x * jnp.asarray(cfg.embedding_scale, x.dtype)
    x = nn.with_logical_constraint(x, ('batch', 'sequence', None))
    near = None
    if cfg.local_layers:
      near = mask & (positions[:, :, None] - key_positions[:, None, :] < cfg.window)
    is_local = np.isin(np.arange(cfg.num_layers), cfg.local_layers)
    sight = Sight(full=mask, near=near)
    if isinstance(cache, tuple):
      weights = nn.meta.unbox(self.layers.variables['params'])
      block, caches = Block(cfg, parent=None), []
      for layer, cells in enumerate(cache):
        of_layer = {'params': jax.tree.map(lambda w: w[layer], weights)}
        (x, cells), _ = block.apply(of_layer, (x, cells), (None, is_local[layer]), positions, sight)
        caches.append(cells)
      return self.final_norm(x), tuple(caches)
    layers = jnp.arange(cfg.num_layers), jnp.asarray(is_local)
    (x, cache), _ = self.layers((x, cache), layers, positions, sight)
    return self.final_norm(x), cache

  def hidden(self, tokens, positions, segment_ids):
    """Hidden states of packed rows.

    Args:
      tokens: int32[B, T].
      positions: int32[B, T], counted from 0 within each segment.
      segment_ids: int32[B, T], 0 for padding; a token sees the earlier tokens
        of its own segment only.
    Returns:
      compute_dtype[B, T, D].
    """
    t = tokens.shape[1]
    causal = jnp.tril(jnp.ones((t, t), bool))
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    return self._run(tokens, positions, positions, same & causal[None], None)[0]

  def extend(self, tokens, start, cache, span: int | None = None):
    """Append a chunk of tokens to every row of a cache.

    Args:
      tokens: int32[B, T]; a row's chunk may end in padding, whose outputs the
        caller ignores and whose cells the next chunk overwrites.
      start: int32[B], each row's length before the chunk.
      cache: KVCache of B rows, or a tuple of one for each layer.
      span: static; only cells below it are read (all rows must end below it).
    Returns:
      (compute_dtype[B, T, D] hidden states, the cache).
    """
    positions = start[:, None] + jnp.arange(tokens.shape[1])[None, :]
    cells = jnp.arange(span or (cache[0] if isinstance(cache, tuple) else cache).max_len)
    mask = cells[None, None, :] <= positions[:, :, None]
    return self._run(tokens, positions, cells[None, :], mask, cache)

  def logits(self, hidden):
    """float32[..., V] logits of hidden states [..., D]."""
    head = self.embedding if self.config.tie_embeddings else self.head
    return jax.lax.dot_general(
        hidden, head.astype(hidden.dtype), (((hidden.ndim - 1,), (1,)), ((), ())),
        preferred_element_type=jnp.float32)

  def __call__(self, tokens, positions, segment_ids):
    """Logits of packed rows (see `hidden`), float32[B, T, V]."""
    return self.logits(self.hidden(tokens, positions, segment_ids))
