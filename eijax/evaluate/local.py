"""A policy on this machine as the model under test. The only part of the command that brings in jax."""

from collections.abc import Callable
import dataclasses
import json

from eijax.errors import UsageError
from eijax.evaluate.config import ModelConfig, ModelFacts
from eijax.learning import sharding
from eijax.policy.decoder import Decoder
from eijax.rollouts.token_policy import TokenPolicy
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.sampling.sampler import BatchSampler
from eijax.settings import to_plain
from eijax.training import devices
from eijax.training.local_policy import describe_local_policy, load_local_policy

_EXTRA = ('top_p', 'top_k')


def describe(model: ModelConfig) -> ModelFacts:
  """What the folder says; no weights are read and no device is touched.

  Raises:
    UsageError, CheckpointError, DataError: see `describe_local_policy`.
  """
  saved = describe_local_policy(model.name)
  sampling = _sampling(saved.sampling, saved.shapes, model)
  thinking = saved.thinking if model.thinking == 'default' else model.thinking == 'on'
  return ModelFacts(
      kind='local', label=saved.name, thinking=thinking, lockstep=True, concurrency=saved.shapes.num_slots,
      settings={'name': str(saved.folder), 'step': saved.step, 'thinking': thinking, **to_plain(sampling)})


def open_policy(
    model: ModelConfig, *, concurrency: int, keep_thoughts: bool
) -> tuple[TokenPolicy, Callable[[str], None]]:
  """Load the policy and compile its sampler.

  Args:
    concurrency: talks at a time; a batch holds no more than the policy's own slots.
  """
  if model.tpu:
    devices.require_tpu()
  mesh = sharding.make_mesh(model.mesh)
  loaded = load_local_policy(model.name, mesh)
  sampling = _sampling(loaded.sampling, loaded.shapes, model)
  shards = sharding.num_data_shards(mesh)
  slots = min(loaded.shapes.num_slots, -(-concurrency // shards) * shards)
  thinking = loaded.thinking if model.thinking == 'default' else model.thinking == 'on'
  sampler = BatchSampler(
      Decoder(loaded.config), mesh, dataclasses.replace(loaded.shapes, num_slots=slots), sampling,
      stop_ids=loaded.chat_format.stop_ids, sampleable_ids=loaded.tokenizer.sampleable_ids(thinking))
  sampler.warm_up(loaded.params)
  sampler.set_params(loaded.params)
  policy = TokenPolicy(loaded.chat_format, sampler, keep_thoughts=keep_thoughts)
  return policy, policy.end_talk


def _sampling(sampling: SamplingConfig, shapes: SamplerShapes, model: ModelConfig) -> SamplingConfig:
  """The policy's own way of sampling, with what the user sets."""
  extra = json.loads(model.extra_body)
  strange = [name for name in extra if name not in _EXTRA]
  if strange:
    raise UsageError(f'model_extra_body={model.extra_body!r}: {strange[0]!r} means nothing to a local policy; '
                     f'use some of {", ".join(_EXTRA)}')
  for name in _EXTRA:
    kinds = (int,) if name == 'top_k' else (int, float)
    if name in extra and (isinstance(extra[name], bool) or not isinstance(extra[name], kinds)):
      raise UsageError(f'model_extra_body={model.extra_body!r}: {name} must be a number')
  own = {'temperature': model.temperature, 'max_new_tokens': model.max_tokens}
  changed = dataclasses.replace(sampling, **extra, **{name: value for name, value in own.items() if value is not None})
  if changed.max_new_tokens >= shapes.max_tokens:
    raise UsageError(f'model_max_tokens={changed.max_new_tokens} must be below the context of the policy, {shapes.max_tokens}')
  return changed
