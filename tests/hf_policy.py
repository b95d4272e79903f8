"""The policy of a Hugging Face folder, run by this project: logits and greedy continuations."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np

from eijax.hf.architecture import read_architecture
from eijax.hf.files import WeightFiles
from eijax.hf.load import load_params
from eijax.learning import sharding, step
from eijax.policy import lora
from eijax.policy.decoder import Decoder
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.sampling.sampler import BatchSampler

# Beyond the windows and the original context lengths of the folders, and two lengths at once.
PROMPT_LENGTHS = (150, 90)
NUM_NEW = 64


def prompts(vocab: int, lengths=PROMPT_LENGTHS) -> list[np.ndarray]:
  rng = np.random.RandomState(7)
  return [rng.randint(0, vocab, length).astype(np.int32) for length in lengths]


def abstract_params(config, mesh):
  boxed = jax.eval_shape(step.params_init(Decoder(config)), jax.random.key(0))
  shardings = sharding.tree_shardings(boxed, mesh)
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), shardings)


def load(folder, mesh_spec: str = '', num_devices: int = 1, **changes):
  """(config, mesh, params) of a folder; `changes` are of the config, e.g. its dtypes. Without an adapter."""
  config = dataclasses.replace(read_architecture(folder), **changes)
  mesh = sharding.make_mesh(mesh_spec, devices=jax.devices()[:num_devices])
  return config, mesh, load_params(WeightFiles(folder), config, lora.base_of(abstract_params(config, mesh)))


@functools.partial(jax.jit, static_argnums=0)
def _logits(config, params, tokens, positions, segment_ids):
  return Decoder(config).apply({'params': params}, tokens, positions, segment_ids)


def logits(config, params, prompt) -> np.ndarray:
  """float32[len(prompt), V] by the training path."""
  positions = np.arange(len(prompt), dtype=np.int32)[None]
  return np.asarray(_logits(config, params, np.asarray(prompt)[None], positions, np.ones_like(positions)))[0]


def greedy(config, mesh, params, prompts_of) -> list[list[int]]:
  """NUM_NEW most probable tokens after each prompt, by the sampler and its cache."""
  longest = max(map(len, prompts_of)) + NUM_NEW
  sampler = BatchSampler(
      Decoder(config), mesh, SamplerShapes(num_slots=2, spans=(longest,), chunks=(64,)),
      SamplingConfig(temperature=1.0, top_p=1.0, top_k=1, max_new_tokens=NUM_NEW), stop_ids=(-1,),
      sampleable_ids=range(config.vocab_size))
  sampler.set_params(params)
  futures = sampler.submit([(prompt, 0, str(i)) for i, prompt in enumerate(prompts_of)])
  return [future.result().response_ids.tolist() for future in futures]
