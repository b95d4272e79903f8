"""absl flags of `eijax.evaluate`, and the one way from flags to a config."""

import dataclasses
import math
from typing import Any

from absl import flags

from eijax.chat.request_fields import THINKING
from eijax.errors import UsageError
from eijax.evaluate.config import EMBEDDED_CONCURRENCY, HOSTED_CONCURRENCY, EvaluateConfig, ModelConfig
from eijax.scenarios.record import SCENES, SPLITS
from eijax.scenarios.shipped import shipped_folder
from eijax.simulator.config import SimulatorConfig

# They count as flags of the command that calls `define`, whose --help shows them.
flags.disclaim_key_flags()

# The paper reads three answers in evaluation, and eight in training.
_SIMULATOR = SimulatorConfig(max_attempts=3)

# Flag -> (kind, help). A flag that is not given leaves the default of its field.
MODEL_FLAGS: dict[str, tuple[str, str]] = {
    'model_url': ('list', 'Comma-separated base URLs (http://host:port/v1) of the model under test; empty for a local or scripted one. '
                  'Its key is read from EIJAX_MODEL_API_KEY.'),
    'model_temperature': ('float', 'Sampling temperature of the model. Default: 0.6; of a local policy, that of its training.'),
    'model_max_tokens': ('integer', 'Tokens of one reply, thoughts included. Default: 1024; of a local policy, that of its training.'),
    'model_thinking': ('enum', f'Whether the model is to think before it speaks: {", ".join(THINKING)}. Default asks for think tags, '
                       'and lets a local policy do as it was trained.'),
    'model_extra_body': ('string', 'JSON object with further fields of every request to the model; for a local policy top_p and top_k.'),
    'model_timeout_secs': ('float', 'Longest silence of the model\'s endpoint in a request, in seconds.'),
    'model_max_retries': ('integer', 'Tries after a failure of a request to the model.'),
    'mesh': ('string', 'Devices per axis for a local policy, e.g. data=1,fsdp=8; empty puts all of them on fsdp.'),
    'tpu': ('bool', 'Run a local policy on the TPU devices of this host, and on nothing else.'),
}
SIMULATOR_FLAGS: dict[str, tuple[str, str]] = {
    'simulator_url': ('list', 'Comma-separated base URLs of the simulator; empty for the embedded one. '
                      'Keys are read from EIJAX_SIMULATOR_API_KEYS, comma-separated.'),
    'simulator_model': ('string', 'Model name that the simulator endpoints know.'),
    'simulator_temperature': ('float', 'Sampling temperature of the simulator.'),
    'simulator_max_tokens': ('integer', 'Tokens of one simulator answer, its private reflection included.'),
    'simulator_max_attempts': ('integer', 'Answers asked for until one can be read.'),
    'simulator_timeout_secs': ('float', 'Longest silence of the simulator in a request, in seconds.'),
    'simulator_max_retries': ('integer', 'Tries after a network failure of a request to the simulator.'),
    'simulator_thinking': ('enum', f'Whether the simulator is to think: {", ".join(THINKING)}.'),
    'simulator_extra_body': ('string', 'JSON object with further fields of every request to the simulator.'),
}
OWN_FLAGS: dict[str, tuple[str, str]] = {
    'scenarios': ('string', 'Folder with train/ and test/, each holding SCENE_final.jsonl files.'),
    'split': ('string', f'Scenarios to play: {", ".join(SPLITS)}.'),
    'scenes': ('list', f'Comma-separated scenes to play, of {", ".join(SCENES)}; empty for all.'),
    'limit': ('integer', 'Scenarios to play, evenly over the scenes and always the same ones; 0 for all.'),
    'samples': ('integer', 'Talks per scenario.'),
    'seed': ('integer', 'Seed of everything random.'),
    'max_rounds': ('integer', 'Rounds after which a talk ends.'),
    'keep_thoughts': ('bool', "Show the model its own earlier thoughts again, as the authors' evaluation does and their training does not."),
    'charm_closing_reply': ('bool', "In Charm, let the model speak once more after the last round, as the authors' evaluation does; "
                            'that reply is recorded and never scored.'),
    'concurrency': ('integer', f'Requests in flight to each side. Default: {HOSTED_CONCURRENCY}; {EMBEDDED_CONCURRENCY} where both sides run '
                    'on this machine; for a local policy, the talks of its batch.'),
    'model_concurrency': ('integer', 'Requests in flight to the model. Default: --concurrency.'),
    'simulator_concurrency': ('integer', f'Requests in flight to the simulator. Default: --concurrency, {EMBEDDED_CONCURRENCY} to the embedded one.'),
    'open_talks': ('integer', 'Talks that are open at a time. Default: with a model behind an endpoint as many as requests to both sides, so that neither '
                   'waits for the other (one with --concurrency=1); else --concurrency.'),
    'max_cost_tokens': ('integer', 'Tokens in and out of all hosted endpoints after which nothing more is asked; 0 for no limit.'),
}
# Where a flag's name is not that of its field.
_FIELDS = {'model_url': 'urls', 'simulator_url': 'urls', 'simulator_model': 'model', 'mesh': 'mesh', 'tpu': 'tpu'}


def field_of(name: str) -> str:
  """The field that a flag sets, in its own part of the config."""
  if name in _FIELDS:
    return _FIELDS[name]
  return name if name in OWN_FLAGS else name.partition('_')[2]


def _default(name: str) -> Any:
  part = ModelConfig if name in MODEL_FLAGS else EvaluateConfig
  if name in SIMULATOR_FLAGS:
    return getattr(_SIMULATOR, field_of(name))
  if name == 'scenarios':
    return str(shipped_folder())
  return next(f.default for f in dataclasses.fields(part) if f.name == field_of(name))


def define(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Define the flags. Call once, in the entry point; tests give holders of their own."""
  holder = {'flag_values': flag_values}
  flags.DEFINE_string('model', '', 'What is evaluated: the folder of a training run (FOLDER for its latest checkpoint, or FOLDER@STEP) or of a '
                      'Hugging Face model, scripted:NAME for a scripted defender, or with --model_url the model name that the endpoint knows.', **holder)
  flags.DEFINE_string('out', None, 'Folder of the results. Default: evaluations/MODEL-seedSEED.', **holder)
  flags.DEFINE_bool('resume', True, 'Go on where the folder stopped; with --noresume a folder with results in it is refused.', **holder)
  flags.DEFINE_bool('retry_failed', False, 'Hold the talks that failed in the folder again; their rows go to failed.jsonl.', **holder)
  flags.DEFINE_string('record', None, 'Folder that every exchange with an endpoint is written to.', **holder)
  flags.DEFINE_string('replay', None, 'Folder of a recording that answers instead of the network.', **holder)
  for name, (kind, text) in (MODEL_FLAGS | SIMULATOR_FLAGS | OWN_FLAGS).items():
    default = _default(name)
    if kind == 'enum':
      flags.DEFINE_enum(name, default, THINKING, text, **holder)
    else:
      default = list(default) if isinstance(default, tuple) else default
      {'list': flags.DEFINE_list, 'float': flags.DEFINE_float, 'integer': flags.DEFINE_integer, 'bool': flags.DEFINE_bool,
       'string': flags.DEFINE_string}[kind](name, default, text, **holder)


def build_config(values: flags.FlagValues) -> EvaluateConfig:
  """The config from parsed flags.

  Raises:
    UsageError: a value that breaks a rule.
  """
  parts = [{field_of(name): _typed(name, values[name].value) for name in part} for part in (MODEL_FLAGS, SIMULATOR_FLAGS, OWN_FLAGS)]
  model, simulator, own = parts
  if values.record is not None and values.replay is not None:
    raise UsageError(f'--record={values.record} and --replay={values.replay} exclude each other; drop one of them')
  if not simulator['urls'] and simulator['model'] != _SIMULATOR.model:
    if values.replay is None:
      raise UsageError(f'--simulator_model={simulator["model"]} needs --simulator_url: the embedded simulator is {_SIMULATOR.model}')
  return EvaluateConfig(
      model=ModelConfig(name=values.model, **model), simulator=SimulatorConfig(**simulator), **own)


def _typed(name: str, value: Any) -> Any:
  if isinstance(value, float) and not math.isfinite(value):
    raise UsageError(f'--{name}={value} must be a finite number')
  return tuple(part.strip() for part in value if part.strip()) if isinstance(value, list) else value
