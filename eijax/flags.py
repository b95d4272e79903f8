"""absl flags of `eijax.train`, and the one way from flags to a config. `eijax.sft` shares what is not of talks.

Each flag names the config value that it overrides; a flag that is not given leaves
the preset's value. Nothing else in the project reads flags.
"""

from collections.abc import Mapping
import dataclasses
import math
import os
from typing import Any

from absl import flags

from eijax import presets
from eijax.config import RunConfig
from eijax.errors import PreemptedError, UsageError
from eijax.hf.architecture import is_hf_folder, read_architecture
from eijax.learning.advantages import ALGORITHMS, algorithm_config
from eijax.training import compilation, policy_source
from eijax.training.machine import MachineConfig, parse_profile_steps

# They count as flags of the command that calls `define`, whose --help shows them.
flags.disclaim_key_flags()

# Flag name -> (dotted config path, help). The type is that of the preset's value.
OVERRIDES: dict[str, tuple[str, str]] = {
    'algorithm': ('algorithm', f'Advantage estimator: {", ".join(sorted(ALGORITHMS))}.'),
    'alpha': ('advantages.alpha', 'Weight of the centred turn credit.'),
    'sigma_min': ('advantages.sigma_min', 'Floor of the standard deviation of rewards in a group.'),
    'clip_epsilon': ('loss.clip_epsilon', 'Half-width of the clip of the importance ratio.'),
    'entropy_coef': ('loss.entropy_coef', 'Weight of the entropy bonus.'),
    'learning_rate': ('optimizer.learning_rate', 'Peak learning rate.'),
    'warmup_fraction': ('optimizer.warmup_fraction', 'Share of the steps over which the learning rate rises.'),
    'final_fraction': ('optimizer.final_fraction', 'Share of the peak at which the cosine decay ends.'),
    'beta1': ('optimizer.beta1', "AdamW's decay of the first moment."),
    'beta2': ('optimizer.beta2', "AdamW's decay of the second moment."),
    'epsilon': ('optimizer.epsilon', "AdamW's epsilon."),
    'weight_decay': ('optimizer.weight_decay', "AdamW's decoupled weight decay."),
    'max_grad_norm': ('optimizer.max_grad_norm', 'Global norm that gradients are clipped to; 0 for none.'),
    'num_steps': ('num_steps', 'Training steps.'),
    'scenarios_per_step': ('episodes.scenarios_per_step', 'Scenarios (groups) a step.'),
    'group_size': ('episodes.group_size', 'Talks per scenario in a step.'),
    'max_rounds': ('episodes.max_rounds', 'Rounds after which a talk ends.'),
    'thinking': ('episodes.thinking', 'Have the policy think inside <think> tags before it speaks.'),
    'seed': ('seed', 'Seed of everything random.'),
    'scenarios': ('scenarios', 'Folder with train/ and test/, each holding SCENE_final.jsonl files.'),
    'mesh': ('mesh', 'Devices per axis, e.g. data=1,fsdp=8,tensor=2 (also sequence=); empty puts as many on fsdp as divide rows_per_minibatch, the rest on sequence.'),
    'simulator_url': ('simulator.urls', 'Comma-separated base URLs (http://host:port/v1); empty for the embedded simulator.'),
    'simulator_model': ('simulator.model', 'Model name that the simulator endpoints know.'),
    'simulator_temperature': ('simulator.temperature', 'Sampling temperature of the simulator.'),
    'simulator_max_tokens': ('simulator.max_tokens', 'Tokens of one simulator answer, its private reflection included.'),
    'simulator_max_attempts': ('simulator.max_attempts', 'Answers asked for until one can be read.'),
    'simulator_timeout_secs': ('simulator.timeout_secs', 'Longest silence of the simulator in a request, in seconds.'),
    'simulator_max_retries': ('simulator.max_retries', 'Tries after a network failure of a request.'),
    'simulator_concurrency': ('simulator.concurrency', 'Requests to the simulator in flight.'),
    'simulator_thinking': ('simulator.thinking', 'Whether the simulator is to think: default, on or off.'),
    'simulator_extra_body': ('simulator.extra_body', 'JSON object with further fields of every request to the simulator.'),
    'temperature': ('sampling.temperature', 'Sampling temperature of the policy.'),
    'top_p': ('sampling.top_p', 'Nucleus of the policy; 1 keeps every token.'),
    'top_k': ('sampling.top_k', 'Most probable tokens kept; 0 keeps every token.'),
    'max_new_tokens': ('sampling.max_new_tokens', 'Tokens that the policy may sample in a turn.'),
    'num_slots': ('sampler.num_slots', 'Talks that are sampled at once, by all processes together.'),
    'spans': ('sampler.spans', 'Comma-separated cache lengths to compile for; the last is the context length in tokens.'),
    'chunks': ('sampler.chunks', 'Comma-separated prefill lengths to compile for, in tokens.'),
    'row_lengths': ('packing.row_lengths', 'Comma-separated lengths of packed rows to compile for, in tokens.'),
    'rows_per_minibatch': ('packing.rows_per_minibatch', 'Rows of an optimizer update.'),
    'num_minibatches': ('packing.num_minibatches', 'Optimizer updates that a step aims at.'),
    'num_micro_batches': ('learner.num_micro_batches', 'Parts of a mini-batch whose gradients are added up; 0 for rows of one on each data shard.'),
    'chunk_length': ('learner.chunk_length', 'Scored tokens of a device whose logits exist at a time; 0 for all.'),
    'missing_think_penalty': ('rewards.missing_think_penalty', 'Penalty times the share of turns without a thought.'),
    'parse_penalty': ('rewards.parse_penalty', 'Penalty, once, for a talk with a malformed turn.'),
    'format_penalty': ('rewards.format_penalty', 'Penalty times the share of turns with a format fault; 0 is off.'),
    'hard_veto': ('rewards.hard_veto', 'Reward -1 for a talk with a format fault.'),
    'eval_samples': ('evaluation.num_samples', 'Held-out talks per scenario.'),
    'eval_every': ('evaluation.every', 'Steps between held-out evaluations; 0 for only before and after.'),
    'checkpoint_every': ('checkpoint_every', 'Steps between checkpoints.'),
    'vocab_size': ('policy.vocab_size', 'Pieces of the vocabulary.'),
    'num_layers': ('policy.num_layers', 'Decoder layers.'),
    'hidden_dim': ('policy.hidden_dim', 'Width of the residual stream.'),
    'num_heads': ('policy.num_heads', 'Query heads.'),
    'num_kv_heads': ('policy.num_kv_heads', 'Key-value heads.'),
    'head_dim': ('policy.head_dim', 'Width of a head.'),
    'mlp_dim': ('policy.mlp_dim', 'Width of the gated MLP.'),
    'rope_theta': ('policy.rope_theta', 'Base of the rotary angles.'),
    'norm_eps': ('policy.norm_eps', 'Epsilon of the RMS norms.'),
    'tie_embeddings': ('policy.tie_embeddings', 'Share the embedding with the output head.'),
    'scan_unroll': ('policy.scan_unroll', 'Layers per iteration of the scan over layers.'),
    'param_dtype': ('policy.param_dtype', 'Type of the weights that the optimizer updates.'),
    'compute_dtype': ('policy.compute_dtype', 'Type that the layers multiply in: float32 or bfloat16.'),
    'gradient_dtype': ('policy.gradient_dtype', 'Type that gradients are added up in over devices: float32 or bfloat16.'),
    'attention': ('policy.attention', 'Attention of the learner: auto, reference, splash (TPU) or cudnn (NVIDIA GPU).'),
    'remat': ('policy.remat', 'What the backward pass recomputes: none, full, dots, attention or offload; see PolicyConfig.'),
    'lora_rank': ('policy.lora.rank', 'Rank of a LoRA adapter, which is trained in place of the weights; 0 trains the weights.'),
    'lora_alpha': ('policy.lora.alpha', 'Scale of the adapter, times its rank.'),
    'lora_targets': ('policy.lora.targets', 'Comma-separated linear maps that the adapter stands beside.'),
    'warmup_exercises': ('warmup.num_exercises', 'Exercises of the supervised warm-up.'),
    'warmup_talks': ('warmup.num_talks', 'Scripted talks of the supervised warm-up.'),
    'warmup_passes': ('warmup.num_passes', 'Passes over the scripted talks.'),
    'warmup_learning_rate': ('warmup.optimizer.learning_rate', 'Peak learning rate of the supervised warm-up.'),
    'warmup_row_lengths': ('warmup.packing.row_lengths', 'Comma-separated lengths of packed rows of the warm-up, in tokens.'),
    'warmup_rows': ('warmup.packing.rows_per_minibatch', 'Rows of an update of the supervised warm-up.'),
}

_KINDS = (
    (bool, flags.DEFINE_bool), (int, flags.DEFINE_integer), (float, flags.DEFINE_float), (tuple, flags.DEFINE_list),
    (str, flags.DEFINE_string),
)


def value_at(config: Any, path: str) -> Any:
  """The config value at a dotted path."""
  for name in path.split('.'):
    config = getattr(config, name, None)
  return config


def replace_at(config: Any, changes: Mapping[str, Any]) -> Any:
  """The config with other values at dotted paths.

  Each part is made once, with all of its changes: values that bound each other may change together.
  """
  parts: dict[str, dict[str, Any]] = {}
  values = {}
  for path, value in changes.items():
    name, _, rest = path.partition('.')
    if not rest:
      values[name] = value
    elif getattr(config, name) is None:
      raise UsageError(f'{path} cannot be set: this preset has no {name}')
    else:
      parts.setdefault(name, {})[rest] = value
  values |= {name: replace_at(getattr(config, name), inner) for name, inner in parts.items()}
  return dataclasses.replace(config, **values)


def _shown(value: Any) -> str:
  return ','.join(map(str, value)) if isinstance(value, tuple) else str(value)


def define_policy(flag_values: flags.FlagValues, workdir: str) -> None:
  """Define --preset, --policy, --tpu, --workdir and --resume.

  Args:
    workdir: how the default folder is called.
  """
  flags.DEFINE_string(
      'preset', 'demo', f'Recipe that the other flags start from: {", ".join(presets.PRESETS)}. With the folder of a '
      'Hugging Face model as --policy the default is the Qwen3 preset nearest in size, with that of a former run its '
      "own.", flag_values=flag_values)
  flags.DEFINE_string(
      'policy', None, 'Policy to start from: a preset name, the folder of a Hugging Face model (Qwen3, Qwen2.5, Llama 3, '
      "Gemma 3), or that of a former run. Default: the preset's own.", flag_values=flag_values)
  flags.DEFINE_bool('tpu', False, 'Run on the TPU devices of this host or pod slice, and on nothing else.', flag_values=flag_values)
  flags.DEFINE_string('workdir', None, f'Folder of the run. Default: {workdir}.', flag_values=flag_values)
  flags.DEFINE_bool(
      'resume', True, 'Go on where the workdir stopped; with --noresume a workdir with a run in it is refused.',
      flag_values=flag_values)


def define_machine(flag_values: flags.FlagValues) -> None:
  """Define the flags of `build_machine`."""
  defaults = MachineConfig()
  flags.DEFINE_float(
      'grace_secs', defaults.grace_secs, 'Seconds from SIGTERM (a spot machine that is taken back) to the end of the process, which '
      f'saves first and exits with {PreemptedError.exit_code}: the same command then goes on.', flag_values=flag_values)
  flags.DEFINE_string(
      'compilation_cache', '', f'Folder that keeps compiled programs for the next start; {compilation.OFF} for none. Default: '
      'JAX_COMPILATION_CACHE_DIR, else eijax/compiled in the cache folder of the user (~/.cache), if it can be written.',
      flag_values=flag_values)
  flags.DEFINE_string(
      'profile_steps', None, 'FIRST:END, e.g. 3:5: profile the steps 3 and 4 (counted from 0) into WORKDIR/profile, for XProf or '
      'TensorBoard.', flag_values=flag_values)
  flags.DEFINE_string(
      'coordinator', None, 'HOST:PORT of process 0, where a run has several processes; the same for all. On a TPU pod slice --tpu '
      'finds it, and the next two, by itself.', flag_values=flag_values)
  flags.DEFINE_integer('num_processes', None, 'Processes of the run.', flag_values=flag_values)
  flags.DEFINE_integer('process_id', None, 'Which of them this is, from 0.', flag_values=flag_values)
  flags.DEFINE_float(
      'peer_timeout_secs', defaults.peer_timeout_secs, 'Seconds of silence after which another process is taken for gone, and this '
      'one ends.', flag_values=flag_values)
  flags.DEFINE_float(
      'join_timeout_secs', defaults.join_timeout_secs, 'Seconds to wait for all processes at the start.', flag_values=flag_values)


def define_overrides(table: Mapping[str, tuple[str, str]], example: Any, flag_values: flags.FlagValues) -> None:
  """Define a flag for each config value of a table; its type is that of the value in `example`, the demo's config."""
  for name, (path, text) in table.items():
    value = value_at(example, path)
    # The first that fits: a bool is an int too.
    define_fn = next(fn for kind, fn in _KINDS if isinstance(value, kind))
    define_fn(name, None, f'{text} Default: of the preset (demo: {_shown(value) or "none"}).', flag_values=flag_values)


def given(table: Mapping[str, tuple[str, str]], config: Any, values: flags.FlagValues) -> dict[str, Any]:
  """Dotted path -> value of those flags of a table that were given.

  Raises:
    UsageError: a number that is not finite, or a list of anything but integers.
  """
  named = {name: values[name].value for name in table if values[name].value is not None}
  return {table[name][0]: _typed(name, value, value_at(config, table[name][0])) for name, value in named.items()}


def define(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Define the flags. Call once, in the entry point; tests give holders of their own."""
  define_policy(flag_values, 'runs/PRESET-ALGORITHM-seedSEED')
  define_machine(flag_values)
  define_overrides(OVERRIDES, presets.get('demo'), flag_values)


def build_machine(values: flags.FlagValues) -> MachineConfig:
  """How this process runs, from parsed flags. No part of a run's settings: it may differ when the run goes on.

  Raises:
    UsageError: a value that breaks a rule.
  """
  return MachineConfig(grace_secs=values.grace_secs, compilation_cache=values.compilation_cache,
                       profile_steps=parse_profile_steps(values.profile_steps),
                       **{name: values[name].value for name in (
                           'coordinator', 'num_processes', 'process_id', 'peer_timeout_secs', 'join_timeout_secs')})


def _typed(name: str, value: Any, example: Any) -> Any:
  if isinstance(value, float) and not math.isfinite(value):
    raise UsageError(f'--{name}={value} must be a finite number, e.g. {_shown(example)}')
  if not isinstance(example, tuple):
    return value
  if name == 'simulator_url' or example and isinstance(example[0], str):
    return tuple(part.strip() for part in value if part.strip())
  try:
    return tuple(int(part) for part in value)
  except ValueError:
    raise UsageError(f'--{name}={",".join(value)} must be comma-separated integers, e.g. {_shown(example)}') from None


def recipe_of(values: flags.FlagValues) -> RunConfig:
  """The recipe that --preset and --policy name, with the shapes of that policy.

  Raises:
    UsageError: an unknown preset.
    DataError: the folder's config.json is broken.
  """
  config = presets.get(values.preset)
  if values.policy is None:
    return config
  if values.policy in presets.PRESETS:
    other = presets.get(values.policy)
    return dataclasses.replace(config, policy=other.policy, warmup=other.warmup)
  named = values.preset if values['preset'].present else None
  if is_hf_folder(values.policy):
    policy = read_architecture(values.policy)
    named = named or presets.nearest(policy)
  elif policy_source.holds_policy(values.policy):
    policy = policy_source.read_shapes(os.path.join(values.policy, 'policy'))
    named = named or policy_source.preset_of(values.policy) or presets.nearest(policy)
  else:
    return dataclasses.replace(config, policy_source=values.policy)  # Refused where its content is looked at.
  return dataclasses.replace(presets.with_policy(presets.get(named), policy), policy_source=values.policy)


def build_config(values: flags.FlagValues) -> RunConfig:
  """The run's config from parsed flags.

  Raises:
    UsageError: an unknown preset or algorithm, or a value that breaks a rule.
  """
  config = recipe_of(values)
  changes = given(OVERRIDES, config, values)
  changes['advantages'] = algorithm_config(
      changes.get('algorithm', config.algorithm), recipe=config.advantages,
      alpha=changes.pop('advantages.alpha', None), sigma_min=changes.pop('advantages.sigma_min', None))
  # The rows of the learner follow a longer context, which they have to hold.
  context = max(changes.get('sampler.spans') or (0,))
  if context > config.packing.row_lengths[-1]:
    changes.setdefault('packing.row_lengths', (context,))
  return replace_at(config, changes)
