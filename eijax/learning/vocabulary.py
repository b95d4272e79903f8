"""Log-probs and entropies of tokens from hidden states, without ever holding their logits.

Tokens that nothing scores are left out. The others are visited a chunk at a time: once, where the loss is
known (`loss_terms`), or in the forward and again in the backward pass (`score`). Over several devices the vocabulary is split, not the chunk: the
devices that share the rows of a batch bring the hidden states of one chunk together, and each
multiplies them with its own part of the output table. So neither the table nor its gradient is ever whole,
and what travels grows with the scored tokens and not with the vocabulary.

Axes: B rows, T positions, D model, V vocabulary; n tokens of a device, C of a chunk, c tokens of a
chunk on all devices that share it, W words of a device.
"""

import dataclasses
import functools
import math

import jax
from jax import lax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, PartitionSpec

from eijax.learning.losses import LossFn, LossTerms, TokenScores, add_terms
from eijax.learning.packing import PackedBatch

# Most tokens of a chunk that are brought together: with 4,096 floats each, 128 MiB of bfloat16. More would not make
# the products faster.
MAX_SHARED_TOKENS = 16384
# Name of the loops in a compiled program, for those that ask how often they run.
LOOP_NAME = 'vocabulary_chunks'


@dataclasses.dataclass(frozen=True)
class Split:
  """Mesh axes by what they do here; all empty for one device.

  vocab: of the table's V, in training. columns: of its D. rows: of B. positions: of T.
  """

  mesh: AbstractMesh | None = None
  vocab: tuple[str, ...] = ()
  columns: tuple[str, ...] = ()
  rows: tuple[str, ...] = ()
  positions: tuple[str, ...] = ()

  @property
  def shared(self) -> tuple[str, ...]:
    """Axes over which a chunk is brought together, and V is split further."""
    return self.columns + self.positions

  @property
  def words(self) -> tuple[str, ...]:
    """Axes that V is split over while tokens are scored, the first slowest."""
    return self.vocab + self.shared

  @property
  def tokens(self) -> tuple[str, ...]:
    return self.rows + self.positions

  def size(self, axes: tuple[str, ...]) -> int:
    return math.prod(self.mesh.shape[axis] for axis in axes) if self.mesh else 1


@dataclasses.dataclass(frozen=True)
class Scoring:
  """temperature: of the distribution. chunk: C, at most this many. wide: gradients of hidden states are added up over devices in
  float32 instead of in their own type. vocab_size: V."""

  temperature: float
  chunk: int
  wide: bool
  vocab_size: int
  split: Split


def chunk_size(chunk: int, num_tokens: int, sharing: int) -> int:
  """C: at most `chunk` tokens of a device that has num_tokens, fewer where many devices share one."""
  return max(1, min(chunk, num_tokens, MAX_SHARED_TOKENS // sharing))


def _gather(x, axes):
  return lax.all_gather(x, axes, axis=0, tiled=True) if axes else x


def _sum(x, axes):
  return lax.psum(x, axes) if axes else x


def _max(x, axes):
  return lax.pmax(x, axes) if axes else x


def _own_part(x, axes, size):
  """The rows of x that belong to this device."""
  return lax.dynamic_slice_in_dim(x, lax.axis_index(axes) * size, size) if axes else x


def _own_words(table: jax.Array, s: Scoring) -> jax.Array:
  """[V / vocab, D / columns] of the table -> [W, D], by one all-to-all; rows of zeros behind its end."""
  split, ways = s.split, s.split.size(s.split.shared)
  table = jnp.pad(table, ((0, -table.shape[0] % ways), (0, 0)))
  if split.columns:
    table = lax.all_to_all(table, split.columns, split_axis=0, concat_axis=1, tiled=True)
  return _own_part(table, split.positions, table.shape[0] // split.size(split.positions))


def _own_columns(gradient: jax.Array, num_rows: int, s: Scoring) -> jax.Array:
  """The way back of `_own_words`, for its gradient [D, W]."""
  split, gradient = s.split, gradient.T
  gradient = _gather(gradient, split.positions)
  if split.columns:
    gradient = lax.all_to_all(gradient, split.columns, split_axis=1, concat_axis=0, tiled=True)
  return gradient[:num_rows]


class _Chunks:
  """The scored tokens of this device, in chunks of C, and what all devices hold of one.

  order: int32[n + padding], places of the tokens, scored ones first. num: chunks that any device needs.
  """

  def __init__(self, loss_mask: jax.Array, s: Scoring):
    self.s, n = s, loss_mask.size
    self.size = chunk_size(s.chunk, n, s.split.size(s.split.shared))
    mask = loss_mask.reshape(-1)
    order = jnp.argsort(~mask, stable=True)
    # Padding repeats a token; whether it counts is decided by place.
    self.order = jnp.pad(order, (0, -n % self.size), mode='edge')
    self.count = jnp.sum(mask, dtype=jnp.int32)
    everyone = s.split.words + tuple(axis for axis in s.split.tokens if axis not in s.split.words)
    self.num = _max((self.count + self.size - 1) // self.size, everyone)

  def places(self, i) -> tuple[jax.Array, jax.Array]:
    """(int32[C] places, bool[C] whether they count) of chunk i."""
    start = i * self.size
    return lax.dynamic_slice_in_dim(self.order, start, self.size), start + jnp.arange(self.size) < self.count

  def together(self, i, hidden: jax.Array, *vectors: jax.Array) -> tuple[jax.Array, ...]:
    """Hidden states [c, D] and vectors [c] of chunk i from all devices that share it; zeros where nothing counts."""
    places, counts = self.places(i)
    # Before anything is computed: 0 * NaN is NaN.
    pick = lambda x: jnp.where(counts.reshape((-1,) + (1,) * (x.ndim - 1)), x[places], 0)
    return tuple(_gather(pick(x), self.s.split.shared) for x in (hidden, *vectors))

  def mine(self, x: jax.Array) -> jax.Array:
    """This device's part of a vector [c]."""
    return _own_part(x, self.s.split.shared, self.size)

  def put(self, i, whole: jax.Array, part: jax.Array) -> jax.Array:
    """`whole` [n, ...] with the part [C, ...] of chunk i in its places."""
    places, counts = self.places(i)
    return whole.at[jnp.where(counts, places, whole.shape[0])].set(part.astype(whole.dtype), mode='drop')


def _logits(hidden: jax.Array, words: jax.Array, s: Scoring) -> tuple[jax.Array, jax.Array]:
  """(float32[c, W] logits / temperature, int32[W] the words' ids; the logits of padding are -inf)."""
  split = s.split
  in_vocab = s.vocab_size // split.size(split.vocab)  # Real rows of each part that `vocab` makes.
  place = jnp.arange(words.shape[0])
  ids = place
  if split.words:
    place = place + (lax.axis_index(split.shared) if split.shared else 0) * words.shape[0]
    ids = place + (lax.axis_index(split.vocab) if split.vocab else 0) * in_vocab
  logits = lax.dot_general(hidden, words, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32) / s.temperature
  return jnp.where(place[None, :] < in_vocab, logits, -jnp.inf), jnp.where(place < in_vocab, ids, -1)


def _scores(logits: jax.Array, ids: jax.Array, target: jax.Array, s: Scoring) -> tuple[jax.Array, jax.Array, jax.Array]:
  """(log-probs, entropies, normalisers), float32[c] each, of the tokens of a chunk."""
  # The maximum only keeps exponentials in range.
  top = _max(jnp.max(logits, axis=1), s.split.words)
  weight = jnp.exp(logits - top[:, None])
  finite = jnp.where(ids[None, :] >= 0, logits, 0.0)
  own = jnp.sum(jnp.where(ids[None, :] == target[:, None], finite, 0.0), axis=1)
  total, mean, own = _sum(jnp.stack([jnp.sum(weight, axis=1), jnp.sum(weight * finite, axis=1), own]), s.split.words)
  log_z = jnp.log(total) + top
  return own - log_z, log_z - mean / total, log_z


def _gradients(logits, ids, states, words, target, entropy, log_z, d_log_prob, d_entropy, s: Scoring):
  """(those of this device's hidden states of a chunk, [C, D], and of its words, float32[D, W]); vectors are [c, 1]."""
  split = s.split
  log_p = logits - log_z
  p = jnp.exp(log_p)
  # Of the log-prob: [word = target] - p. Of the entropy: -p (log p + H).
  d_logits = d_log_prob * ((ids[None, :] == target).astype(jnp.float32) - p)
  d_logits -= d_entropy * p * (jnp.where(ids[None, :] >= 0, log_p, 0.0) + entropy)
  d_logits = (d_logits / s.temperature).astype(states.dtype)
  # Words last, and the transpose made before the product: half as long again on a CPU, which reads the large factor along its rows.
  across = lax.optimization_barrier(states.T)
  d_words = lax.dot_general(across, d_logits, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
  part = lax.dot_general(d_logits, words, (((1,), (0,)), ((), ())), preferred_element_type=jnp.float32)
  part = part if s.wide else part.astype(states.dtype)
  part = lax.psum_scatter(part, split.shared, scatter_dimension=0, tiled=True) if split.shared else part
  return _sum(part, split.vocab), d_words


def _score_local(hidden, table, targets, loss_mask, *, s: Scoring):
  """log-probs, entropies and normalisers, float32[B, T] each, of this device's tokens."""
  shape = targets.shape
  hidden, targets = hidden.reshape(-1, hidden.shape[-1]), targets.reshape(-1)
  words = _own_words(table, s).astype(hidden.dtype)
  chunks = _Chunks(loss_mask, s)

  def body(i, scores):
    states, target = chunks.together(i, hidden, targets)
    logits, ids = _logits(states, words, s)
    return tuple(chunks.put(i, whole, chunks.mine(part)) for whole, part in zip(
        scores, _scores(logits, ids, target, s)))

  zeros = (jnp.zeros(targets.shape, jnp.float32),) * 3
  with jax.named_scope(LOOP_NAME):
    scores = lax.fori_loop(0, chunks.num, body, zeros)
  return tuple(x.reshape(shape) for x in scores)


def _differentiate_local(hidden, table, targets, loss_mask, entropy, log_z, d_log_probs, d_entropy, *, s: Scoring):
  """Gradients of this device's hidden states and of its part of the table."""
  shape, split = hidden.shape, s.split
  hidden = hidden.reshape(-1, shape[-1])
  vectors = [x.reshape(-1) for x in (targets, entropy, log_z, d_log_probs, d_entropy)]
  words = _own_words(table, s).astype(hidden.dtype)
  chunks = _Chunks(loss_mask, s)

  def body(i, carry):
    d_hidden, d_words = carry
    states, target, entropy, log_z, d_log_prob, d_entropy = (x if x.ndim > 1 else x[:, None] for x in chunks.together(
        i, hidden, *vectors))
    logits, ids = _logits(states, words, s)
    part, more = _gradients(logits, ids, states, words, target, entropy, log_z, d_log_prob, d_entropy, s)
    return chunks.put(i, d_hidden, part), d_words + more

  with jax.named_scope(LOOP_NAME):
    d_hidden, d_words = lax.fori_loop(
        0, chunks.num, body, (jnp.zeros_like(hidden), jnp.zeros(words.shape[::-1], jnp.float32)))
  # Once, after the loop: devices that have the same words of other rows.
  d_words = _sum(d_words, tuple(axis for axis in split.tokens if axis not in split.shared))
  return d_hidden.reshape(shape), _own_columns(d_words, table.shape[0], s).astype(table.dtype)


def _terms_local(hidden, table, batch, *, s: Scoring, loss_fn):
  """Terms of the loss over the tokens of all devices, and the gradients of loss_sum, as `_differentiate_local` has them."""
  shape, split = hidden.shape, s.split
  hidden, batch = hidden.reshape(-1, shape[-1]), jax.tree.map(lambda x: x.reshape(-1), batch)
  words = _own_words(table, s).astype(hidden.dtype)
  chunks = _Chunks(batch.loss_mask, s)

  def own_terms(scores, i):
    places, counts = chunks.places(i)
    rows = jax.tree.map(lambda x: x[places][None], batch)._replace(loss_mask=counts[None])
    return loss_fn(TokenScores(*(x[None] for x in scores)), rows)

  def body(i, carry):
    d_hidden, d_words, terms = carry
    states, target = chunks.together(i, hidden, batch.targets)
    logits, ids = _logits(states, words, s)
    log_probs, entropy, log_z = _scores(logits, ids, target, s)

    def loss_sum(scores):
      new = own_terms(scores, i)
      return new.loss_sum, new

    slopes, new = jax.grad(loss_sum, has_aux=True)((chunks.mine(log_probs), chunks.mine(entropy)))
    slopes = (_gather(x, split.shared) for x in slopes)
    part, more = _gradients(logits, ids, states, words, *(x[:, None] for x in (target, entropy, log_z, *slopes)), s)
    return chunks.put(i, d_hidden, part), d_words + more, add_terms(terms, new)

  scores = (jax.ShapeDtypeStruct((chunks.size,), jnp.float32),) * 2
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(lambda x: own_terms(x, 0), scores))
  with jax.named_scope(LOOP_NAME):
    d_hidden, d_words, terms = lax.fori_loop(
        0, chunks.num, body, (jnp.zeros_like(hidden), jnp.zeros(words.shape[::-1], jnp.float32), zeros))
  terms = jax.tree.map(lambda x: _sum(x, split.tokens), terms)._replace(
      maxima=jax.tree.map(lambda x: _max(x, split.tokens), terms.maxima))
  d_words = _sum(d_words, tuple(axis for axis in split.tokens if axis not in split.shared))
  return terms, d_hidden.reshape(shape), _own_columns(d_words, table.shape[0], s).astype(table.dtype)


def _on_mesh(fn, s: Scoring, num_tokens_args: int, outputs: tuple[str, ...]):
  """fn on every device: hidden states, table, then arrays [B, T]. outputs: 'tokens', 'hidden', 'table' or 'terms' each."""
  split = s.split
  if split.mesh is None:
    return fn
  tokens = PartitionSpec(split.rows or None, split.positions or None)
  specs = {'tokens': tokens, 'hidden': tokens, 'table': PartitionSpec(split.vocab or None, split.columns or None),
           'terms': PartitionSpec()}
  return jax.shard_map(
      fn, mesh=split.mesh, in_specs=(tokens, specs['table'], *[tokens] * num_tokens_args),
      out_specs=tuple(specs[name] for name in outputs), check_vma=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def score(hidden: jax.Array, table: jax.Array, targets: jax.Array, loss_mask: jax.Array, s: Scoring):
  """Log-probability of each target and entropy of its distribution, as `losses.token_scores` has them.

  Args:
    hidden: [B, T, D]; anything where loss_mask is false, NaN included, which gets no gradient.
    table: param_dtype[V, D]; cast to the type of hidden, its gradient is added up in float32.
    targets: int32[B, T].
    loss_mask: bool[B, T].
    s: how.
  Returns:
    (float32[B, T], float32[B, T]), zero where loss_mask is false.
  """
  return _forward(hidden, table, targets, loss_mask, s)[0]


def _forward(hidden, table, targets, loss_mask, s):
  targets, loss_mask = jnp.asarray(targets), jnp.asarray(loss_mask)
  run = _on_mesh(functools.partial(_score_local, s=s), s, 2, ('tokens',) * 3)
  log_probs, entropy, log_z = run(hidden, table, targets, loss_mask)
  return (log_probs, entropy), (hidden, table, targets, loss_mask, entropy, log_z)


def _backward(s, residuals, cotangents):
  run = _on_mesh(functools.partial(_differentiate_local, s=s), s, 6, ('hidden', 'table'))
  return *run(*residuals, *cotangents), None, None


score.defvjp(_forward, _backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def loss_terms(hidden: jax.Array, table: jax.Array, batch: PackedBatch, loss_fn: LossFn, s: Scoring) -> LossTerms:
  """loss_fn of the scores of a batch, differentiable in its loss_sum alone.

  Each token's loss depends on its own score only. So a chunk's gradients are there as soon as its logits are, and the logits
  are computed once, not again in the backward pass.

  Args:
    hidden, table, s: see `score`.
    batch: arrays [B, T].
    loss_fn: adds up over tokens.
  """
  return loss_fn(TokenScores(*score(hidden, table, batch.targets, batch.loss_mask, s)), batch)


def _forward_terms(hidden, table, batch, loss_fn, s):
  batch = jax.tree.map(jnp.asarray, batch)
  run = _on_mesh(functools.partial(_terms_local, s=s, loss_fn=loss_fn), s, 1, ('terms', 'hidden', 'table'))
  terms, d_hidden, d_table = run(hidden, table, batch)
  return terms, (d_hidden, d_table)


def _backward_terms(loss_fn, s, gradients, cotangent):
  return *jax.tree.map(lambda x: (x * cotangent.loss_sum).astype(x.dtype), gradients), None


loss_terms.defvjp(_forward_terms, _backward_terms)
