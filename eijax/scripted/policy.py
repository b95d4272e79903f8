"""A scripted defender as a side of a talk: chat messages in, its next line out.

It sees what an endpoint would see. The scenario behind the messages is found by the
defender's sheet, so that the same script can also stand behind HTTP.
"""

import concurrent.futures
import random
from collections.abc import Mapping, Sequence

from eijax.episodes import protocol
from eijax.episodes.state import Episode, SimulatorAnswer
from eijax.episodes.strip_think import strip_think
from eijax.episodes.views import house_rules
from eijax.errors import UsageError
from eijax.rollouts.ports import PolicyReply, ReplyRequest
from eijax.scenarios.record import Scenario
from eijax.scripted import defenders


class UnknownTalkError(UsageError):
  """Messages that do not belong to any of the scenarios."""


class Script:
  """One scripted defender over known scenarios; thread-safe, without state of its own.

  Args:
    name: of a scripted defender.
    scenarios: the talks that it can take part in.
  Raises:
    UsageError: no such defender.
  """

  def __init__(self, name: str, scenarios: Sequence[Scenario]):
    try:
      self._defender = defenders.get(name)
    except ValueError as error:
      raise UsageError(str(error)) from None
    self._by_sheet: dict[str, list[Scenario]] = {}
    for scenario in scenarios:
      self._by_sheet.setdefault(scenario.defender_prompt, []).append(scenario)

  def answer(self, messages: Sequence[Mapping[str, object]], seed: int | None) -> str:
    """The next line in the talk that the messages tell of; a pure function of both arguments.

    Raises:
      UnknownTalkError: the messages are not those of one of the scenarios.
    """
    return self._defender.reply(self._episode(messages), random.Random(f'{seed}|{self._defender.name}'))

  def _episode(self, messages: Sequence[Mapping[str, object]]) -> Episode:
    """The talk as far as a defender can know it: what was said. Its levels are not known, and stay."""
    texts = [(message.get('role'), message.get('content')) for message in messages]
    if not texts or texts[0][0] != 'system' or not all(isinstance(text, str) for _, text in texts):
      raise UnknownTalkError('messages must begin with a system message and hold text only; send those of eijax.episodes.views')
    scenario = self._scenario(texts)
    own = [number for number, (role, _) in enumerate(texts) if role == 'assistant']
    episode = protocol.start(scenario, max_rounds=len(own) + 1, seed=0)
    for number in own:
      said = texts[number + 1][1] if number + 1 < len(texts) else ''
      answer = SimulatorAnswer(reply=said, anger_delta=0, trust_delta=0)
      episode = protocol.advance(episode, strip_think(texts[number][1]), answer)
    return episode

  def _scenario(self, texts: Sequence[tuple[object, str]]) -> Scenario:
    system = texts[0][1]
    opening = texts[1][1] if len(texts) > 1 and texts[1][0] == 'user' else None
    # The house rules follow the sheet, and depend on settings of the other side.
    endings = ['\n\n' + house_rules(language, thinking) for language in ('en', 'zh') for thinking in (False, True)]
    sheets = [system.removesuffix(ending) for ending in endings if system.endswith(ending)] or [system]
    found = [scenario for sheet in sheets for scenario in self._by_sheet.get(sheet, ())]
    if not found:
      raise UnknownTalkError(
          f'the system message ({system[:60]!r}...) is the sheet of none of the scenarios; give the scenarios that are played')
    # Scenarios may share a sheet; the first line then tells them apart. One that the defender
    # opens begins with its own line, or with the placeholder that endpoints get.
    return next(
        (scenario for first in (opening, None) for scenario in found if scenario.opening_line == first), found[0])


class ScriptedPolicy:
  """Fills the Policy port with a script, in this process."""

  def __init__(self, script: Script):
    self._script = script

  def submit(self, requests: Sequence[ReplyRequest]) -> 'list[concurrent.futures.Future[PolicyReply]]':
    futures = []
    for request in requests:
      future: concurrent.futures.Future[PolicyReply] = concurrent.futures.Future()
      future.set_result(PolicyReply(text=self._script.answer(request.messages, request.seed)))
      futures.append(future)
    return futures
