"""The model under test, found and opened: an endpoint, a scripted defender, a policy on this machine."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence

from eijax.chat.client import ChatClient
from eijax.chat.errors import ChatError
from eijax.chat.recording import Exchanges, Replayer
from eijax.chat.request_fields import api_keys, request_fields
from eijax.chat.usage import UsageMeter
from eijax.errors import EijaxError, UsageError
from eijax.evaluate.config import EMBEDDED_CONCURRENCY, HOSTED_CONCURRENCY, SCRIPTED, EvaluateConfig, ModelConfig, ModelFacts
from eijax.rollouts.endpoint_policy import EndpointPolicy
from eijax.rollouts.ports import Policy
from eijax.scenarios.record import Scenario
from eijax.simulator.opening import NOWHERE

KEYS_VARIABLE = 'EIJAX_MODEL_API_KEY'
DEFAULT_TEMPERATURE = 0.6
DEFAULT_MAX_TOKENS = 1024


def describe_model(config: EvaluateConfig, *, is_replay: bool) -> ModelFacts:
  """Find out what the model is, without reading weights or asking an endpoint.

  Raises:
    UsageError, CheckpointError, DataError: it is nothing that could be evaluated.
  """
  model = config.model
  if model.is_scripted:
    from eijax.scripted.policy import Script  # pylint: disable=import-outside-toplevel

    Script(model.name.removeprefix(SCRIPTED), ())  # Refuses a name that does not exist.
    return ModelFacts(
        kind='scripted', label=model.name, settings={'name': model.name}, thinking=model.thinking == 'on', lockstep=False,
        concurrency=EMBEDDED_CONCURRENCY if not config.simulator.urls else HOSTED_CONCURRENCY)
  if model.urls or is_replay and not _is_folder(model.name):
    settings = {
        'name': model.name, 'temperature': DEFAULT_TEMPERATURE if model.temperature is None else model.temperature,
        'max_tokens': DEFAULT_MAX_TOKENS if model.max_tokens is None else model.max_tokens,
        'thinking': model.thinking, 'extra_body': model.extra_body,
    }
    return ModelFacts(
        kind='endpoint', label=model.name, settings=settings, thinking=model.thinking != 'off', lockstep=False,
        concurrency=HOSTED_CONCURRENCY)
  if not _is_folder(model.name):
    raise UsageError(f'model={model.name!r} is no folder of a run or a Hugging Face model and not scripted:NAME; for a model behind an endpoint '
                     'give --model_url=http://host:port/v1 too')
  from eijax.evaluate import local  # pylint: disable=import-outside-toplevel

  return local.describe(model)


@contextlib.contextmanager
def open_model(
    facts: ModelFacts, config: EvaluateConfig, scenarios: Sequence[Scenario], *, concurrency: int,
    meter: UsageMeter, exchanges: Exchanges | None,
) -> Iterator[tuple[Policy, Callable[[str], None]]]:
  """Yield the policy, and a function that takes the key of a talk that has ended.

  Args:
    scenarios: those that are played.
    concurrency: requests in flight; for a local policy, talks at a time.
  Raises:
    EijaxError: the endpoint cannot serve, or the checkpoint is damaged.
  """
  model = config.model
  if facts.kind == 'scripted':
    from eijax.scripted.policy import Script, ScriptedPolicy  # pylint: disable=import-outside-toplevel

    yield ScriptedPolicy(Script(model.name.removeprefix(SCRIPTED), scenarios)), lambda key: None
  elif facts.kind == 'local':
    from eijax.evaluate import local  # pylint: disable=import-outside-toplevel

    yield local.open_policy(model, concurrency=concurrency, keep_thoughts=config.keep_thoughts)
  else:
    with _endpoint(facts, model, concurrency, meter, exchanges) as policy:
      yield policy, lambda key: None


@contextlib.contextmanager
def _endpoint(
    facts: ModelFacts, model: ModelConfig, concurrency: int, meter: UsageMeter, exchanges: Exchanges | None
) -> Iterator[Policy]:
  is_replay = isinstance(exchanges, Replayer)
  with ChatClient(
      model.urls or (NOWHERE,), model.name, [] if is_replay else api_keys(KEYS_VARIABLE), timeout_secs=model.timeout_secs,
      max_retries=model.max_retries, concurrency=concurrency, key_variable=KEYS_VARIABLE, meter=meter, exchanges=exchanges,
  ) as chat:
    try:
      chat.check()
    except ChatError as error:
      raise EijaxError(f'the model under test ({model.name}) cannot serve: {error}') from None
    yield EndpointPolicy(
        chat, temperature=facts.settings['temperature'], max_tokens=facts.settings['max_tokens'],
        extra_body=request_fields(model.thinking, model.extra_body, 'model'))


def _is_folder(source: str) -> bool:
  """Whether `source` is a folder, or FOLDER@STEP."""
  return os.path.isdir(source) or os.path.isdir(source.rpartition('@')[0])
