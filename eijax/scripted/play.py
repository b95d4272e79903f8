"""Play a scripted defender against a simulator, in this thread."""

import random
from collections.abc import Callable

from eijax.episodes import protocol
from eijax.episodes.state import Episode
from eijax.episodes.strip_think import strip_think
from eijax.scenarios.record import Scenario
from eijax.scripted.defenders import ScriptedDefender
from eijax.simulator import prompts
from eijax.simulator.answers import parse_answer

# Takes (messages, seed) and returns the simulator's answer as text.
Answer = Callable[[list[dict[str, str]], int], str]


def play(
  scenario: Scenario, defender: ScriptedDefender, answer: Answer, *, seed: int, max_rounds: int = 8
) -> Episode:
  """Return the finished talk; a pure function of its arguments where `answer` is one."""
  episode = protocol.start(scenario, max_rounds=max_rounds, seed=seed)
  rng = random.Random(f'{seed}|{scenario.id}|{defender.name}')
  while episode.ended_by is None:
    reply = strip_think(defender.reply(episode, rng))
    text = answer(prompts.render(episode, reply), seed * 1000 + len(episode.turns))
    episode = protocol.advance(episode, reply, parse_answer(text))
  return episode
