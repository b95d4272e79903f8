"""The loss on held-out conversations."""

from collections.abc import Iterator, Sequence
import math

from eijax import jsonl
from eijax.learning.packing import PackedBatch, PackingConfig
from eijax.learning.supervised import SupervisedLearner
from eijax.sft.epochs import plan_epoch
from eijax.sft.examples import Examples
from eijax.training.peers import Peers
from eijax.training.preemption import Preemption
from eijax.training.run_folder import RunFolder

SUMMARY = 'summary.json'
# exp of more is no float.
_LARGEST_EXPONENT = 700.0


class HeldOut:
  """Measures a policy on the same conversations each time, and writes down what came of it.

  Args:
    examples: held out; None for nothing.
    multiple: see `plan_epoch`.
    peers: measure together; process 0 writes.
    preemption: ends a measurement between two batches.
  """

  def __init__(
      self, examples: Examples | None, learner: SupervisedLearner, packing: PackingConfig, run: RunFolder, multiple: int, peers: Peers,
      preemption: Preemption,
  ):
    self._examples, self._learner, self._run = examples, learner, run
    self._peers, self._preemption = peers, preemption
    self._planned: Sequence = ()
    if examples is not None:
      self._planned = plan_epoch(examples.segments, packing, epoch=0, seed=0, multiple=multiple, purpose='held-out')

  def known(self, step: int) -> dict[str, float] | None:
    """What an earlier process has found of the policy after `step` updates, if it was done."""
    path = self._run.eval_folder(step) / SUMMARY
    with self._peers.together(self._preemption):
      summary = self._peers.exchange(jsonl.read_json(path) if path.exists() else None)[0]
    return None if summary is None else {name: summary[name] for name in ('loss', 'perplexity')}

  def measure(self, params, step: int) -> dict[str, float] | None:
    """Loss in nats per assistant token, and perplexity, of the policy after `step` updates; None without conversations.

    Raises:
      Notice: SIGTERM has come to a process.
    """
    if self._examples is None:
      return None
    with self._preemption.held():
      loss, num_tokens = self._learner.measure(params, self._batches())
    found = {'loss': loss, 'perplexity': math.exp(min(loss, _LARGEST_EXPONENT))}
    if self._peers.is_first:
      jsonl.write_json(self._run.eval_folder(step) / SUMMARY, {
          'step': step, **found, 'num_tokens': num_tokens, 'num_conversations': self._examples.conversations})
    return found

  def _batches(self) -> Iterator[PackedBatch]:
    for batch in self._planned:
      with self._peers.together(self._preemption):
        filled = batch.fill(self._examples.segments)
      yield filled
