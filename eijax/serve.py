"""Serve a local policy as an OpenAI-compatible endpoint: python -m eijax.serve --model=FOLDER.

POST /v1/chat/completions (also streaming), GET /v1/models, GET /healthz. Requests join
one running batch as they come. The key that clients must send, if any, is read from
the environment: EIJAX_SERVE_API_KEY.
"""

import contextlib
import dataclasses
import ipaddress
import os
import sys

from absl import flags
from jax.sharding import Mesh

from eijax import command, http_server
from eijax.errors import EijaxError, UsageError
from eijax.learning import sharding
from eijax.policy.decoder import Decoder
from eijax.sampling.config import EngineConfig, SamplerShapes, SamplingConfig
from eijax.sampling.engine import SamplingEngine
from eijax.sampling.placement import check_slots
from eijax.serving.chat_service import ChatService, Served
from eijax.serving.server import PolicyServer
from eijax.text.ports import ChatFormat
from eijax.training import devices
from eijax.training.local_policy import LocalPolicy, SavedPolicy, describe_local_policy, load_local_policy

KEY_VARIABLE = 'EIJAX_SERVE_API_KEY'


def define(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Define the flags. Call once, in the entry point; tests give holders of their own."""

  def one(define_fn, name, default, text, **bounds) -> None:
    define_fn(name, default, text, flag_values=flag_values, **bounds)

  integer, number = flags.DEFINE_integer, flags.DEFINE_float
  one(flags.DEFINE_string, 'model', None, 'The policy: the --workdir of a training run (its latest checkpoint), WORKDIR@STEP, '
      'or the folder of a Hugging Face model.')
  one(flags.DEFINE_string, 'served_model_name', None, 'Name that clients ask for. Default: folder and step, e.g. run@20.')
  one(flags.DEFINE_string, 'host', '127.0.0.1', f'Address to listen on. Other than loopback only with a key in {KEY_VARIABLE}.')
  one(integer, 'port', 8766, 'TCP port; 0 takes a free one, which the ready line tells.', lower_bound=0, upper_bound=65535)
  one(integer, 'num_slots', 16, 'Answers that are sampled at once.', lower_bound=1)
  one(integer, 'context', None, "Longest prompt and answer together, in tokens. Default: the policy's.", lower_bound=2)
  one(integer, 'max_waiting', 64, 'Answers that may wait for a slot; beyond, requests get 429.', lower_bound=0)
  one(number, 'temperature', None, "Temperature where a request gives none, above 0. Default: the policy's.")
  one(number, 'top_p', None, "Nucleus where a request gives none, in (0, 1]. Default: the policy's.")
  one(integer, 'top_k', None, "Most probable tokens kept where a request gives none; 0 keeps all. Default: the policy's.")
  one(integer, 'max_tokens', None, "Longest answer in tokens where a request gives none. Default: the policy's.")
  one(flags.DEFINE_bool, 'thinking', None, "Let the policy sample think tags; thoughts go to reasoning_content. Default: the policy's.")
  one(integer, 'decode_steps', EngineConfig.decode_steps,
      'Tokens sampled between two moments at which requests can join; more means more throughput.', lower_bound=1)
  one(number, 'drain_secs', 30.0, 'Seconds that open answers may take to finish after SIGINT or SIGTERM.', lower_bound=0.0)
  one(flags.DEFINE_bool, 'tpu', False, 'Run on the TPU devices of this host, and on nothing else.')
  one(flags.DEFINE_string, 'mesh', '', 'Devices per axis, e.g. data=1,fsdp=8,tensor=2; empty puts all of them on fsdp.')


def settings(values: flags.FlagValues, saved: SavedPolicy) -> tuple[SamplerShapes, SamplingConfig]:
  """Shapes and default sampling: the policy's, with what the flags change.

  Raises:
    UsageError: a value that breaks a rule.
  """
  spans = saved.shapes.spans
  if values.context is not None:
    spans = (*(span for span in spans if span < values.context), values.context)
  shapes = SamplerShapes(num_slots=values.num_slots, spans=spans, chunks=saved.shapes.chunks)
  given = {'temperature': values.temperature, 'top_p': values.top_p, 'top_k': values.top_k, 'max_new_tokens': values.max_tokens}
  sampling = dataclasses.replace(saved.sampling, **{name: value for name, value in given.items() if value is not None})
  if values.max_tokens is None:
    sampling = dataclasses.replace(sampling, max_new_tokens=min(sampling.max_new_tokens, shapes.max_tokens - 1))
  if sampling.max_new_tokens >= shapes.max_tokens:
    raise UsageError(f'--max_tokens={sampling.max_new_tokens} must be below the context of {shapes.max_tokens} tokens')
  return shapes, sampling


def api_key(host: str) -> str | None:
  """The key from the environment, None for none.

  Raises:
    UsageError: an unusable key, or none where others than this machine can reach the server.
  """
  key = os.environ.get(KEY_VARIABLE, '').strip()
  if key and not (key.isascii() and key.isprintable() and ' ' not in key):
    raise UsageError(f'{KEY_VARIABLE} must be printable ASCII without blanks; set it again')
  if not key and not _is_loopback(host):
    raise UsageError(f'--host={host} can be reached from other machines, and {KEY_VARIABLE} is not set; '
                     'set it to a key that clients must send, or use --host=127.0.0.1')
  return key or None


def _is_loopback(host: str) -> bool:
  with contextlib.suppress(ValueError):
    return ipaddress.ip_address(host).is_loopback
  return host == 'localhost'


def open_engine(
    policy: LocalPolicy, chat_format: ChatFormat, mesh: Mesh, shapes: SamplerShapes, sampling: SamplingConfig, *,
    thinking: bool, decode_steps: int,
) -> SamplingEngine:
  """An engine that samples from the policy, everything compiled."""
  engine = SamplingEngine(
      Decoder(policy.config), mesh, shapes, sampling, stop_ids=chat_format.stop_ids,
      sampleable_ids=policy.tokenizer.sampleable_ids(thinking), config=EngineConfig(decode_steps=decode_steps))
  try:
    engine.warm_up(policy.params)
    engine.set_params(policy.params)
  except BaseException:
    engine.close()
    raise
  return engine


def serve(values: flags.FlagValues) -> None:
  """Load, compile, listen, and answer until a signal."""
  if not values.model:
    raise UsageError('--model is missing; give the --workdir of a training run, or the folder of a Hugging Face model')
  key = api_key(values.host)
  saved = describe_local_policy(values.model)
  shapes, sampling = settings(values, saved)
  thinking = saved.thinking if values.thinking is None else values.thinking
  if values.tpu:
    devices.require_tpu()
  mesh = sharding.make_mesh(values.mesh)
  check_slots(shapes, mesh)
  try:
    # Taken at once, opened when there is something to answer with.
    server = PolicyServer(values.host, values.port, api_key=key, listen=False)
  except OSError as error:
    raise EijaxError(f'--host={values.host} --port={values.port} cannot be opened ({error.strerror}); '
                     'use another port, or 0 for any') from None
  with server:
    policy = load_local_policy(values.model, mesh)
    print(f'compiling for {shapes.num_slots} slots of {shapes.max_tokens} tokens', file=sys.stderr, flush=True)
    chat_format = policy.tokenizer.chat_format(thinking=thinking)
    with open_engine(
        policy, chat_format, mesh, shapes, sampling, thinking=thinking, decode_steps=values.decode_steps) as engine:
      served = Served(name=values.served_model_name or policy.name, tokenizer=policy.tokenizer,
                      chat_format=chat_format, sampling=sampling, thinking=thinking)
      server.service = ChatService(served, engine, max_open=shapes.num_slots + values.max_waiting)
      server.server_activate()
      # A second signal does not wait.
      http_server.serve_until_stopped(
          server, f'serving {served.name} at {server.url}',
          before_end=lambda number: server.end(engine.close, values.drain_secs if number == 1 else 0.0))


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise UsageError(f'unexpected argument {argv[1]!r}; every setting is a flag, see --help')
  serve(flags.FLAGS)


if __name__ == '__main__':
  define()
  command.run(main)
