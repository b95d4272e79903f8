"""What transformers computed for the same folders (tests/parity/record_policies.py), without transformers."""

import dataclasses
import json
import pathlib

import hf_folders
import hf_policy
import numpy as np
import pytest

GOLDEN = json.loads((pathlib.Path(__file__).parent / 'hf_golden.json').read_text())
# Float32 on both sides, summed in other orders; the record has six digits.
TOLERANCE = 2e-4


def worst(config, params, name) -> float:
  """Largest difference of the recorded logits, against their scale."""
  expected = np.array(GOLDEN[name]['logits'])
  found = hf_policy.logits(config, params, hf_policy.prompts(hf_folders.VOCAB)[0])[-len(expected):]
  return np.abs(found - expected).max() / GOLDEN[name]['scale']


@pytest.fixture(name='loaded', scope='module')
def fixture_loaded(tmp_path_factory):
  made = {}

  def loaded(name):
    if name not in made:
      made[name] = hf_policy.load(hf_folders.write_folder(tmp_path_factory.mktemp(name), hf_folders.CASES[name]))
    return made[name]

  return loaded


@pytest.mark.parametrize('name', GOLDEN)
def test_logits(loaded, name):
  config, _, params = loaded(name)
  assert worst(config, params, name) < TOLERANCE


# The family whose layers see different parts of the cache, and one that sees all of it.
@pytest.mark.parametrize('name', ('gemma3_untied_modern_sharded', 'llama'))
def test_continuation_through_the_cache(loaded, name):
  config, mesh, params = loaded(name)
  second = hf_policy.prompts(hf_folders.VOCAB)[1]
  assert len(set(GOLDEN[name]['greedy'])) > 5
  assert hf_policy.greedy(config, mesh, params, [second]) == [GOLDEN[name]['greedy']]


@pytest.mark.parametrize('name, change', [
    ('gemma3', {'window': 8}), ('gemma3', {'local_rope_theta': 1100.0}), ('gemma3', {'local_layers': (0, 1, 3, 4, 6)}),
    ('gemma3', {'rope_factor': 7.0}), ('gemma3', {'activation': 'silu'}), ('gemma3', {'attention_scale': 12**-0.5}),
    ('llama', {'rope_low_turns': 1.5}), ('llama', {'rope_original_length': 80}),
])
def test_a_small_mistake_would_show(loaded, name, change):
  config, _, params = loaded(name)
  assert worst(dataclasses.replace(config, **change), params, name) > 5 * TOLERANCE
