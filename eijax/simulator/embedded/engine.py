"""The embedded simulator: messages in, the JSON text of a hosted LLM out.

A rule-based stand-in for an LLM that makes the system runnable, testable and
comparable offline. It is no measure of a real model.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence

from eijax.simulator.embedded import appraise, speech
from eijax.simulator.prompts import ParsedRequest, parse

_NEED = {
  'support': 'to be seen in the one thing that hurts',
  'defense': 'to get my way, or to leave without losing face',
  'repair': 'to hear that they know what they did, and that it costs them something',
  'charm': 'to not be bored or courted',
}


class EmbeddedSimulator:
  """Answers simulator requests deterministically; stateless apart from its seed."""

  def __init__(self, seed: int = 0):
    self._seed = seed

  def answer(self, messages: Sequence[Mapping[str, object]], seed: int | None = None) -> str:
    """Return the answer to one request as JSON text.

    Args:
      messages: what eijax.simulator.prompts renders.
      seed: the request's own seed, if any; it moves only noise and wording.
    Raises:
      PromptError: the messages were not made by our prompts.
    """
    return json.dumps(self.react(parse(messages), seed), ensure_ascii=False)

  def react(self, request: ParsedRequest, seed: int | None = None) -> dict[str, object]:
    """Return the answer to a parsed request as a JSON-ready object."""
    seed_text = f'{self._seed}|{seed}|{_digest(request)}'
    judgement = appraise.judge(request, seed_text)
    anger = max(0, min(100, request.anger + judgement.anger_delta))
    trust = max(0, min(100, request.trust + judgement.trust_delta))
    return {
      'reflection': _reflection(request, judgement, anger, trust),
      'anger_delta': judgement.anger_delta,
      'trust_delta': judgement.trust_delta,
      'reply': speech.speak(request, judgement, trust, seed_text),
      'continue': 'no' if judgement.stop else 'yes',
      'stop_reason': judgement.stop_reason,
    }


def _digest(request: ParsedRequest) -> str:
  """Hash what distinguishes one request from another, so that noise differs between talks."""
  said = '\x1f'.join(
    f'{entry.speaker}{entry.text}' for entry in request.history if entry.speaker != 'private'
  )
  text = f'{request.persona}\x1f{request.round}\x1f{request.anger}\x1f{request.trust}\x1f{said}\x1f{request.last_line}'
  return hashlib.blake2b(text.encode('utf-8', 'surrogatepass'), digest_size=8).hexdigest()


def _reflection(request: ParsedRequest, judgement, anger: int, trust: int) -> dict[str, str]:
  """The five private steps, and the rule and tier for statistics."""
  credit = judgement.credit
  touched = [item.text for item in judgement.sheet.items if item.key in credit.used]
  costs = ', '.join(name for name, _, _ in credit.costs)
  quality = f'touched: {"; ".join(touched)}' if touched else 'touched nothing of mine'
  if costs:
    quality += f'; cost: {costs}'
  kept = sum(not entry.flat for entry in judgement.credits)
  if credit.repeats:
    inertia = f'the same again, {credit.repeats + 1} times now'
  else:
    inertia = f'new wording; {kept} of {len(judgement.credits)} rounds moved me'
  return {
    'core_need': _NEED[request.scene],
    'reply_quality': quality,
    'inertia_check': inertia,
    'decision': f'{judgement.tier} step, anger {judgement.anger_delta:+d}, trust {judgement.trust_delta:+d}',
    'tone': f'anger {anger}, trust {trust}, round {request.round} of {request.max_rounds}',
    'rule': judgement.rule,
    'tier': judgement.tier,
  }
