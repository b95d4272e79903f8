"""First weights of a policy that is trained from scratch.

A decoder learns late to repeat a phrase from its context (an "induction head"):
one of this size had not begun to after 1.2 million tokens of random phrases, more
than a warm-up of minutes on a CPU sees. The circuit itself is known: a head that
looks one token back, and a later head that looks for the token after an earlier
occurrence of the present one.
`with_induction_circuit` starts a policy with that circuit in place, in two
layers and free to change from the first update on; every other weight is
random. Source: Olsson et al. 2022, In-context Learning and Induction Heads,
https://transformer-circuits.pub/2022/in-context-learning-and-induction-heads.
"""

import jax
import jax.numpy as jnp
import numpy as np

from eijax.errors import UsageError
from eijax.policy.config import PolicyConfig

# Sharpness of the heads: factor on the query norm, so that the wanted cell
# outweighs several hundred others in the softmax.
PREVIOUS_SCALE = 8.0
MATCH_SCALE = 4.0
# Weight of the copied token in the residual stream against the present token.
COPY_GAIN = 8.0
# Weight of the tokens that are not to be said again, and of the part of their query that is the same everywhere: it is
# orthogonal to all keys, so that where nothing is led in, the head looks everywhere alike and adds next to nothing.
SUPPRESSION_GAIN = 4.0
SUPPRESSION_GATE = 1.5
# Large against what Adam moves an entry by in the first hundred updates, or the codes that the heads match
# would be gone before the rest has learned to use them.
EMBEDDING_STD = 0.5
BRANCH_SCALE = 0.1
# Factor on the last norm: with embeddings that large, logits would begin far too sure.
LOGIT_SCALE = 0.3
# Rotary pairs whose angle moves less than this over a token carry content
# unchanged over a few hundred tokens; the faster ones carry distance.
SLOW_RADIANS_PER_TOKEN = 2e-3
# Random codes of fewer dimensions are too alike to tell tokens apart.
MIN_CODE_DIMS = 4


def _lookback_vectors(config: PolicyConfig, distance: int) -> tuple[np.ndarray, np.ndarray]:
  """Constant query and key [H] whose rotary product peaks `distance` tokens back."""
  half = config.head_dim // 2
  angle = config.rope_theta ** (-np.arange(half) / half)
  query, key = np.zeros(config.head_dim), np.zeros(config.head_dim)
  for pair in range(3):  # Three fast pairs: one alone would repeat every 2 pi tokens.
    query[pair], query[pair + half] = np.cos(distance * angle[pair]), -np.sin(distance * angle[pair])
    key[pair] = 1.0
  return query, key


def _slow_dims(config: PolicyConfig) -> np.ndarray:
  half = config.head_dim // 2
  slow = np.flatnonzero(config.rope_theta ** (-np.arange(half) / half) < SLOW_RADIANS_PER_TOKEN)
  return np.concatenate([slow, slow + half])


def with_induction_circuit(params, config: PolicyConfig, key: jax.Array, lead_in: tuple[int, int, int] | None = None):
  """Return params whose first two layers hold an induction circuit.

  The residual stream is split: dimension 0 is constant, the next C dimensions hold
  the token's code, and the P after those a projection of the code of the token before
  it, and, where two query heads share a key head, P more that of the token before that:
  two tokens tell a place in a long context better than one. P is what the slow rotary
  pairs can compare; C is as large as it can be, because what several heads or places
  copy at once adds up, and only long codes can then be told apart.

  Args:
    params: unboxed params of `Decoder`, as its `init` gives them.
    config: needs at least two layers and tied embeddings.
    key: PRNG key of the random codes and projections.
    lead_in: ids (present, before, asked). Where the present token stands, the circuit looks for an earlier present
      token that followed `asked`, not one that followed `before`, as it would by itself. So a phrase that a talk
      leads in with "x -" is taken from a line of a list ("newline -") and not from what the talk led in before.
  Raises:
    UsageError: if the policy is too small for the circuit.
  """
  slow = _slow_dims(config)
  g = config.num_heads // config.num_kv_heads
  num_back = min(2, g)
  p = min(len(slow), (config.hidden_dim - 1) // (1 + num_back))
  c = min(config.head_dim, config.hidden_dim - 1 - num_back * p)
  if config.num_layers < 2 or not config.tie_embeddings or len(slow) < 8 or c < MIN_CODE_DIMS:
    raise UsageError(
        f'num_layers={config.num_layers}, tie_embeddings={config.tie_embeddings}, head_dim={config.head_dim}, '
        f'rope_theta={config.rope_theta:g} ({len(slow) // 2} slow rotary pairs), hidden_dim={config.hidden_dim} '
        f'(codes of {c}): the induction circuit needs 2 layers, tied embeddings, 4 slow rotary pairs and codes of '
        f'{MIN_CODE_DIMS}; use larger values')
  code = np.arange(1, 1 + c)
  back = [np.arange(1 + c + p * i, 1 + c + p * (i + 1)) for i in range(num_back)]  # Of the tokens 1 and 2 before.
  rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).tolist())

  embedding = np.zeros((config.vocab_size, config.hidden_dim), np.float32)
  embedding[:, code] = rng.normal(0, EMBEDDING_STD, (config.vocab_size, c))
  embedding[:, 0] = EMBEDDING_STD * np.sqrt(c) / 2
  # Code [C] to projection [P], of the same length on average.
  shrink = np.linalg.qr(rng.normal(size=(max(c, p), p)))[0][:c] * np.sqrt(max(c, p) / p)
  layers = {name: {part: np.array(value) for part, value in tree.items()} for name, tree in params['layers'].items()}
  # The random branches start quiet against the embedding, or they would drown the codes.
  for name in ('out', 'down'):
    layers[name]['kernel'] *= BRANCH_SCALE
  query, keys, value, out = (layers[name]['kernel'] for name in ('query', 'key', 'value', 'out'))

  # Layer 0, heads of the first key-value head: write the codes of the tokens before.
  keys[0, :, 0] = value[0, :, 0] = 0
  keys[0, 0, 0] = _lookback_vectors(config, 0)[1]
  value[0][np.ix_(code, [0], np.arange(p))] = shrink[:, None]
  for head in range(g):
    place = head % num_back
    query[0, :, head] = out[0, head] = 0
    query[0, 0, head] = _lookback_vectors(config, place + 1)[0]
    out[0, head, np.arange(p), back[place]] = EMBEDDING_STD / len(range(place, g, num_back))
  layers['query_norm']['scale'][0] *= PREVIOUS_SCALE

  # Layer 1: find the token whose predecessors are the present tokens, and copy its code.
  leads = lead_in is not None and num_back > 1
  num_copying = config.num_heads - leads * config.num_kv_heads
  fast = np.setdiff1d(np.arange(config.head_dim), slow)[0]
  asked, held = [(code, shrink), *((dims, np.eye(p)) for dims in back[:-1])], back
  for kv in range(config.num_kv_heads):
    keys[1, :, kv] = value[1, :, kv] = 0
    value[1, code, kv, np.arange(c)] = 1
    projections = [np.linalg.qr(rng.normal(size=(len(slow), len(slow))))[0][:p] for _ in held]
    for project, dims in zip(projections, held):
      keys[1][np.ix_(dims, [kv], slow)] = project[:, None]
    for head in range(kv * g, (kv + 1) * g):
      query[1, :, head] = out[1, head] = 0
      for project, (dims, shorten) in zip(projections, asked):
        query[1][np.ix_(dims, [head], slow)] = (shorten @ project)[:, None]
      out[1, head, np.arange(c), code] = COPY_GAIN * EMBEDDING_STD / num_copying
    if leads:
      present, before, wanted = embedding[list(lead_in)][:, code]
      where_present, turn = present / np.square(present).sum(), (wanted - before) @ shrink @ projections[1]
      query[1][np.ix_(code, range(kv * g, head), slow)] += np.multiply.outer(where_present, turn)[:, None]
      match = present @ shrink @ projections[0] - turn
      query[1, :, head] = 0
      query[1][np.ix_(code, [head], slow)] = np.outer(where_present, match)[:, None]
      query[1, 0, head, fast] = SUPPRESSION_GATE * np.linalg.norm(match) / embedding[0, 0]
      out[1, head, np.arange(c), code] = -SUPPRESSION_GAIN * EMBEDDING_STD / config.num_kv_heads
  layers['query_norm']['scale'][1] *= MATCH_SCALE
  final_norm = {'scale': params['final_norm']['scale'] * LOGIT_SCALE}
  return {**params, 'final_norm': final_norm, 'embedding': jnp.asarray(embedding, params['embedding'].dtype),
          'layers': jax.tree.map(jnp.asarray, layers)}
