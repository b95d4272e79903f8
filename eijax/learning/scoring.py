"""From a policy to token scores, without ever holding the logits of a whole batch.

Axes: B rows, T positions, D model, V vocabulary.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import flax.linen as nn

from eijax.learning import vocabulary
from eijax.learning.losses import LossFn, LossTerms, TokenScores, token_scores
from eijax.learning.packing import PackedBatch
from eijax.policy.attention import context_mesh, mesh_axes

ScoreFn = Callable[[Any, PackedBatch], TokenScores]


@dataclasses.dataclass(frozen=True, eq=False)
class ChunkedScores:
  """A ScoreFn that visits the vocabulary in chunks, see `vocabulary`; of a loss, it gives the terms and gradients in one visit."""

  policy: nn.Module
  temperature: float
  chunk_length: int
  wide: bool

  def __call__(self, params: Any, batch: PackedBatch) -> TokenScores:
    hidden, table, how = self._visit(params, batch)
    return TokenScores(*vocabulary.score(hidden, table, batch.targets, batch.loss_mask, how))

  def loss_terms(self, loss_fn: LossFn, params: Any, batch: PackedBatch) -> LossTerms:
    hidden, table, how = self._visit(params, batch)
    return vocabulary.loss_terms(hidden, table, batch, loss_fn, how)

  def _visit(self, params, batch):
    variables = {'params': params}
    hidden = self.policy.apply(variables, batch.tokens, batch.positions, batch.segment_ids, method='hidden')
    table = self.policy.apply(variables, method='output_table')
    how = vocabulary.Scoring(
        temperature=self.temperature, chunk=self.chunk_length, wide=self.wide, vocab_size=table.shape[0], split=_split())
    return nn.with_logical_constraint(hidden, ('batch', 'sequence', None)), table, how


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
  if chunk_length:
    return ChunkedScores(policy, temperature, chunk_length, gradient_dtype == 'float32')

  def score_fn(params, batch: PackedBatch) -> TokenScores:
    variables = {'params': params}
    hidden = policy.apply(variables, batch.tokens, batch.positions, batch.segment_ids, method='hidden')
    logits = policy.apply(variables, hidden, method='logits')
    return token_scores(logits, batch.targets, batch.loss_mask, temperature=temperature)

  return score_fn


def loss_terms(score_fn: ScoreFn, loss_fn: LossFn, params: Any, batch: PackedBatch) -> LossTerms:
  """loss_fn of the scores, to be differentiated in its loss_sum."""
  if isinstance(score_fn, ChunkedScores):
    return score_fn.loss_terms(loss_fn, params, batch)
  return loss_fn(score_fn(params, batch), batch)


def _split() -> vocabulary.Split:
  """The axes of the mesh in context, by the rules in force."""
  mesh = context_mesh()
  if mesh is None:
    return vocabulary.Split()
  return vocabulary.Split(mesh=mesh, vocab=mesh_axes('vocab'), columns=mesh_axes('embed'), rows=mesh_axes('batch'),
                          positions=mesh_axes('sequence'))
