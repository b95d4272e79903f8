"""Demonstrations and exercises: reproducible, from training situations only, as a rollout would have built them."""

import collections
from concurrent.futures import Future
import pathlib
import random
import re
import types

import pytest

from eijax.rollouts.ports import EpisodeJob
from eijax.rollouts.runner import run_rollouts
from eijax.rollouts.token_policy import TokenPolicy
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES
from eijax.scripted import sheet_facts
from eijax.simulator.answers import parse_answer
from eijax.simulator.embedded import EmbeddedSimulator
from eijax.simulator import prompts
from eijax.text.chat_format import ChatFormat
from eijax.text.tokenizer import train_tokenizer
from eijax.warmup.corpus import STYLES, demonstrations, mixed_defender, played_talks, tokenizer_lines
from eijax.warmup.exercises import NUM_FACTS, NUM_TURNS, exercises

DATA = pathlib.Path(__file__).parent.parent / 'scenario_data'
# Parts of both splits that have all scenes, in a fraction of the time.
TRAIN, HELD_OUT = load_split(DATA, 'train')[::20], load_split(DATA, 'test')[::5]
MAX_ROUNDS, MAX_TOKENS, SEED = 5, 4000, 0


@pytest.fixture(scope='module')
def talks():
  return played_talks(TRAIN, num_talks=len(TRAIN), max_rounds=MAX_ROUNDS, seed=SEED)


@pytest.fixture(scope='module')
def drills(talks):
  return exercises(TRAIN, talks, num=120, seed=SEED)


@pytest.fixture(scope='module')
def chat(talks):
  return ChatFormat(train_tokenizer(tokenizer_lines(TRAIN, talks), 1024))


def words(text):
  return re.findall(r"[\w'’-]+", text.lower())


def runs(texts, length):
  """All runs of `length` consecutive words."""
  return {tuple(own[i:i + length]) for own in map(words, texts) for i in range(len(own) - length + 1)}


def sheets(scenarios):
  return [text for s in scenarios for text in (s.defender_prompt, s.aggressor_prompt, s.opening_line or '')]


def said(episodes):
  return [text for talk in episodes for turn in talk.turns for text in (turn.reply.raw, turn.simulator)]


def test_same_seed_same_talks(talks, drills):
  assert played_talks(TRAIN, num_talks=8, max_rounds=MAX_ROUNDS, seed=SEED) == talks[:8]
  assert exercises(TRAIN, talks, num=8, seed=SEED) == drills[:8]
  assert played_talks(TRAIN, num_talks=8, max_rounds=MAX_ROUNDS, seed=SEED + 1) != talks[:8]
  assert exercises(TRAIN, talks, num=8, seed=SEED + 1) != drills[:8]
  assert tokenizer_lines(TRAIN, talks) == tokenizer_lines(TRAIN, talks)


def test_every_scene_is_met_and_every_talk_ends(talks):
  assert {talk.scenario.scene for talk in talks} == set(SCENES)
  assert {talk.scenario.id for talk in talks} == {scenario.id for scenario in TRAIN}
  # However few talks there are, no scene is left out.
  few = played_talks(TRAIN, num_talks=8, max_rounds=1, seed=SEED)
  assert collections.Counter(talk.scenario.scene for talk in few) == dict.fromkeys(SCENES, 2)
  assert all(talk.turns and talk.ended_by in ('simulator_stop', 'max_rounds') for talk in talks)


def test_styles_are_a_mixture():
  assert sum(STYLES.values()) == pytest.approx(1.0)  # Shares, written with two digits.
  talk = played_talks(TRAIN, num_talks=1, max_rounds=1, seed=SEED)[0]
  replies = {mixed_defender().reply(talk, random.Random(seed)) for seed in range(60)}
  assert len(replies) > 30  # One defender alone has a handful of lines for one moment.


def test_nothing_of_a_held_out_sheet_is_shown(talks, drills):
  """No run of seven words; shorter ones are common speech ("say so in front of the")."""
  shown = sheets(TRAIN) + [drill.scenario.defender_prompt for drill in drills]
  shown += said(talks) + said(drills) + tokenizer_lines(TRAIN, talks)
  shared = runs(sheets(TRAIN), 7)  # Headings and house phrases, which all sheets have.
  held_out = runs(sheets(HELD_OUT), 7) - shared
  assert len(held_out) > 10_000 and not held_out & runs(shown, 7)
  assert {talk.scenario.id for talk in talks + drills} <= {scenario.id for scenario in TRAIN}


class ReplaySampler:
  """Answers with the demonstrated responses, and keeps the prompts it was given."""

  max_prompt_tokens = MAX_TOKENS

  def __init__(self, responses):
    self.prompts, self._responses = [], iter(responses)

  def submit(self, requests):
    self.prompts += [list(ids) for ids, _, _ in requests]
    return [done(types.SimpleNamespace(response_ids=next(self._responses), truncated=False)) for _ in requests]


class ReplaySimulator:
  """The embedded user with the seeds of `play`, so that a talk goes as it went."""

  def submit(self, episode, reply):
    text = EmbeddedSimulator(SEED).answer(prompts.render(episode, reply), episode.seed * 1000 + len(episode.turns))
    return done(parse_answer(text))


def done(value):
  future = Future()
  future.set_result(value)
  return future


def test_demonstrations_are_what_a_rollout_would_have_built(talks, chat):
  one_a_scene = list({talk.scenario.scene: talk for talk in reversed(talks)}.values())
  assert len(one_a_scene) == len(SCENES)
  for talk in one_a_scene:
    built = demonstrations(talk, chat, MAX_TOKENS)
    sampler = ReplaySampler([turn.response_ids for turn in built])
    rollout, = run_rollouts(
        [EpisodeJob(scenario=talk.scenario, seed=talk.seed, key='a')], TokenPolicy(chat, sampler), ReplaySimulator(),
        max_rounds=MAX_ROUNDS, thinking=False)
    assert sampler.prompts == [turn.prompt_ids for turn in built]
    assert [turn.simulator for turn in rollout.episode.turns] == [turn.simulator for turn in talk.turns]
    assert [chat.decode(turn.response_ids) for turn in built] == [turn.reply.raw for turn in talk.turns]
    assert all(turn.response_ids[-1:] == list(chat.stop_ids) for turn in built)


def test_demonstrations_keep_to_the_context(talks, chat):
  full = demonstrations(talks[0], chat, MAX_TOKENS)
  limit = len(full[0].prompt_ids) + 40
  cut = demonstrations(talks[0], chat, limit)
  assert len(full[-1].prompt_ids) > limit
  assert max(len(turn.prompt_ids) for turn in cut) <= limit
  assert [turn.response_ids for turn in cut] == [turn.response_ids for turn in full]


def test_tokenizer_lines_are_what_a_policy_meets(talks):
  lines = tokenizer_lines(TRAIN, talks)
  assert all(line.strip() for line in lines)
  assert {turn.reply.visible for talk in talks for turn in talk.turns} <= set(lines)
  assert {line for s in TRAIN for line in s.defender_prompt.splitlines() if line.strip()} <= set(lines)


def longest_run(text, fact):
  """Consecutive words that the two share."""
  return max(length for length in range(len(words(fact)) + 1) if not length or runs([text], length) & runs([fact], length))


def test_exercises_speak_the_rewritten_facts(drills):
  known = {fact for scenario in TRAIN for fact in sheet_facts.bullets(scenario.defender_prompt)}
  spoken, rewritten, num_turns = [], 0, 0
  for drill in drills:
    facts = sheet_facts.bullets(drill.scenario.defender_prompt)
    assert len(facts) == NUM_FACTS and len(drill.turns) == NUM_TURNS
    rewritten += len(set(facts) - known)
    for turn in drill.turns:
      # A fact is turned to the listener ("your", "you"), so a part of it is verbatim.
      best = max(facts, key=lambda fact: longest_run(turn.reply.raw, fact))
      num_turns += 1
      if longest_run(turn.reply.raw, best) >= 4:
        spoken.append((drill.seed, best))
  assert len(spoken) > 0.95 * num_turns  # The rest takes up what the user said.
  assert rewritten > 0.95 * NUM_FACTS * len(drills)  # A few short facts may come out as they went in.
  assert len(set(spoken)) > 2 * len(drills)  # Not always the same fact of a sheet.


def test_exercises_start_at_the_users_levels(drills):
  for drill in drills:
    anchors = drill.scenario.anchors
    assert (drill.state.anger, drill.state.trust) == (anchors.initial_anger, anchors.initial_trust)


def test_words_that_lead_in_are_not_imitated(drills, chat):
  dash = chat.response('This - that')
  lead_in = dash[next(i for i, index in enumerate(dash) if chat.decode([index]).strip() == '-')]
  num_cut = 0
  for talk in drills[:20]:
    whole, cut = (demonstrations(talk, chat, MAX_TOKENS, lead_in=token) for token in (None, lead_in))
    for one, other in zip(whole, cut, strict=True):
      assert one.prompt_ids + one.response_ids == other.prompt_ids + other.response_ids
      if lead_in in one.response_ids:
        num_cut += 1
        assert other.prompt_ids[-1] == lead_in and other.prompt_ids[len(one.prompt_ids):].count(lead_in) == 1
      else:
        assert other == one
  assert num_cut > 20
