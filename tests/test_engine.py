"""The continuous-batching engine against the batch sampler and full forward passes, whatever else runs beside a request."""

import concurrent.futures
import threading
import time

import jax
import numpy as np
import pytest

from eijax.errors import EijaxError, UsageError
from eijax.learning.sharding import make_mesh
from eijax.sampling.config import EngineConfig, SamplerShapes, SamplingConfig
from eijax.sampling.engine import EngineClosedError, SamplingEngine
from eijax.sampling.samples import EngineRequest
from eijax.sampling.slots import SlotTable
import test_sampler as cases

ATOL, LIMIT, STOP, VOCAB = cases.ATOL, cases.LIMIT, cases.STOP, cases.VOCAB
SHAPES = dict(spans=(24, 48), chunks=(4, 16))
NUM_PROGRAMS = 2 * 2 + 2  # Spans times chunks, and a decode for each span.
TIMEOUT_SECS = 60

params = cases.params


FEW_SHAPES = dict(spans=(48,), chunks=(16,))  # For samplers of a single test: two programs to compile.


def make_engine(num_slots=4, mesh='', devices=1, shapes=SHAPES, prefill_rows=3):
  return SamplingEngine(
      cases.DECODER, make_mesh(mesh, jax.devices()[:devices]), SamplerShapes(num_slots=num_slots, **shapes),
      SamplingConfig(temperature=cases.TEMPERATURE, max_new_tokens=LIMIT), stop_ids=(STOP,), sampleable_ids=range(2, VOCAB),
      config=EngineConfig(decode_steps=4, prefill_rows=prefill_rows, num_candidates=10))


@pytest.fixture(scope='module')
def warm_engine(params):
  """One engine for most of the file: compiling is nearly all of a test's time."""
  with make_engine() as engine:
    engine.warm_up(params)
    yield engine


@pytest.fixture
def engine(warm_engine, params):
  """The engine with empty slots and fresh counts."""
  warm_engine.set_params(params)
  warm_engine.stats = type(warm_engine.stats)()
  yield warm_engine
  wait_until(lambda: not warm_engine.num_running and not warm_engine.num_waiting)


def results(futures):
  return [future.result(timeout=TIMEOUT_SECS) for future in futures]


def long_request(prompt, num_tokens=40, seed=0, **settings):
  """A request with room for many tokens."""
  sampling = SamplingConfig(temperature=1.0, max_new_tokens=num_tokens)
  return EngineRequest(prompt_ids=np.array(prompt, np.int32), seed=seed, **{'sampling': sampling, **settings})


def lasting_request(engine, prompt, at_least=13, **settings):
  """A long request with a seed that no early stop token ends."""
  seeds = range(50)
  samples = results(engine.submit([long_request(prompt, seed=seed) for seed in seeds]))
  seed = next(seed for seed, sample in zip(seeds, samples) if len(sample.response_ids) >= at_least)
  return long_request(prompt, seed=seed, **settings)


class Gate:
  """A callback that holds the engine at the first tokens of a request until `open` is set."""

  def __init__(self):
    self.reached, self.open, self.num_calls = threading.Event(), threading.Event(), 0

  def __call__(self, ids, log_probs):
    self.num_calls += 1
    self.reached.set()
    assert self.open.wait(TIMEOUT_SECS)


def wait_until(true):
  end = time.monotonic() + TIMEOUT_SECS
  while not true():
    assert time.monotonic() < end, 'it did not happen in time'
    time.sleep(0.005)


def assert_same(samples, others):
  for a, b in zip(samples, others, strict=True):
    np.testing.assert_array_equal(a.prompt_ids, b.prompt_ids)
    np.testing.assert_array_equal(a.response_ids, b.response_ids)
    np.testing.assert_allclose(a.behavior_log_probs, b.behavior_log_probs, atol=ATOL)
    assert a.truncated == b.truncated


@pytest.mark.parametrize('cut', [{}, {'top_k': 5, 'top_p': 0.9}, {'top_k': 20, 'top_p': 0.8}])
def test_equals_the_batch_sampler(engine, params, cut):
  sampling = SamplingConfig(temperature=cases.TEMPERATURE, max_new_tokens=LIMIT, **cut)
  sampler = cases.BatchSampler(
      cases.DECODER, make_mesh('', jax.devices()[:1]), SamplerShapes(num_slots=4, **FEW_SHAPES), sampling,
      stop_ids=(STOP,), sampleable_ids=range(2, VOCAB))
  sampler.set_params(params)
  reqs = cases.requests([5, 9, 12, 14, 7, 3, 11])
  for _ in range(2):  # The second time with grown prompts, out of the slots of the first.
    own = [EngineRequest(prompt_ids=r.prompt_ids, seed=r.seed, slot_key=r.slot_key, sampling=sampling) for r in reqs]
    expected = cases.results(sampler, reqs)
    assert_same(results(engine.submit(own)), expected)
    reqs = [cases.grown(*pair) for pair in zip(reqs, expected)]
  assert engine.num_compilations == NUM_PROGRAMS


def test_fills_the_sampler_port(engine, params):
  reqs = cases.requests([5, 30, 12])
  plain = [(r.prompt_ids.tolist(), r.seed, r.slot_key) for r in reqs]
  samples = results(engine.submit(plain))
  assert_same(results(engine.submit(reqs)), samples)
  for sample in samples:
    np.testing.assert_allclose(sample.behavior_log_probs, cases.scored(params, sample), atol=ATOL)
  assert engine.max_prompt_tokens == 48 - LIMIT


def test_a_response_does_not_depend_on_its_neighbours(engine, params):
  rng = np.random.default_rng(0)
  kinds = [{}, {'top_k': 4}, {'top_p': 0.7}, {'top_k': 30, 'top_p': 0.9}]
  reqs = [EngineRequest(
      prompt_ids=rng.integers(2, VOCAB, rng.integers(1, 30)).astype(np.int32), seed=int(rng.integers(1000)),
      sampling=SamplingConfig(temperature=float(rng.uniform(0.5, 1.5)), max_new_tokens=int(rng.integers(1, 18)), **kinds[i % 4]),
      stop_ids=(4, 5, 6) if i % 2 else ())
      for i in range(24)]
  alone = []
  for request in reqs:
    engine.set_params(params)  # Empty slots: nothing to reuse.
    alone += results(engine.submit([request]))
  engine.set_params(params)
  with concurrent.futures.ThreadPoolExecutor(6) as pool:
    together = list(pool.map(lambda request: results(engine.submit([request]))[0], reqs))
  assert_same(together, alone)
  assert {sample.truncated for sample in alone} == {True, False}
  assert engine.num_compilations == NUM_PROGRAMS
  assert engine.stats.decode_calls < 2 * sum(len(sample.response_ids) for sample in alone) / 4  # They did share calls.


def test_settings_of_a_request(engine):
  prompt = np.arange(2, 12, dtype=np.int32)
  greedy = SamplingConfig(temperature=1.0, top_k=1, max_new_tokens=9)
  first, second = results(engine.submit([
      EngineRequest(prompt_ids=prompt, seed=seed, sampling=greedy) for seed in (1, 2)]))
  np.testing.assert_array_equal(first.response_ids, second.response_ids)
  extra_stop = int(first.response_ids[2])
  cut, = results(engine.submit([EngineRequest(prompt_ids=prompt, seed=0, sampling=greedy, stop_ids=(extra_stop,))]))
  end = first.response_ids.tolist().index(extra_stop) + 1
  assert cut.response_ids.tolist() == first.response_ids[:end].tolist() and not cut.truncated
  with pytest.raises(UsageError, match='stop_ids=.* at most 8'):
    engine.submit([EngineRequest(prompt_ids=prompt, seed=0, stop_ids=tuple(range(2, 20)))])


def test_a_response_ends_at_the_end_of_the_context(engine):
  for seed in range(3):
    sample, = results(engine.submit([long_request([5] * 46, num_tokens=40, seed=seed)]))
    assert len(sample.response_ids) == 2 if sample.truncated else sample.response_ids[-1] == STOP
  with pytest.raises(UsageError, match='a prompt of 48 tokens must have 1 to 47'):
    engine.submit([long_request([5] * 48)])
  for bad in ([], [VOCAB], [-1]):
    with pytest.raises(UsageError, match='prompt'):
      engine.submit([long_request(bad)])


def test_tokens_are_told_of_as_they_come(engine):
  told = []
  request = lasting_request(engine, [7, 8, 9], on_tokens=lambda ids, log_probs: told.append((ids, log_probs)))
  sample, = results(engine.submit([request]))
  assert [len(ids) for ids, _ in told[:-1]] == [4] * (len(told) - 1) and len(told) > 3
  np.testing.assert_array_equal(np.concatenate([ids for ids, _ in told]), sample.response_ids)
  np.testing.assert_array_equal(np.concatenate([values for _, values in told]), sample.behavior_log_probs)


def test_a_callback_that_fails_ends_its_own_request_only(engine):
  def broken(ids, log_probs):
    raise OSError('the reader is gone')

  failed, fine = engine.submit([long_request([4] * 5, on_tokens=broken), cases.requests([6])[0]])
  with pytest.raises(OSError, match='the reader is gone'):
    failed.result(timeout=TIMEOUT_SECS)
  assert len(fine.result(timeout=TIMEOUT_SECS).response_ids)


def test_new_requests_join_a_batch_that_runs(engine):
  gate, order = Gate(), []
  long, = engine.submit([lasting_request(engine, [4, 5], on_tokens=gate)])
  assert gate.reached.wait(TIMEOUT_SECS)
  short, = engine.submit([long_request([6, 7, 8], num_tokens=1)])
  for name, future in (('long', long), ('short', short)):
    future.add_done_callback(lambda _, name=name: order.append(name))
  gate.open.set()
  results([long, short])
  assert order == ['short', 'long']


def test_cancelling_frees_the_slot(engine, params):
  request = lasting_request(engine, [4, 5], on_tokens=(gate := Gate()))
  with make_engine(num_slots=1, shapes=FEW_SHAPES) as small:
    small.set_params(params)
    first, waiting, last = small.submit([request, long_request([6]), long_request([9, 8], num_tokens=2)])
    assert gate.reached.wait(TIMEOUT_SECS)
    assert first.cancel() and waiting.cancel()
    gate.open.set()
    sample, = results([last])
    assert gate.num_calls == 1 and small.stats.requests == 2
    assert concurrent.futures.wait([first, waiting], timeout=TIMEOUT_SECS).not_done == set()
    wait_until(lambda: not small.num_running and not small.num_waiting)
  assert_same([sample], results(engine.submit([long_request([9, 8], num_tokens=2)])))


def test_prefixes_are_found_in_any_slot(engine, params):
  prompt = np.random.default_rng(2).integers(2, VOCAB, 30).astype(np.int32)
  reqs = [EngineRequest(prompt_ids=np.append(prompt, i + 2).astype(np.int32), seed=i) for i in range(4)]
  alone = []
  for request in reqs:
    engine.set_params(params)
    alone += results(engine.submit([request]))
  engine.set_params(params)
  before = engine.stats.reused_tokens
  assert_same(results(engine.submit(reqs)), alone)
  # The first computes the common part, the others copy it while it runs or has ended.
  assert engine.stats.reused_tokens - before == 3 * 30
  # A talk that grew goes on in place; the others' cells are still there as well.
  before = engine.stats.reused_tokens
  grown = [cases.grown(*pair) for pair in zip(reqs, alone)]
  again = results(engine.submit(grown))
  assert engine.stats.reused_tokens - before == sum(len(s.prompt_ids) + len(s.response_ids) for s in alone)
  for sample in again:
    np.testing.assert_allclose(sample.behavior_log_probs, cases.scored(params, sample), atol=ATOL)


def test_new_params_come_after_what_was_submitted_before(engine, params):
  other = jax.tree.map(lambda x: x * 1.3, params)
  reqs = cases.requests([12, 9, 5, 7, 11])
  before = engine.submit(reqs)
  engine.set_params(other)
  after = engine.submit(reqs)
  for sample in results(before):
    np.testing.assert_allclose(sample.behavior_log_probs, cases.scored(params, sample), atol=ATOL)
  for sample in results(after):
    np.testing.assert_allclose(sample.behavior_log_probs, cases.scored(other, sample), atol=ATOL)


def test_release_and_a_failure_leave_an_engine_that_goes_on(engine, params, monkeypatch):
  reqs = cases.requests([12])
  before = results(engine.submit(reqs))
  engine.release()
  failed, = engine.submit(reqs)
  with pytest.raises(EijaxError, match='no params to sample from'):
    failed.result(timeout=TIMEOUT_SECS)
  engine.set_params(params)
  run = engine._programs.decode
  monkeypatch.setattr(engine._programs, 'decode', lambda *_: 1 / 0)
  failed, = engine.submit(reqs)
  with pytest.raises(EijaxError, match='ZeroDivisionError'):
    failed.result(timeout=TIMEOUT_SECS)
  monkeypatch.setattr(engine._programs, 'decode', run)
  assert_same(results(engine.submit(reqs)), before)


def test_nothing_compiles_after_warm_up(engine):
  assert engine.num_compilations == NUM_PROGRAMS
  results(engine.submit([long_request([5] * n, num_tokens=m) for n, m in ((1, 3), (40, 8), (17, 20), (4, 1), (33, 2))]))
  assert engine.num_compilations == NUM_PROGRAMS


def test_closing_ends_what_runs_and_refuses_more(engine, params):
  request = lasting_request(engine, [4, 5], on_tokens=(gate := Gate()))
  small = make_engine(num_slots=1, shapes=FEW_SHAPES)
  small.set_params(params)
  futures = small.submit([request, long_request([5])])
  assert gate.reached.wait(TIMEOUT_SECS)
  closing = threading.Thread(target=small.close)
  closing.start()
  wait_until(lambda: small._closed)
  gate.open.set()
  closing.join(TIMEOUT_SECS)
  for future in futures:
    with pytest.raises(EngineClosedError, match='before this response was finished'):
      future.result(timeout=TIMEOUT_SECS)
  with pytest.raises(EngineClosedError):
    small.submit([long_request([4])])
  small.close()


def test_eight_devices_equal_one(engine, params):
  reqs = cases.requests([5, 9, 12, 16, 7, 3, 11, 2, 20, 30])
  with make_engine(num_slots=8, mesh='data=2,fsdp=2,tensor=2', devices=8, shapes=FEW_SHAPES, prefill_rows=4) as many:
    many.set_params(params)
    samples = results(many.submit(reqs))
    samples += results(many.submit([cases.grown(*pair) for pair in zip(reqs, samples)]))
    assert many.num_compilations == 2
  expected = results(engine.submit(reqs))
  expected += results(engine.submit([cases.grown(*pair) for pair in zip(reqs, expected)]))
  assert_same(samples, expected)


@pytest.mark.parametrize('name', ['decode_steps', 'prefill_rows', 'num_stop_ids', 'num_candidates'])
def test_bad_engine_config_is_refused(name):
  with pytest.raises(UsageError, match=f'{name}=0 must be at least 1'):
    EngineConfig(**{name: 0})


# ---- Slots ---------------------------------------------------------------------------------------


def seated(table, prompt):
  """Seat a prompt and pretend that its prefill is done."""
  seat = table.seat(np.array(prompt, np.int32), worth_waiting=4)
  table.held[seat.row] = len(prompt)
  table.unpin()
  return seat


def test_a_slot_that_holds_the_talk_is_taken_over_and_a_beginning_is_copied():
  table = SlotTable(3, 32)
  first = seated(table, range(10))
  table.append(first.row, np.array([20, 21], np.int32))
  table.free(first.row)
  grown = seated(table, [*range(10), 20, 21, 5, 6])
  assert (grown.row, grown.source, grown.reused) == (first.row, first.row, 12)
  table.free(grown.row)
  # Three of fourteen tokens: the talk in the slot is worth more than the copy costs.
  other = seated(table, [0, 1, 2, 30])
  assert other.row != grown.row and (other.source, other.reused) == (grown.row, 3)
  assert seated(table, [*range(10), 20, 21, 5, 6, 7]).reused == 14


def test_the_last_prompt_token_is_never_reused():
  table = SlotTable(2, 16)
  first = seated(table, [1, 2, 3])
  table.free(first.row)
  assert seated(table, [1, 2, 3]).reused == 2


def test_a_prompt_waits_for_the_one_that_computes_its_beginning():
  table = SlotTable(3, 16)
  first = table.seat(np.arange(9, dtype=np.int32), worth_waiting=4)
  twin = np.array([*range(8), 15], np.int32)
  assert table.seat(twin, worth_waiting=4) is None
  assert table.seat(np.array([0, 1, 9], np.int32), worth_waiting=4) is not None  # Two tokens are not worth it.
  table.held[first.row] = 9
  seat = table.seat(twin, worth_waiting=4)
  assert (seat.source, seat.reused) == (first.row, 8)


def test_a_row_that_is_copied_from_is_not_given_away_before():
  table = SlotTable(2, 32)
  first = seated(table, range(12))
  table.free(first.row)
  copy = table.seat(np.array([0, 1, 2, 30], np.int32), worth_waiting=4)
  assert copy.source == first.row != copy.row
  assert table.seat(np.array([29, 28], np.int32), worth_waiting=4) is None
  table.unpin()
  assert table.seat(np.array([29, 28], np.int32), worth_waiting=4).row == first.row


def test_the_least_recently_used_slot_goes_first():
  table = SlotTable(3, 16)
  rows = [seated(table, [n, n, n]).row for n in (1, 2, 3)]
  for row in (rows[1], rows[2], rows[0]):
    table.free(row)
  assert [seated(table, [9, n]).row for n in (1, 2, 3)][:1] == [rows[1]]
