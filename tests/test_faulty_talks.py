"""Whole talks over an endpoint that fails every fifth time, in every known way."""

import threading

import pytest
import simulator_cards as cards

from eijax.chat import client as client_lib
from eijax.chat.client import ChatClient
from eijax.chat.recording import Recorder, Replayer
from eijax.chat.usage import UsageMeter
from eijax.evaluation.results import result_row
from eijax.rollouts.endpoint_policy import EndpointPolicy
from eijax.rollouts.ports import EpisodeJob
from eijax.rollouts.runner import run_rollouts
from eijax.simulator import faults
from eijax.simulator.client import SimulatorClient
from eijax.simulator.server import MODEL, SimulatorServer
from fake_endpoint import FakeEndpoint

NUM_TALKS = 32
LINES = ('I see. Go on.', 'I am sorry about that.', 'What happened then?', 'You should rest.', 'That is not nothing.')


@pytest.fixture(autouse=True)
def quick(monkeypatch):
  monkeypatch.setattr(client_lib, '_BASE_DELAY_SECS', 0.01)
  monkeypatch.setattr(faults, 'SILENCE_SECS', 0.05)


def speak(request):
  """A model under test: what it says depends on the talk and the seed alone."""
  scene = ('support', 'defense', 'repair', 'charm')[request['seed'] % 4]
  texts = (*LINES, cards.GOOD[scene])
  return f'<think>hm</think>{texts[request["seed"] // 4 % len(texts)]}'


def hold_talks(fault_rate, exchanges=None, url=None):
  """Rows of all talks, what the simulator's client counted, and what both sides cost."""
  scenes = list(cards.CARDS.values())
  jobs = [EpisodeJob(scenario=scenes[i % 4], seed=i, key=str(i)) for i in range(NUM_TALKS)]
  server = SimulatorServer(seed=3, fault_rate=fault_rate)
  threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
  meters = UsageMeter(), UsageMeter()
  try:
    with FakeEndpoint(speak) as endpoint, ChatClient(
        [url or endpoint.url], 'm', concurrency=8, meter=meters[0], exchanges=exchanges
    ) as model, ChatClient(
        [url or server.url], MODEL, concurrency=16, timeout_secs=30, meter=meters[1], exchanges=exchanges
    ) as chat:
      simulator = SimulatorClient(chat)
      rollouts = run_rollouts(
          jobs, EndpointPolicy(model, temperature=0.7, max_tokens=99), simulator, max_rounds=6, thinking=True, lockstep=False
      )
  finally:
    server.shutdown()
    server.server_close()
  return [result_row(rollout.episode) for rollout in rollouts], simulator.stats(), [meter.totals() for meter in meters]


def test_talks_with_faults_end_like_talks_without(tmp_path):
  rows, stats, costs = hold_talks(0.0)
  assert stats['retries'] == stats['parse_retries'] == stats['failures'] == 0
  assert len({row['score'] for row in rows}) > NUM_TALKS / 2
  with Recorder(tmp_path) as recorder:
    faulty_rows, faulty_stats, faulty_costs = hold_talks(0.2, recorder)
  assert faulty_rows == rows
  # Three quarters of the kinds need another try or another answer.
  assert faulty_stats['retries'] + faulty_stats['parse_retries'] > 0.1 * stats['requests']
  assert faulty_stats['parse_retries'] > 0 and faulty_stats['failures'] == 0
  assert faulty_costs[1]['retries'] == faulty_stats['retries'] and faulty_costs[1]['unknown_usage'] > 0
  assert costs[1]['unknown_usage'] == 0

  # And the recording of it all, faults included, gives the same once more, without any server.
  with Replayer(tmp_path) as replayer:
    replayed = hold_talks(0.0, replayer, url='http://127.0.0.1:9/v1')
  assert replayed == (faulty_rows, faulty_stats, faulty_costs)
