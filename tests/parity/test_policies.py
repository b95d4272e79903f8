"""Logits, continuations and exported folders against transformers."""

import hf_folders
import hf_policy
import numpy as np
import pytest
import transformers_policy

TEXT_ONLY = [name for name, case in hf_folders.CASES.items() if not case.nested]


@pytest.fixture(scope='module')
def folder_of(tmp_path_factory):
  made = {}

  def folder(name, dtype='float32'):
    if (name, dtype) not in made:
      made[name, dtype] = hf_folders.write_folder(
          tmp_path_factory.mktemp(name), hf_folders.CASES[name], dtype=dtype)
    return made[name, dtype]

  return folder


def relative(found, expected):
  """Largest difference against the scale of the logits."""
  return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize('name', TEXT_ONLY)
def test_logits_and_continuations(name, folder_of):
  folder = folder_of(name)
  config, mesh, params = hf_policy.load(folder)
  model = transformers_policy.load(folder)
  prompts = hf_policy.prompts(config.vocab_size)
  for prompt in prompts:
    expected = transformers_policy.logits(model, prompt)
    assert expected.std() > 0.5  # Something to compare.
    # Float32 on both sides, summed in other orders.
    assert relative(hf_policy.logits(config, params, prompt), expected) < 2e-4
  expected = [transformers_policy.greedy(model, prompt, hf_policy.NUM_NEW) for prompt in prompts]
  assert hf_policy.greedy(config, mesh, params, prompts) == expected
