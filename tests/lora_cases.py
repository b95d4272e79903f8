"""Policies with an adapter that is not at its start, for the tests of adapters."""

import dataclasses

import jax
import numpy as np

from eijax.learning import sharding, step
from eijax.policy import lora
from eijax.policy.config import LoraConfig
from eijax.policy.decoder import Decoder
from eijax.training import policy_source

# Rank and scale are none of the sizes of any policy here.
LORA = LoraConfig(rank=3, alpha=7.5)


def adapted(config, adapter=LORA):
  return dataclasses.replace(config, lora=adapter)


def one_device():
  return sharding.make_mesh('', devices=jax.devices()[:1])


def with_fresh_adapter(base, config, seed=0):
  """Params of `config`, which has an adapter, around those of its base."""
  abstract = policy_source.abstract_params(config, one_device())
  return step.with_fresh_adapter(base, step.params_init(Decoder(config)), abstract, jax.random.key(seed))


def moved(params, size=0.2, seed=1):
  """The same base; random numbers on the adapter, so that B is not 0."""
  trained, frozen = lora.split(params)
  leaves, treedef = jax.tree.flatten(trained)
  rng = np.random.default_rng(seed)
  leaves = [jax.device_put(np.asarray(x) + rng.normal(0, size, x.shape).astype(np.float32), x.sharding) for x in leaves]
  return lora.join(jax.tree.unflatten(treedef, leaves), frozen)
