"""All values of a run, in one frozen tree: `RunConfig` of a training by talks, `SftConfig` of a fine-tuning.

Each room declares and checks its own part; here the parts meet, and facts that span
them are checked. A run is a function of one config.
"""

import dataclasses

from eijax.conversations.config import DataConfig
from eijax.errors import UsageError
from eijax.learning.advantages import AdvantageConfig, algorithm_config
from eijax.learning.losses import PolicyLossConfig
from eijax.learning.optimizer import OptimizerConfig
from eijax.learning.packing import PackingConfig
from eijax.policy.config import PolicyConfig
from eijax.rewards.config import RewardConfig
from eijax.sampling.config import SamplerShapes, SamplingConfig
from eijax.simulator.config import SimulatorConfig
from eijax.warmup.config import WarmupConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeConfig:
  """Talks of a step: scenarios_per_step groups of group_size, at most max_rounds rounds each.

  thinking: the policy is told to think inside <think> tags first.
  """

  scenarios_per_step: int = 16
  group_size: int = 8
  max_rounds: int = 8
  thinking: bool = True

  def __post_init__(self):
    for name in ('scenarios_per_step', 'group_size', 'max_rounds'):
      if getattr(self, name) < 1:
        raise UsageError(f'{name}={getattr(self, name)} must be at least 1')


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerConfig:
  """num_micro_batches: of each mini-batch, whose gradients are added up. chunk_length: positions
  whose logits exist at a time; 0 for all."""

  num_micro_batches: int = 1
  chunk_length: int = 512

  def __post_init__(self):
    if self.num_micro_batches < 1 or self.chunk_length < 0:
      raise UsageError(f'num_micro_batches={self.num_micro_batches} must be at least 1, '
                       f'chunk_length={self.chunk_length} at least 0')


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
  """Held-out talks: num_samples per scenario, before, after, and every `every` steps (0: not between)."""

  num_samples: int = 1
  every: int = 30

  def __post_init__(self):
    if self.num_samples < 1 or self.every < 0:
      raise UsageError(f'eval_samples={self.num_samples} must be at least 1, eval_every={self.every} at least 0')


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """One training run. `policy_source` is empty for the preset's own policy, else a folder."""

  preset: str
  algorithm: str = 'ctc_grpo'
  seed: int = 0
  num_steps: int = 250
  checkpoint_every: int = 10
  scenarios: str
  policy_source: str = ''
  mesh: str = ''
  policy: PolicyConfig
  sampling: SamplingConfig
  sampler: SamplerShapes
  episodes: EpisodeConfig
  simulator: SimulatorConfig = SimulatorConfig()
  rewards: RewardConfig = RewardConfig()
  advantages: AdvantageConfig = AdvantageConfig()
  loss: PolicyLossConfig = PolicyLossConfig()
  optimizer: OptimizerConfig = OptimizerConfig()
  packing: PackingConfig
  learner: LearnerConfig = LearnerConfig()
  evaluation: EvaluationConfig = EvaluationConfig()
  warmup: WarmupConfig | None = None

  def __post_init__(self):
    if self.num_steps < 1 or self.checkpoint_every < 1 or self.seed < 0:
      raise UsageError(f'num_steps={self.num_steps} and checkpoint_every={self.checkpoint_every} must be at least 1, '
                       f'seed={self.seed} at least 0')
    if self.sampling.max_new_tokens >= self.sampler.max_tokens:
      raise UsageError(f'max_new_tokens={self.sampling.max_new_tokens} must be below the context, '
                       f'spans[-1]={self.sampler.max_tokens}')
    if self.packing.row_lengths[-1] < self.sampler.max_tokens:
      raise UsageError(f'row_lengths={self.packing.row_lengths} must end at {self.sampler.max_tokens} (the context, '
                       'spans[-1]) or above: the learner has to hold every talk that the sampler can produce')
    named = algorithm_config(self.algorithm, alpha=self.advantages.alpha, sigma_min=self.advantages.sigma_min)
    if named != self.advantages:
      raise UsageError(f'advantages={self.advantages} are not those of algorithm={self.algorithm!r}, {named}; change one of them')


@dataclasses.dataclass(frozen=True, kw_only=True)
class TalkConfig:
  """thinking: the policy thinks before it speaks, and learns the thoughts that conversations hold."""

  thinking: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig:
  """One supervised fine-tuning.

  policy_source: as in RunConfig; without one, `scratch` says whether the policy starts from random weights and a
    tokenizer of its own. num_epochs: passes over the conversations. max_steps: optimizer updates to stop after, 0 for
    all. evaluate_every: updates between measurements of the held-out loss, 0 for only before and after. packing:
    rows_per_minibatch counts rows of the longest length, shorter ones are more in number; num_minibatches follows
    from the conversations. sampling, sampler, episodes: of the talks that the result will hold, as in RunConfig.
  """

  algorithm: str = 'sft'
  preset: str
  seed: int = 0
  num_epochs: int = 1
  max_steps: int = 0
  checkpoint_every: int = 100
  evaluate_every: int = 100
  policy_source: str = ''
  scratch: bool = False
  mesh: str = ''
  data: DataConfig
  policy: PolicyConfig
  sampling: SamplingConfig
  sampler: SamplerShapes
  episodes: TalkConfig = TalkConfig()
  optimizer: OptimizerConfig
  packing: PackingConfig
  learner: LearnerConfig = LearnerConfig()

  def __post_init__(self):
    if self.num_epochs < 1 or self.checkpoint_every < 1:
      raise UsageError(f'num_epochs={self.num_epochs} and checkpoint_every={self.checkpoint_every} must be at least 1')
    for name in ('max_steps', 'evaluate_every', 'seed'):
      if getattr(self, name) < 0:
        raise UsageError(f'{name}={getattr(self, name)} must be at least 0')
