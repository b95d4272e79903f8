"""Flags of eijax.evaluate: each reaches its one value, every value has a way in, nonsense is refused by name."""

import dataclasses
import math

from absl import flags
import pytest

from eijax.errors import UsageError
from eijax.evaluate import flags as flags_lib
from eijax.evaluate.config import EvaluateConfig, ModelConfig, ModelFacts
from eijax.evaluate.run import requests_and_talks
from eijax.settings import differences, to_plain
from eijax.simulator.config import SimulatorConfig

ALL = flags_lib.MODEL_FLAGS | flags_lib.SIMULATOR_FLAGS | flags_lib.OWN_FLAGS
# Values that no flag sets by itself, and why.
WITHOUT_FLAG = {'model.name': 'is --model', 'simulator.concurrency': 'follows --simulator_concurrency and --concurrency'}
# Where twice the default would be no valid other value.
OTHER_VALUES = {
    'model_url': 'http://a:1/v1, http://b:2/v1', 'simulator_url': 'http://a:1/v1', 'model_extra_body': '{"top_p": 0.9}',
    'simulator_extra_body': '{"top_p": 0.9}', 'model_thinking': 'off', 'simulator_thinking': 'on', 'mesh': 'data=2',
    'scenarios': 'elsewhere', 'split': 'train', 'scenes': 'charm,repair', 'model_temperature': '0.3', 'model_max_tokens': '77',
    'concurrency': '5', 'model_concurrency': '5', 'simulator_concurrency': '5', 'open_talks': '5', 'simulator_model': 'another',
}


def build(*arguments: str) -> EvaluateConfig:
  values = flags.FlagValues()
  flags_lib.define(values)
  values(['evaluate', '--model=m', *arguments])
  return flags_lib.build_config(values)


def path_of(name: str) -> str:
  part = 'model.' if name in flags_lib.MODEL_FLAGS else 'simulator.' if name in flags_lib.SIMULATOR_FLAGS else ''
  return part + flags_lib.field_of(name)


def leaves(value, path=''):
  if not dataclasses.is_dataclass(value):
    return [path]
  return [leaf for field in dataclasses.fields(value)
          for leaf in leaves(getattr(value, field.name), f'{path}.{field.name}' if path else field.name)]


@pytest.mark.parametrize('name', ALL)
def test_a_flag_changes_its_value_and_no_other(name):
  default = build()
  value = default
  for part in path_of(name).split('.'):
    value = getattr(value, part)
  other = OTHER_VALUES.get(name) or (str(not value).lower() if isinstance(value, bool) else str(2 * value or 1))
  needs = ['--simulator_url=http://a:1/v1'] if name == 'simulator_model' else []
  changed = differences(to_plain(build(*needs)), to_plain(build(*needs, f'--{name}={other}')))
  assert [path for path, _, _ in changed] == [path_of(name)]


def test_every_value_has_a_flag():
  paths = [path_of(name) for name in ALL]
  assert len(set(paths)) == len(paths)
  assert {*paths, *WITHOUT_FLAG} == set(leaves(build())) and not set(paths) & set(WITHOUT_FLAG)


def test_the_simulator_is_read_as_often_as_in_the_paper():
  assert build().simulator.max_attempts == 3 and build().max_rounds == 8 and build().simulator.temperature == 0.7


@pytest.mark.parametrize('arguments, words', [
    (['--model='], ['model is empty', 'scripted:NAME', '--model_url']),
    (['--samples=0'], ['samples=0', 'at least 1']),
    (['--limit=-1'], ['limit=-1', 'at least 0']),
    (['--split=dev'], ["split='dev'", 'train, test']),
    (['--concurrency=0'], ['concurrency=0', 'at least 1']),
    (['--model_temperature=-1'], ['model_temperature=-1.0', 'at least 0']),
    (['--model_max_tokens=0'], ['model_max_tokens=0', 'at least 1']),
    (['--model_timeout_secs=0'], ['model_timeout_secs=0.0', 'above 0']),
    (['--model_extra_body={top_p}'], ['model_extra_body', 'JSON object', 'top_p']),
    (['--simulator_extra_body=[1]'], ['simulator_extra_body', 'must be a JSON object']),
    (['--model_extra_body={"messages": []}'], ['must not hold', "'messages'"]),
    (['--model=scripted:decent', '--model_url=http://a:1/v1'], ['scripted:decent', 'drop --model_url']),
    (['--simulator_model=qwen3-max'], ['--simulator_model=qwen3-max needs --simulator_url']),
    (['--record=a', '--replay=b'], ['--record=a', '--replay=b', 'exclude']),
])
def test_nonsense_is_refused_by_name(arguments, words):
  with pytest.raises(UsageError) as caught:
    build(*arguments)
  for word in words:
    assert word in str(caught.value)


@pytest.mark.parametrize('text', ('nan', 'inf'))
def test_numbers_are_finite(text):
  for name, (kind, _) in ALL.items():
    if kind == 'float':
      with pytest.raises(UsageError, match=f'--{name}={text} must be a finite number'):
        build(f'--{name}={text}')
  assert math.isfinite(build().simulator.timeout_secs)


@pytest.mark.parametrize('kind, embedded, flags_given, expected', [
    ('endpoint', False, {}, (64, 64, 128)),
    ('endpoint', False, {'concurrency': 1}, (1, 1, 1)),  # One talk after another.
    ('endpoint', False, {'concurrency': 10, 'simulator_concurrency': 4}, (10, 4, 14)),
    ('endpoint', False, {'concurrency': 10, 'open_talks': 3}, (10, 10, 3)),
    ('endpoint', True, {'concurrency': 32}, (32, 8, 40)),
    ('scripted', False, {'concurrency': 10}, (10, 10, 10)),
    ('local', False, {'model_concurrency': 2}, (2, 64, 64)),
])
def test_as_many_talks_are_open_as_keep_both_sides_busy(kind, embedded, flags_given, expected):
  config = EvaluateConfig(
      model=ModelConfig(name='m'), simulator=SimulatorConfig(urls=() if embedded else ('http://127.0.0.1:9/v1',)), scenarios='s', **flags_given)
  facts = ModelFacts(kind=kind, label='m', settings={}, thinking=False, lockstep=kind == 'local', concurrency=64)
  in_flight, open_talks = requests_and_talks(config, facts)
  assert (in_flight['model'], in_flight['simulator'], open_talks) == expected
