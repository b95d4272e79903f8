"""Recipes by name. A preset is a complete config; flags override single values.

The Qwen3 recipes follow arXiv 2606.15532, section 4 and appendix, which trains the 8B and
the 32B policy: the others take the recipe of the former. The shapes are those of the
published models (https://arxiv.org/abs/2505.09388, table 1).
"""

import dataclasses
import math

from eijax.config import EpisodeConfig, EvaluationConfig, LearnerConfig, RunConfig, SftConfig, SimulatorConfig
from eijax.conversations.config import DataConfig
from eijax.errors import UsageError
from eijax.learning.advantages import AdvantageConfig
from eijax.learning.optimizer import OptimizerConfig
from eijax.learning.packing import PackingConfig
from eijax.policy.config import HOW_IT_RUNS, PolicyConfig
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.scenarios.shipped import shipped_folder
from eijax.warmup.config import WarmupConfig

DEFAULT_SCENARIOS = str(shipped_folder())


def demo() -> RunConfig:
  """A tiny policy that learns on two CPU cores in minutes, from the embedded defaults."""
  context = 896
  return RunConfig(
      preset='demo',
      num_steps=10,
      checkpoint_every=5,
      scenarios=DEFAULT_SCENARIOS,
      policy=PolicyConfig(
          vocab_size=3072, num_layers=4, hidden_dim=128, num_heads=2, num_kv_heads=1, head_dim=64, mlp_dim=384,
          tie_embeddings=True, scan_unroll=4),
      sampling=SamplingConfig(temperature=0.6, top_p=0.95, top_k=20, max_new_tokens=44),
      sampler=SamplerShapes(num_slots=64, spans=(448, 640, context), chunks=(64, 384)),
      episodes=EpisodeConfig(scenarios_per_step=8, group_size=8, thinking=False),
      # The embedded simulator shares the machine: more requests in flight would only queue.
      simulator=SimulatorConfig(concurrency=8),
      # The embedded user moves in small steps: the realised changes of a turn have a standard deviation of 0.013, which
      # the paper's weight of 15 would leave at a fifth of the talk's own advantage.
      advantages=AdvantageConfig(alpha=60.0),
      optimizer=OptimizerConfig(learning_rate=4e-4, warmup_fraction=0.2, final_fraction=0.25, beta2=0.98),
      packing=PackingConfig(row_lengths=(768, context), rows_per_minibatch=16, num_minibatches=4),
      learner=LearnerConfig(num_micro_batches=4, chunk_length=256),
      evaluation=EvaluationConfig(num_samples=1, every=0),
      warmup=WarmupConfig(
          num_exercises=1000, num_talks=240, num_passes=2,
          packing=PackingConfig(row_lengths=(384, 768), rows_per_minibatch=3),
          optimizer=OptimizerConfig(learning_rate=4e-3, warmup_fraction=0.05, beta2=0.98)),
  )


def _qwen3(
    name: str, *, num_steps: int = 250, prompt: int = 8192, response: int = 1536, **shapes,
) -> RunConfig:
  """The paper's recipe for a published Qwen3 policy; by default that of the 8B one."""
  context = prompt + response
  return RunConfig(
      preset=name,
      num_steps=num_steps,
      checkpoint_every=10,
      scenarios=DEFAULT_SCENARIOS,
      policy=PolicyConfig(
          vocab_size=151936, num_kv_heads=8, head_dim=128, compute_dtype='bfloat16', **{'remat': 'full', **shapes}),
      sampling=SamplingConfig(temperature=0.6, top_p=0.95, top_k=20, max_new_tokens=1024),
      sampler=SamplerShapes(num_slots=128, spans=(context // 4, context // 2, context), chunks=(256, 1024)),
      episodes=EpisodeConfig(scenarios_per_step=16, group_size=8, thinking=True),
      optimizer=OptimizerConfig(learning_rate=1e-6),
      # About 256 turn samples, or 32 talks, an update: four updates a step.
      packing=PackingConfig(row_lengths=(context,), rows_per_minibatch=128, num_minibatches=4),
      learner=LearnerConfig(num_micro_batches=0, chunk_length=512),
      evaluation=EvaluationConfig(num_samples=1, every=30),
  )


def qwen3_0_6b() -> RunConfig:
  """Qwen3-0.6B by the recipe of the 8B policy."""
  return _qwen3('qwen3_0_6b', num_layers=28, hidden_dim=1024, num_heads=16, mlp_dim=3072, tie_embeddings=True)


def qwen3_1_7b() -> RunConfig:
  """Qwen3-1.7B by the recipe of the 8B policy."""
  return _qwen3('qwen3_1_7b', num_layers=28, hidden_dim=2048, num_heads=16, mlp_dim=6144, tie_embeddings=True)


def qwen3_4b() -> RunConfig:
  """Qwen3-4B by the recipe of the 8B policy."""
  return _qwen3('qwen3_4b', num_layers=36, hidden_dim=2560, num_heads=32, mlp_dim=9728, tie_embeddings=True)


def qwen3_8b() -> RunConfig:
  """Qwen3-8B: 250 steps, prompts of 8,192 and responses of 1,536 tokens."""
  return _qwen3('qwen3_8b', num_layers=36, hidden_dim=4096, num_heads=32, mlp_dim=12288)


def qwen3_14b() -> RunConfig:
  """Qwen3-14B by the recipe of the 8B policy."""
  return _qwen3('qwen3_14b', num_layers=40, hidden_dim=5120, num_heads=40, mlp_dim=17408)


def qwen3_32b() -> RunConfig:
  """Qwen3-32B: 120 steps, prompts of 16,384 and responses of 8,192 tokens."""
  # Layer inputs of a row of 24,576 tokens are 15 GiB, which wait in the memory of the host.
  return _qwen3('qwen3_32b', num_steps=120, prompt=16384, response=8192, remat='offload',
                num_layers=64, hidden_dim=5120, num_heads=64, mlp_dim=25600)


_QWEN3 = {'qwen3_0_6b': qwen3_0_6b, 'qwen3_1_7b': qwen3_1_7b, 'qwen3_4b': qwen3_4b, 'qwen3_8b': qwen3_8b,
          'qwen3_14b': qwen3_14b, 'qwen3_32b': qwen3_32b}
PRESETS = {'demo': demo, **_QWEN3}


def nearest(policy: PolicyConfig) -> str:
  """The Qwen3 preset whose number of weights is nearest to a policy's, as a ratio."""
  return min(_QWEN3, key=lambda name: abs(math.log(_QWEN3[name]().policy.num_params / policy.num_params)))


def with_policy(config: RunConfig, policy: PolicyConfig) -> RunConfig:
  """The recipe for another policy, which is trained already: its architecture, run and adapted as the preset's is."""
  how = {name: getattr(config.policy, name) for name in ('param_dtype', 'lora', *HOW_IT_RUNS)}
  return dataclasses.replace(config, policy=dataclasses.replace(policy, **how), warmup=None)


def get(name: str) -> RunConfig:
  """The preset called `name`.

  Raises:
    UsageError: unknown name.
  """
  if name not in PRESETS:
    raise UsageError(f'preset={name!r} is unknown; use one of {", ".join(PRESETS)}')
  return PRESETS[name]()


def supervised(recipe: RunConfig, data: DataConfig) -> SftConfig:
  """The recipe for fine-tuning the policy of another recipe on conversations.

  A preset with a warm-up of its own lends rows and learning rate. The values for published policies are ours: no
  paper gives them for all sizes.
  """
  warmup = get(recipe.preset).warmup
  optimizer = OptimizerConfig(learning_rate=1e-5, beta2=0.95) if warmup is None else warmup.optimizer
  packing = PackingConfig(row_lengths=(1024, 2048, 4096), rows_per_minibatch=32) if warmup is None else warmup.packing
  return SftConfig(
      preset=recipe.preset, policy_source=recipe.policy_source, scratch=recipe.warmup is not None, mesh=recipe.mesh,
      num_epochs=1 if warmup is None else 4, data=data, policy=recipe.policy, sampling=recipe.sampling, sampler=recipe.sampler, optimizer=optimizer,
      packing=packing,
      learner=dataclasses.replace(recipe.learner, num_micro_batches=1 if warmup is not None else 2))
