"""All values of an evaluation in one frozen tree, and which of them decide its result."""

import dataclasses
from typing import Any

from eijax.chat.request_fields import request_fields
from eijax.errors import UsageError
from eijax.scenarios.record import SPLITS
from eijax.simulator.config import SimulatorConfig

SCRIPTED = 'scripted:'
EMBEDDED_CONCURRENCY = 8  # It shares the machine: more requests in flight would only queue.
HOSTED_CONCURRENCY = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
  """The model under test: an endpoint's model name, a local folder, or scripted:NAME.

  urls: base URLs of an endpoint; none for a local or scripted model.
  temperature, max_tokens: None for what a local policy was trained with, or 0.6 and 1,024.
  thinking: 'on' or 'off' sets the house rules and asks an endpoint for it; 'default' has a
    local policy think as it was trained, a scripted one not, an endpoint's write think tags.
  extra_body: JSON object with further fields of every request; for a local policy top_p and top_k.
  timeout_secs: longest silence of the endpoint. max_retries: tries after a failure.
  mesh, tpu: devices of a local policy.
  """

  name: str
  urls: tuple[str, ...] = ()
  temperature: float | None = None
  max_tokens: int | None = None
  thinking: str = 'default'
  extra_body: str = '{}'
  timeout_secs: float = 150.0
  max_retries: int = 8
  mesh: str = ''
  tpu: bool = False

  def __post_init__(self):
    if not self.name:
      raise UsageError('model is empty, but must name what is evaluated: a folder of a run, scripted:NAME, or with '
                       '--model_url the name that the endpoint knows')
    if self.temperature is not None and not self.temperature >= 0:
      raise UsageError(f'model_temperature={self.temperature} must be at least 0')
    if self.max_tokens is not None and self.max_tokens < 1:
      raise UsageError(f'model_max_tokens={self.max_tokens} must be at least 1')
    if not self.timeout_secs > 0 or self.max_retries < 0:
      raise UsageError(f'model_timeout_secs={self.timeout_secs} must be above 0, model_max_retries={self.max_retries} at least 0')
    if self.is_scripted and self.urls:
      raise UsageError(f'model={self.name!r} runs in this process and has no URL; drop --model_url, or name the endpoint\'s model')
    request_fields(self.thinking, self.extra_body, 'model')

  @property
  def is_scripted(self) -> bool:
    return self.name.startswith(SCRIPTED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFacts:
  """What is known of the model before anything is opened.

  kind: endpoint, scripted or local. label: for people. settings: what decides its replies. thinking: whether the house rules ask
  for think tags. lockstep: whether replies come as batches. concurrency: talks at once that suit it.
  """

  kind: str
  label: str
  settings: dict[str, Any]
  thinking: bool
  lockstep: bool
  concurrency: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
  """One evaluation.

  scenes: those that are played; empty for all. limit: scenarios, evenly over the scenes; 0 for all.
  samples: talks per scenario. keep_thoughts, charm_closing_reply: see TalkRules.
  concurrency: requests in flight to each side; model_concurrency, simulator_concurrency: to one of them.
    open_talks: talks that are open at a time. None lets the sides decide, see `sides` and `run`.
  max_cost_tokens: tokens of all hosted endpoints together after which nothing more is asked; 0 for no limit.
  """

  model: ModelConfig
  simulator: SimulatorConfig
  scenarios: str
  split: str = 'test'
  scenes: tuple[str, ...] = ()
  limit: int = 0
  samples: int = 1
  seed: int = 0
  max_rounds: int = 8
  keep_thoughts: bool = False
  charm_closing_reply: bool = False
  concurrency: int | None = None
  model_concurrency: int | None = None
  simulator_concurrency: int | None = None
  open_talks: int | None = None
  max_cost_tokens: int = 0

  def __post_init__(self):
    if self.split not in SPLITS:
      raise UsageError(f'split={self.split!r} must be one of {", ".join(SPLITS)}')
    for name, least in (('limit', 0), ('samples', 1), ('seed', 0), ('max_rounds', 1), ('max_cost_tokens', 0)):
      if getattr(self, name) < least:
        raise UsageError(f'{name}={getattr(self, name)} must be at least {least}')
    for name in ('concurrency', 'model_concurrency', 'simulator_concurrency', 'open_talks'):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise UsageError(f'{name}={value} must be at least 1')


def deciding(config: EvaluateConfig, *, model: dict[str, Any], scenarios: dict[str, Any]) -> dict[str, Any]:
  """The values that decide a result: a resumed evaluation must have the same.

  How fast and over which network it comes about does not belong to them.

  Args:
    model: of the model under test, as it turned out to be (its checkpoint, its temperature).
    scenarios: of the scenarios that are played.
  """
  simulator = config.simulator
  return {
      'model': model,
      'simulator': {
          'name': simulator.model, 'temperature': simulator.temperature, 'max_tokens': simulator.max_tokens,
          'max_attempts': simulator.max_attempts, 'thinking': simulator.thinking, 'extra_body': simulator.extra_body,
      },
      'scenarios': scenarios | {'split': config.split, 'scenes': list(config.scenes), 'limit': config.limit},
      'samples': config.samples,
      'seed': config.seed,
      'max_rounds': config.max_rounds,
      'keep_thoughts': config.keep_thoughts,
      'charm_closing_reply': config.charm_closing_reply,
  }
