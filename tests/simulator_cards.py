"""Four small hand-written scenarios and a talk driver for the tests of the simulator."""

import dataclasses
import functools
import json

from eijax.episodes import protocol
from eijax.episodes.state import EmotionState, Episode, Reply
from eijax.scenarios.record import Anchors, Appraisal, Cue, Scenario
from eijax.simulator import prompts
from eijax.simulator.answers import parse_answer
from eijax.simulator.embedded import EmbeddedSimulator


def cue(text: str, *cues: str) -> Cue:
  return Cue(text=text, cues=cues)


def scenario(
  scene: str,
  persona: str,
  opening: str | None,
  defender: str,
  appraisal: Appraisal | None,
  **levels: int,
) -> Scenario:
  anchors = Anchors(
    **{
      **dict(
        initial_anger=55,
        initial_trust=35,
        target_anger=25,
        target_trust=70,
        worst_anger=85,
        worst_trust=5,
      ),
      **levels,
    }
  )
  return Scenario(
    id=f'{scene}-card',
    title='A card',
    scene=scene,
    data_source='test',
    aggressor_prompt=persona,
    opening_line=opening,
    defender_prompt=defender,
    goal='',
    success_criteria=(),
    must_avoid=(),
    anchors=anchors,
    appraisal=appraisal,
  )


SUPPORT = scenario(
  'support',
  "### Background\nYou are Nadia, 41, a cook. Your father has Parkinson's and lives with you.\n### Known facts\n"
  '- You turned down the head chef post in March.\n- Your brother sends 200 a month and a thumbs-up.\n- The respite place was cancelled twice.\n'
  '- Tonight you shouted at your father over a spilled glass.\n- He apologised to you and cried.\n- You sit on the bathroom floor, the only room with a lock.\n'
  '### Purpose\nYou want to hear that shouting does not make you a bad daughter.',
  'I yelled at my dad tonight. He said sorry. He said sorry to me.',
  '### Background\nYou are an old friend.\n### Known facts\n- Your last message three weeks ago stayed unanswered.\n- Her father danced at the wedding.',
  Appraisal(
    facts=(
      cue('he said sorry to her', 'said sorry', 'father apologised', 'he apologised'),
      cue('the bathroom floor', 'bathroom floor', 'locked bathroom', 'bathroom'),
      cue('the brother and his thumb', 'thumbs-up', 'brother sends', 'brother 200'),
      cue('the post in March', 'head chef', 'turned down post'),
      cue('respite cancelled', 'respite cancelled', 'respite place'),
      cue('the spilled glass', 'spilled glass', 'glass'),
    ),
    needs=(
      cue('not a bad daughter', 'not bad daughter', "doesn't make bad daughter"),
      cue('allowed to be tired of someone she loves', 'tired love both', 'tired and love'),
    ),
    soothes=(
      cue('asking what he looked like', 'looked cried', 'face cried'),
      cue('staying with the locked door', 'stay line', 'behind door', 'stay with you'),
    ),
    inflames=(
      cue('a care home', 'care home'),
      cue('he does not mean it', "doesn't mean"),
      cue('so strong', 'so strong'),
    ),
  ),
)

DEFENSE = scenario(
  'defense',
  '### Background\nYou are Mr Brandt, 60, a landlord. The tenant moves out today.\n### Known facts\n- The ceiling stain is on the hand-over form as new damage, 640.\n'
  '- The tenant mailed photos of it on 3 May; your office answered "noted".\n- You have another viewing in twenty minutes.\n- You have been fair for two years.\n'
  '- Your nephew waits on the stairs.\n### Purpose\nYou do not want to pay the roofer yourself, nor look small before your nephew.',
  'Just sign the form for the ceiling stain, 640, and we are done here.',
  '### Background\nYou are the tenant.\n### Known facts\n- You mailed photos of the stain on 3 May.\n- Keys and all else can be settled today.',
  Appraisal(
    facts=(
      cue('photos on 3 May', 'photos may', 'stain may', '3 may'),
      cue('the office noted it', 'office noted', 'answered noted'),
      cue('another viewing', 'viewing', 'twenty minutes'),
      cue('two fair years', 'two years', 'fair years'),
      cue('the nephew', 'nephew'),
      cue('640 for the ceiling', '640', 'ceiling damage'),
    ),
    needs=(
      cue('not to pay the roofer alone', 'roofer', 'pay roof'),
      cue('not to look small', 'look small', 'save face'),
    ),
    soothes=(
      cue('recognises two fair years', 'fair two years', 'fair landlord'),
      cue('keeps it quick for the viewing', 'before viewing', 'time viewing'),
    ),
    inflames=(cue('policy', 'policy'), cue('sarcasm about the nephew', 'nephew watching')),
    boundary=cue('no signature on that line', 'sign line', 'sign form', 'sign stain'),
    holds=cue('will not sign', "won't sign", 'not sign', 'cannot sign'),
    yields=cue('signs or pays', "i'll sign", 'i sign', "i'll pay", 'pay 640', 'give cash'),
    way_out=cue(
      "photos to the tenants' office by Friday, keys today",
      'keys today',
      'photos friday',
      'tenants office',
      'hand keys',
    ),
  ),
)

REPAIR = scenario(
  'repair',
  "### Background\nYou are Tomas, 35, a joiner. Ines sold your father's plane at the market.\n### Known facts\n- The plane was your father's, walnut, with his initials.\n"
  '- Ines sold it on Saturday at the flea market for forty.\n- She told you that it was lost in the move.\n- You searched the cellar for two nights.\n- The buyer runs the stall by the bridge.\n'
  '### Purpose\nYou want to hear that she knew what it was to you.',
  'You told me it was lost in the move. I searched the cellar for two nights.',
  '### Background\nYou are Ines.\n### Known facts\n- You sold the plane on Saturday for forty.',
  Appraisal(
    facts=(
      cue('the walnut plane', 'walnut plane', 'walnut'),
      cue('the initials', 'initials'),
      cue('sold on Saturday for forty', 'sold saturday', 'saturday forty', 'sold forty'),
      cue('the cellar, two nights', 'cellar', 'two nights'),
      cue('the stall by the bridge', 'stall bridge', 'bridge'),
      cue('lost in the move', 'lost move'),
    ),
    needs=(
      cue('that she knew what it was to him', 'knew father', 'knew meant', 'last father'),
      cue('no more stories', 'truth even when', 'no more stories'),
    ),
    soothes=(
      cue('asks what the father built with it', 'father built', 'built with'),
      cue('admits the lie', 'lied', 'lie'),
    ),
    inflames=(
      cue('it was old', 'old thing', 'just a tool'),
      cue('a new one', 'new one', 'buy another'),
    ),
    act=cue('she sold the plane and lied', 'sold plane', 'sold your', 'lied'),
    effect=cue(
      'he searched for two nights for what was gone', 'searched cellar', 'two nights', 'searched'
    ),
    amends=cue(
      'buys it back at the bridge on Saturday',
      'buy back',
      'stall saturday',
      'bridge saturday',
      'bring back',
    ),
  ),
)

CHARM = scenario(
  'charm',
  '### Background\nYou are Lotte, 52, and you mend umbrellas in a kiosk.\n### Known facts\n- The green umbrella on the hook has waited eleven years for its owner.\n- You test every spoke by its sound.\n'
  '- Nobody buys the yellow ones.\n- A sign says "no advice about the weather".\n- The kiosk was a ticket booth once.\n### Purpose\nYou want somebody to look at the work.',
  None,
  '### Background\nYou wait for the tram at her kiosk.\n### Known facts\n- The sign says no advice about the weather.',
  Appraisal(
    facts=(
      cue('the green umbrella on the hook', 'green umbrella', 'eleven years'),
      cue('spokes tested by sound', 'spoke sound', 'spokes', 'hear spoke'),
      cue('the yellow ones', 'yellow umbrella', 'yellow ones'),
      cue('the sign', 'sign weather', 'advice weather'),
      cue('the ticket booth', 'ticket booth'),
    ),
    needs=(cue('that the work is worth it', 'worth mending', 'better than new'),),
    soothes=(
      cue('an opinion about umbrellas', 'umbrellas lie', 'umbrella betrays', 'hate umbrellas'),
      cue('asks about the owner', 'owner come', 'who left'),
    ),
    inflames=(cue('cute', 'cute', 'charming little'),),
  ),
  initial_anger=35,
  initial_trust=25,
  target_anger=15,
  target_trust=60,
  worst_anger=60,
  worst_trust=10,
)

CARDS = {'support': SUPPORT, 'defense': DEFENSE, 'repair': REPAIR, 'charm': CHARM}

# One good line of a person for each card.
GOOD = {
  'support': 'He said sorry to you, and that is what hurts. How did his face look when he cried?',
  'defense': 'I will not sign that line. You have my photos of 3 May, and I can hand you the keys today.',
  'repair': 'I sold the plane on Saturday and lied to you. You searched for two nights because of me.',
  'charm': 'I hate umbrellas, they leave me. But that green umbrella has patience, I think.',
}


def reply(text: str) -> Reply:
  return Reply(raw=text, visible=text or '...', thought='', has_thought=False, malformed=False)


@functools.cache
def simulator() -> EmbeddedSimulator:
  return EmbeddedSimulator(0)


def react(episode: Episode, text: str, seed: int = 0) -> dict:
  """Return the simulator's JSON answer to `text`, without advancing the talk."""
  return json.loads(simulator().answer(prompts.render(episode, reply(text)), seed))


def talk(card: Scenario, lines, *, seed: int = 0, max_rounds: int = 8, **state: int) -> Episode:
  """Play lines until they or the talk end; `state` overrides the start levels."""
  episode = protocol.start(card, max_rounds=max_rounds, seed=seed)
  if state:
    episode = dataclasses.replace(
      episode,
      state=EmotionState(**{'anger': episode.state.anger, 'trust': episode.state.trust, **state}),
    )
  for text in lines:
    if episode.ended_by is not None:
      break
    answer = simulator().answer(prompts.render(episode, reply(text)), seed)
    episode = protocol.advance(episode, reply(text), parse_answer(answer))
  return episode


def mean_gain(card: Scenario, text: str, before=(), *, num_seeds: int = 12, **state: int) -> float:
  """Mean of trust_delta - anger_delta of one line after the lines `before`, over seeds."""
  total = 0
  for seed in range(num_seeds):
    episode = talk(card, before, seed=seed, **state)
    answer = react(episode, text, seed)
    total += answer['trust_delta'] - answer['anger_delta']
  return total / num_seeds
