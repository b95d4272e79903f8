"""A policy server in this process: over a real engine, or over one that plays back what it is told."""

from concurrent.futures import Future
import contextlib
import threading

import numpy as np
import openai

from eijax.policy.decoder import Decoder
from eijax.sampling.config import EngineConfig, SamplerShapes
from eijax.sampling.engine import SamplingEngine
from eijax.sampling.samples import Sample
from eijax.serving.chat_service import ChatService, Served
from eijax.serving.server import PolicyServer
from eijax.training.local_policy import load_local_policy
from saved_run import one_device_mesh, write_run

NAME = 'tiny@0'
CONTEXT = 320


def load_policy(folder):
  """A policy of random weights, whose tokenizer was trained on the scenarios of a tiny run."""
  workdir, _, _ = write_run(folder)
  return load_local_policy(str(workdir), one_device_mesh())


def served(policy, **changes) -> Served:
  values = dict(name=NAME, tokenizer=policy.tokenizer, chat_format=policy.chat_format, sampling=policy.sampling, thinking=False)
  return Served(**{**values, **changes})


def open_engine(policy, num_slots=4, thinking=False) -> SamplingEngine:
  """One span and one chunk: two programs to compile."""
  engine = SamplingEngine(
      Decoder(policy.config), one_device_mesh(), SamplerShapes(num_slots=num_slots, spans=(CONTEXT,), chunks=(96,)),
      policy.sampling, stop_ids=policy.chat_format.stop_ids, sampleable_ids=policy.tokenizer.sampleable_ids(thinking),
      config=EngineConfig(decode_steps=4))
  engine.set_params(policy.params)
  return engine


class Playback:
  """An engine whose every response is the same chunks of ids.

  hold: no response goes on after its first chunk until `release` is set or it is cancelled.
  error: what a response ends with instead, after its chunks.
  """

  max_tokens = CONTEXT

  def __init__(self, *chunks, truncated=False, hold=False, error=None):
    self.chunks, self.truncated, self.error = chunks, truncated, error
    self.release = threading.Event()
    self.requests, self.futures = [], []
    if not hold:
      self.release.set()

  def submit(self, requests):
    futures = [Future() for _ in requests]
    self.requests += requests
    self.futures += futures
    for request, future in zip(requests, futures):
      threading.Thread(target=self._play, args=(request, future), daemon=True).start()
    return futures

  def _play(self, request, future):
    ids = []
    for number, chunk in enumerate(self.chunks):
      while number and not self.release.wait(0.01):
        if future.cancelled():
          return
      ids += chunk
      request.on_tokens(np.array(chunk, np.int32), np.full(len(chunk), -0.5, np.float32))
    self.release.wait()
    if not future.set_running_or_notify_cancel():
      return
    if self.error is not None:
      future.set_exception(self.error)
    else:
      future.set_result(Sample(prompt_ids=request.prompt_ids, response_ids=np.array(ids, np.int32),
                               behavior_log_probs=np.full(len(ids), -0.5, np.float32), truncated=self.truncated))


@contextlib.contextmanager
def running(what: Served, engine, *, max_open=8, api_key=None):
  """Yield the server, which answers."""
  server = PolicyServer('127.0.0.1', 0, api_key=api_key)
  server.service = ChatService(what, engine, max_open=max_open)
  thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()


def client(server, key='none', **settings) -> openai.OpenAI:
  return openai.OpenAI(base_url=server.url, api_key=key, **{'max_retries': 0, 'timeout': 60.0, **settings})


def user(text: str) -> list[dict]:
  return [{'role': 'user', 'content': text}]
