"""Demonstrations for the first words of a policy: talks of mixed quality.

Scripted defenders, good ones and bad ones, hold talks with the embedded user on
training situations. A policy that imitates the mixture can speak and has everything
to learn. Held-out situations are never used.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import random

from eijax.episodes.state import Episode
from eijax.episodes.views import house_rules, policy_messages
from eijax.scenarios.order import step_scenarios
from eijax.scenarios.record import Scenario
from eijax.scripted.defenders import ScriptedDefender, get
from eijax.scripted.play import play
from eijax.seeds import derive_seed
from eijax.simulator.embedded import EmbeddedSimulator
from eijax.text.contexts import Demonstration, TalkContext
from eijax.text.ports import ChatFormat

# Shares of the styles in the mixture. Good replies are the smaller part, so that
# the warm policy starts as a poor partner that has seen better.
STYLES: Mapping[str, float] = {
    'skilled_sheet': 0.07, 'decent': 0.14, 'polite_generic': 0.14, 'over_apologiser': 0.15, 'lecturer': 0.14,
    'list_maker': 0.12, 'yielder': 0.11, 'hostile': 0.10, 'silent': 0.02, 'fact_bag': 0.01,
}


def mixed_defender(styles: Mapping[str, float] = STYLES) -> ScriptedDefender:
  """A defender that draws a style for every line."""
  defenders = [get(name) for name in styles]
  shares = list(styles.values())

  def reply(episode: Episode, rng: random.Random) -> str:
    return rng.choices(defenders, shares)[0].reply(episode, rng)

  return ScriptedDefender(name='mixed', about='every line in another style', reply_fn=reply)


def played_talks(scenarios: Sequence[Scenario], *, num_talks: int, max_rounds: int, seed: int) -> list[Episode]:
  """Talks of the mixed defender, scenes in turn, in an order by seed; a pure function of the arguments."""
  simulator, defender = EmbeddedSimulator(seed), mixed_defender()
  return [
      play(scenario, defender, simulator.answer, seed=derive_seed('warm-up', seed, i),
           max_rounds=max_rounds)
      for i, scenario in enumerate(step_scenarios(scenarios, 0, num_talks, seed))
  ]


def tokenizer_lines(scenarios: Sequence[Scenario], talks: Sequence[Episode]) -> list[str]:
  """Lines to train a tokenizer on: sheets and talks, each as often as a policy meets it."""
  lines = []
  for scenario in scenarios:
    lines += scenario.defender_prompt.splitlines() + scenario.aggressor_prompt.splitlines()
    lines.append(house_rules(scenario.language, False))
  for talk in talks:
    for turn in talk.turns:
      lines += [turn.reply.visible, turn.simulator]
  return [line for line in lines if line.strip()]


def demonstrations(
    talk: Episode, chat_format: ChatFormat, max_tokens: int, *, lead_in: int | None = None,
) -> list[Demonstration]:
  """The turns of one talk, each with its own prompt, as a rollout would have built them.

  Args:
    lead_in: id of a token. Of a reply that holds it, only what follows its first occurrence is to be imitated; the
      words before it belong to the prompt: the demonstration teaches how to go on from them, not to begin so.
  """
  context, result = TalkContext(chat_format), []
  for number, turn in enumerate(talk.turns):
    before = dataclasses.replace(talk, turns=talk.turns[:number])
    prompt = context.prompt(policy_messages(before, thinking=False), max_tokens)
    response = chat_format.response(turn.reply.raw)
    context.record(response)
    start = response.index(lead_in) + 1 if lead_in in response else 0
    result.append(Demonstration(prompt_ids=prompt + response[:start], response_ids=response[start:]))
  return result
