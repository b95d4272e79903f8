"""absl flags of `eijax.sft`, and the one way from flags to a config."""

from absl import flags

from eijax import flags as flags_lib, presets
from eijax.config import SftConfig
from eijax.conversations.config import TOO_LONG, DataConfig
from eijax.errors import UsageError

# They count as flags of the command that calls `define`, whose --help shows them.
flags.disclaim_key_flags()

# Those that mean here what they mean for eijax.train.
SHARED = (
    'learning_rate', 'warmup_fraction', 'final_fraction', 'beta1', 'beta2', 'epsilon', 'weight_decay', 'max_grad_norm',
    'seed', 'mesh', 'row_lengths', 'rows_per_minibatch', 'num_micro_batches', 'chunk_length', 'vocab_size', 'num_layers',
    'hidden_dim', 'num_heads', 'num_kv_heads', 'head_dim', 'mlp_dim', 'rope_theta', 'norm_eps', 'tie_embeddings',
    'scan_unroll', 'param_dtype', 'compute_dtype', 'gradient_dtype', 'attention', 'remat', 'temperature', 'top_p', 'top_k',
    'max_new_tokens', 'num_slots', 'spans', 'chunks', 'lora_rank', 'lora_alpha', 'lora_targets',
)
# Flag name -> (dotted config path, help).
OVERRIDES: dict[str, tuple[str, str]] = {
    'data': ('data.sources', 'Comma-separated sources to train on: chat JSONL files ({"messages": [{"role", "content"}, ...]} a '
             'line), folders that tensorflow-datasets has prepared, or names of its data sets. Required.'),
    'split': ('data.split', 'Split of data sets to train on, e.g. train or train[:10%]; files are read whole.'),
    'held_out': ('data.held_out', 'Source of held-out conversations; empty takes --held_out_fraction of --data.'),
    'held_out_split': ('data.held_out_split', 'Split of --held_out, if that is a data set.'),
    'held_out_fraction': ('data.held_out_fraction', 'Share of the distinct conversations of --data that is held out, drawn by '
                          'seed; 0 for none. Not used with --held_out.'),
    'data_dir': ('data.data_dir', 'Folder of prepared data sets; empty for that of tensorflow-datasets.'),
    'too_long': ('data.too_long', f'Conversations beyond the longest row: {" or ".join(TOO_LONG)}. cut keeps the turns that '
                 'fit, drop leaves them out; both are counted.'),
    'num_epochs': ('num_epochs', 'Passes over the conversations.'),
    'max_steps': ('max_steps', 'Optimizer updates to stop after; 0 for all of the passes.'),
    'checkpoint_every': ('checkpoint_every', 'Updates between checkpoints.'),
    'eval_every': ('evaluate_every', 'Updates between measurements of the held-out loss; 0 for only before and after.'),
    'thinking': ('episodes.thinking', 'Learn the thoughts at the head of assistant turns (<think>...</think>) and have the '
                 'result think; without it they are left out and counted.'),
    **{name: flags_lib.OVERRIDES[name] for name in SHARED},
}
_EXAMPLE = DataConfig(sources=('chats.jsonl',))


def define(flag_values: flags.FlagValues = flags.FLAGS) -> None:
  """Define the flags. Call once, in the entry point; tests give holders of their own."""
  flags_lib.define_policy(flag_values, 'runs/PRESET-sft-seedSEED')
  flags_lib.define_machine(flag_values)
  flags_lib.define_overrides(OVERRIDES, presets.supervised(presets.get('demo'), _EXAMPLE), flag_values)


def build_config(values: flags.FlagValues) -> SftConfig:
  """The run's config from parsed flags.

  Raises:
    UsageError: no data, an unknown preset, or a value that breaks a rule.
  """
  if not [part for part in values.data or () if part.strip()]:
    raise UsageError('--data= must name at least one source; give a chat JSONL file, or the name of a tensorflow-datasets set')
  config = presets.supervised(flags_lib.recipe_of(values), _EXAMPLE)
  return flags_lib.replace_at(config, flags_lib.given(OVERRIDES, config, values))
