"""From a policy to token scores, without ever holding the logits of a whole batch.

Axes: B rows, T positions, D model, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from eijax.learning import vocabulary
from eijax.learning.losses import TokenScores, token_scores
from eijax.learning.packing import PackedBatch
from eijax.policy.attention import context_mesh, mesh_axes

ScoreFn = Callable[[Any, PackedBatch], TokenScores]


def make_score_fn(
    policy: nn.Module, *, temperature: float, chunk_length: int = 0, gradient_dtype: str = 'float32') -> ScoreFn:
  """A function (params, batch) -> TokenScores.

  Args:
    policy: a module with methods `hidden` (tokens, positions, segment_ids -> [B, T, D]) and, without chunks, `logits`
      ([..., D] -> float32[..., V]), or with them `output_table` (-> [V, D]).
    temperature: of sampling; 1 for demonstrations.
    chunk_length: tokens of a device whose logits exist at a time, see `vocabulary`; 0 computes all logits
      at once, the plain way.
    gradient_dtype: float32 adds up the gradients of hidden states over devices in float32, bfloat16 in
      their own type.
  """

  def score_fn(params, batch: PackedBatch) -> TokenScores:
    variables = {'params': params}
    hidden = policy.apply(variables, batch.tokens, batch.positions, batch.segment_ids, method='hidden')
    if not chunk_length:
      logits = policy.apply(variables, hidden, method='logits')
      return token_scores(logits, batch.targets, batch.loss_mask, temperature=temperature)
    table = policy.apply(variables, method='output_table')
    how = vocabulary.Scoring(
        temperature=temperature, chunk=chunk_length, wide=gradient_dtype == 'float32', vocab_size=table.shape[0],
        split=_split())
    hidden = nn.with_logical_constraint(hidden, ('batch', 'sequence', None))
    return TokenScores(*vocabulary.score(hidden, table, batch.targets, batch.loss_mask, how))

  return score_fn


def _split() -> vocabulary.Split:
  """The axes of the mesh in context, by the rules in force."""
  mesh = context_mesh()
  if mesh is None:
    return vocabulary.Split()
  return vocabulary.Split(mesh=mesh, vocab=mesh_axes('vocab'), columns=mesh_axes('embed'), rows=mesh_axes('batch'),
                          positions=mesh_axes('sequence'))
