"""What transformers computed for the same folders (tests/parity/record_policies.py), without transformers."""

import dataclasses
import json
import pathlib

import hf_folders
import hf_policy
import numpy as np
import pytest

from eijax.policy.decoder import Decoder
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.sampling.engine import SamplingEngine
from eijax.sampling.samples import EngineRequest

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


def test_the_engine_goes_on_as_the_sampler_does(loaded):
  """Chunks, neighbours, and a prompt that begins like a held talk, where layers see different parts of the cache."""
  config, mesh, params = loaded('gemma3_untied_modern_sharded')
  first, second = hf_policy.prompts(hf_folders.VOCAB)
  branch = np.concatenate([first[:100], second[:20]])
  shapes = SamplerShapes(num_slots=2, spans=(len(first) + hf_policy.NUM_NEW,), chunks=(64,))
  sampling = SamplingConfig(temperature=1.0, top_p=1.0, top_k=1, max_new_tokens=hf_policy.NUM_NEW)
  with SamplingEngine(Decoder(config), mesh, shapes, sampling, stop_ids=(-1,), sampleable_ids=range(config.vocab_size)) as engine:
    engine.set_params(params)
    found = []
    for prompts in ([first, second], [branch]):
      futures = engine.submit([EngineRequest(prompt_ids=prompt, seed=0) for prompt in prompts])
      found += [future.result().response_ids.tolist() for future in futures]
    assert engine.stats.reused_tokens == 100
  assert found == hf_policy.greedy(config, mesh, params, [first, second]) + hf_policy.greedy(config, mesh, params, [branch])


@pytest.mark.parametrize('name, change', [
    ('gemma3', {'window': 8}), ('gemma3', {'local_rope_theta': 1100.0}), ('gemma3', {'local_layers': (0, 1, 3, 4, 6)}),
    ('gemma3', {'rope_factor': 7.0}), ('gemma3', {'activation': 'silu'}), ('gemma3', {'attention_scale': 12**-0.5}),
    ('llama', {'rope_low_turns': 1.5}), ('llama', {'rope_original_length': 80}),
])
def test_a_small_mistake_would_show(loaded, name, change):
  config, _, params = loaded(name)
  assert worst(dataclasses.replace(config, **change), params, name) > 5 * TOLERANCE
