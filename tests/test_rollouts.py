"""Many talks at once: order, seeds, typed failures, both schedules, over HTTP too."""

import concurrent.futures
import json
import random
import threading
import time

import pytest

from eijax.chat.client import ChatClient
from eijax.errors import SimulatorError
from eijax.rollouts.endpoint_policy import EndpointPolicy
from eijax.rollouts.ports import EpisodeJob, PolicyReply
from eijax.rollouts.runner import TalkRules, hold_talks, run_rollouts
from eijax.simulator.client import SimulatorClient
from fake_endpoint import FakeEndpoint, chat_body
from talks import make_answer, make_scenario


def done(value):
  future = concurrent.futures.Future()
  if isinstance(value, Exception):
    future.set_exception(value)
  else:
    future.set_result(value)
  return future


class ScriptedPolicy:
  """Says key, round and seed; `failures` maps (key, round) to an exception."""

  def __init__(self, failures=None, pool=None):
    self.failures, self.pool, self.batches = failures or {}, pool, []

  def submit(self, requests):
    self.batches.append(list(requests))
    return [self.pool.submit(self._slow, r) if self.pool else done(self._reply(r)) for r in requests]

  def _reply(self, r):
    return self.failures.get((r.episode_key, r.round)) or PolicyReply(
        text=f'<think>t{r.round}</think>{r.episode_key} {r.seed}', sample=(r.episode_key, r.round)
    )

  def _slow(self, r):
    time.sleep(random.random() * 0.003)
    reply = self._reply(r)
    if isinstance(reply, Exception):
      raise reply
    return reply


class ScriptedSimulator:
  """Deltas hashed from the reply; `stops` and `failures` map (scenario id, round)."""

  def __init__(self, stops=(), failures=None, pool=None):
    self.stops, self.failures, self.pool = stops, failures or {}, pool
    self.threads = set()

  def submit(self, episode, reply):
    place = (episode.scenario.id, len(episode.turns) + 1)
    if place in self.failures:
      return done(self.failures[place])
    answer = make_answer(
        -(len(reply.visible) % 5), place[1] % 3, reply=f'answer {place[1]}', stop=place in self.stops,
        stop_reason='settled' if place in self.stops else '',
    )
    return self.pool.submit(lambda: (time.sleep(random.random() * 0.003), answer)[1]) if self.pool else done(answer)


def make_jobs(num, scene='support'):
  return [EpisodeJob(scenario=make_scenario(scene, id=f's{i}'), seed=100 + i, key=f'k{i}') for i in range(num)]


@pytest.mark.parametrize('lockstep', [True, False])
def test_rollouts_come_in_job_order_with_one_sample_a_turn(lockstep):
  simulator = ScriptedSimulator(stops={('s1', 2)})
  finished = []
  rollouts = run_rollouts(
      make_jobs(4), ScriptedPolicy(), simulator, max_rounds=3, thinking=True, lockstep=lockstep,
      on_finish=lambda rollout: finished.append(rollout.job.key),
  )
  assert [r.job.key for r in rollouts] == ['k0', 'k1', 'k2', 'k3']
  assert [len(r.episode.turns) for r in rollouts] == [3, 2, 3, 3]
  assert [r.episode.ended_by for r in rollouts] == ['max_rounds', 'simulator_stop', 'max_rounds', 'max_rounds']
  assert rollouts[1].episode.stop_reason == 'settled'
  assert rollouts[2].samples == (('k2', 1), ('k2', 2), ('k2', 3))
  assert finished[0] == 'k1' and sorted(finished) == ['k0', 'k1', 'k2', 'k3']
  assert rollouts[0].episode.turns[0].reply.thought == 't1'


def test_lockstep_asks_for_all_open_talks_at_once():
  policy = ScriptedPolicy()
  run_rollouts(make_jobs(3), policy, ScriptedSimulator(stops={('s0', 1)}), max_rounds=3, thinking=False)
  assert [[r.episode_key for r in batch] for batch in policy.batches] == [['k0', 'k1', 'k2'], ['k1', 'k2'], ['k1', 'k2']]
  first, second = policy.batches[1][0], policy.batches[2][0]
  assert first.seed != second.seed and (first.round, second.round) == (2, 3)
  assert [m['role'] for m in second.messages] == ['system', 'user', 'assistant', 'user', 'assistant', 'user']


def test_failures_end_their_own_talk_only():
  policy = ScriptedPolicy(failures={('k1', 2): ValueError('no memory')})
  simulator = ScriptedSimulator(failures={('s2', 1): SimulatorError('http://h/v1 answered 500')})
  rollouts = run_rollouts(make_jobs(3), policy, simulator, max_rounds=2, thinking=False)
  whole, model, user = (r.episode for r in rollouts)
  assert whole.ended_by == 'max_rounds' and whole.error is None
  assert (model.ended_by, model.error, len(model.turns)) == ('model_failed', 'ValueError: no memory', 1)
  assert (user.ended_by, user.error, user.turns) == ('simulator_failed', 'http://h/v1 answered 500', ())
  assert user.state.anger == 70 and rollouts[2].samples == () and len(rollouts[1].samples) == 1


def test_both_schedules_give_the_same_talks_in_any_timing():
  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    stops = {('s3', 1), ('s5', 2)}
    failures = {('k2', 2): RuntimeError('x')}
    plain = run_rollouts(
        make_jobs(12), ScriptedPolicy(failures), ScriptedSimulator(stops), max_rounds=4, thinking=True
    )
    for lockstep in (True, False):
      main = threading.get_ident()
      threads = set()
      timed = run_rollouts(
          make_jobs(12), ScriptedPolicy(failures, pool), ScriptedSimulator(stops, pool=pool), max_rounds=4,
          thinking=True, lockstep=lockstep, on_finish=lambda _: threads.add(threading.get_ident()),
      )
      assert timed == plain and threads == {main}


def test_free_schedule_does_not_wait_for_the_slowest():
  gate = threading.Event()

  class Gated(ScriptedSimulator):
    def submit(self, episode, reply):
      if episode.scenario.id == 's0' and not episode.turns:
        return pool.submit(lambda: (gate.wait(10), make_answer())[1])
      return super().submit(episode, reply)

  def on_finish(rollout):
    if rollout.job.key == 'k1':
      gate.set()  # In lockstep the first talk would block this one for ever.

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    rollouts = run_rollouts(
        make_jobs(2), ScriptedPolicy(), Gated(), max_rounds=3, thinking=False, lockstep=False, on_finish=on_finish
    )
  assert gate.is_set() and [len(r.episode.turns) for r in rollouts] == [3, 3]


def test_no_jobs_and_doubled_keys():
  for lockstep in (True, False):
    assert run_rollouts([], ScriptedPolicy(), ScriptedSimulator(), max_rounds=1, thinking=False, lockstep=lockstep) == []
  with pytest.raises(ValueError, match="key='k0' stands twice"):
    run_rollouts(make_jobs(1) * 2, ScriptedPolicy(), ScriptedSimulator(), max_rounds=1, thinking=False)


RULES = TalkRules(max_rounds=3, thinking=False)


@pytest.mark.parametrize('lockstep', [True, False])
@pytest.mark.parametrize('max_open', [1, 3, 20])
def test_a_bound_on_open_talks_changes_none_of_them(lockstep, max_open):
  expected = {r.job.key: r for r in run_rollouts(make_jobs(8), ScriptedPolicy(), ScriptedSimulator(), max_rounds=3, thinking=False)}
  state = {'opened': 0, 'ended': 0, 'most': 0}
  finished = {}

  def jobs():
    for job in make_jobs(8):
      state['opened'] += 1
      state['most'] = max(state['most'], state['opened'] - state['ended'])
      yield job

  def on_finish(rollout):
    state['ended'] += 1
    finished[rollout.job.key] = rollout

  hold_talks(jobs(), ScriptedPolicy(), ScriptedSimulator(stops={('s1', 2)}), RULES, on_finish=on_finish, max_open=max_open, lockstep=lockstep)
  assert state['most'] == min(max_open, 8) and len(finished) == 8
  assert {key: r for key, r in finished.items() if key != 'k1'} == {key: r for key, r in expected.items() if key != 'k1'}
  assert len(finished['k1'].episode.turns) == 2


def test_a_freed_place_is_taken_at_once():
  # Two places, the first talk is slow: all others go through the second one meanwhile.
  gate = threading.Event()

  class Gated(ScriptedSimulator):
    def submit(self, episode, reply):
      if episode.scenario.id == 's0' and not episode.turns:
        return pool.submit(lambda: (gate.wait(10), make_answer())[1])
      return super().submit(episode, reply)

  ended = []

  def on_finish(rollout):
    ended.append(rollout.job.key)
    if len(ended) == 5:
      gate.set()

  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    hold_talks(make_jobs(6), ScriptedPolicy(), Gated(), RULES, on_finish=on_finish, max_open=2, lockstep=False)
  assert ended == ['k1', 'k2', 'k3', 'k4', 'k5', 'k0']


@pytest.mark.parametrize('lockstep', [True, False])
def test_a_fatal_error_ends_everything(lockstep):
  finished = []
  policy = ScriptedPolicy(failures={('k1', 2): KeyError('spent')})
  with pytest.raises(KeyError, match='spent'):
    hold_talks(make_jobs(3), policy, ScriptedSimulator(), RULES, on_finish=finished.append, lockstep=lockstep,
               is_fatal=lambda error: isinstance(error, KeyError))
  assert not finished


@pytest.mark.parametrize('lockstep', [True, False])
def test_closing_replies_are_asked_for_and_not_passed_on(lockstep):
  policy, simulator, finished = ScriptedPolicy(), ScriptedSimulator(stops={('s1', 2)}), {}
  rules = TalkRules(max_rounds=2, thinking=True, closing_reply=True)
  jobs = make_jobs(2, 'charm') + [EpisodeJob(scenario=make_scenario('support', id='s9'), seed=1, key='k9')]
  hold_talks(jobs, policy, simulator, rules, on_finish=lambda r: finished.update({r.job.key: r}), lockstep=lockstep)
  asked = sorted((request.episode_key, request.round) for batch in policy.batches for request in batch)
  assert asked == [('k0', 1), ('k0', 2), ('k0', 3), ('k1', 1), ('k1', 2), ('k9', 1), ('k9', 2)]
  closed = finished['k0']
  assert closed.episode.closing.visible.startswith('k0 ') and closed.episode.closing.thought == 't3'
  assert len(closed.episode.turns) == 2 == len(closed.samples)
  assert finished['k1'].episode.closing is None and finished['k9'].episode.closing is None


def test_charm_over_http_with_an_endpoint_as_policy():
  answer = json.dumps({'anger_delta': -1, 'trust_delta': 2, 'reply': 'Oh?', 'continue': 'yes'})
  said = iter([chat_body('Hello there.', reasoning_content='plan'), chat_body('', reasoning_content='only thought')])
  with FakeEndpoint(lambda request: next(said)) as model, FakeEndpoint(lambda request: answer) as user:
    policy = EndpointPolicy(ChatClient([model.url], 'm', concurrency=2), temperature=0.6, max_tokens=64)
    simulator = SimulatorClient(ChatClient([user.url], 'm', concurrency=2))
    (rollout,) = run_rollouts(make_jobs(1, 'charm'), policy, simulator, max_rounds=2, thinking=True)
  first, second = rollout.episode.turns
  assert (first.reply.visible, first.reply.thought) == ('Hello there.', 'plan')
  # A reply that went wholly into the reasoning channel was never spoken.
  assert (second.reply.visible, second.reply.thought) == ('...', 'only thought')
  assert [m['role'] for m in model.requests[0]['messages']] == ['system', 'user']
  assert [m['role'] for m in model.requests[1]['messages']] == ['system', 'user', 'assistant', 'user']
  assert 'speak first' not in json.dumps(user.requests)
