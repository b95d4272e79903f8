"""The loss on held-out conversations."""

import math
from collections.abc import Sequence

from eijax import jsonl
from eijax.learning.packing import PackingConfig
from eijax.learning.supervised import SupervisedLearner
from eijax.sft.epochs import plan_epoch
from eijax.sft.examples import Examples
from eijax.training.run_folder import RunFolder

SUMMARY = 'summary.json'
# exp of more is no float.
_LARGEST_EXPONENT = 700.0


class HeldOut:
  """Measures a policy on the same conversations each time, and writes down what came of it.

  Args:
    examples: held out; None for nothing.
    multiple: see `plan_epoch`.
  """

  def __init__(self, examples: Examples | None, learner: SupervisedLearner, packing: PackingConfig, run: RunFolder, multiple: int):
    self._examples, self._learner, self._run = examples, learner, run
    self._planned: Sequence = ()
    if examples is not None:
      self._planned = plan_epoch(examples.segments, packing, epoch=0, seed=0, multiple=multiple, purpose='held-out')

  def measure(self, params, step: int) -> dict[str, float] | None:
    """Loss in nats per assistant token, and perplexity, of the policy after `step` updates; None without conversations."""
    if self._examples is None:
      return None
    loss, num_tokens = self._learner.measure(params, (batch.fill(self._examples.segments) for batch in self._planned))
    found = {'loss': loss, 'perplexity': math.exp(min(loss, _LARGEST_EXPONENT))}
    jsonl.write_json(self._run.eval_folder(step) / SUMMARY, {
        'step': step, **found, 'num_tokens': num_tokens, 'num_conversations': self._examples.conversations})
    return found
