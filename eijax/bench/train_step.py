"""Time the update of a mini-batch: forward, CTC-GRPO loss, backward, AdamW, as eijax.train runs them.

Every row is one talk: --prompt_len tokens that are only read, the rest sampled and scored. tokens_per_s counts all of them.
"""

from absl import flags
import jax
import numpy as np

from eijax.bench import measure, shapes
from eijax.config import LearnerConfig
from eijax.errors import UsageError
from eijax.learning import packing, sharding, step as step_lib
from eijax.training import learner as learner_lib


def define_flags(values: flags.FlagValues) -> None:
  shapes.define(values)
  flags.DEFINE_integer('seq_len', 256, 'Tokens of a row.', lower_bound=2, flag_values=values)
  flags.DEFINE_integer('prompt_len', 1, 'Tokens of a row that are not scored.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('num_micro_batches', 1, 'Parts of the mini-batch whose gradients are added up.', lower_bound=1, flag_values=values)
  flags.DEFINE_integer('chunk_length', 512, 'Scored tokens whose logits exist at a time; 0 for all.', lower_bound=0, flag_values=values)
  flags.DEFINE_integer('lora_rank', 0, 'Rank of an adapter that is trained in place of the weights; 0 trains the weights.', lower_bound=0,
                       flag_values=values)


def random_batch(num_rows: int, length: int, prompt_len: int, vocab_size: int, seed: int) -> packing.PackedBatch:
  """Rows of one segment each, full to the end."""
  rng = np.random.default_rng(seed)
  segments = []
  for _ in range(num_rows):
    # The last token of a segment predicts nothing that is in it.
    ids = rng.integers(0, vocab_size, length + 1)
    segments += packing.merge_turns([packing.TurnSample(
        prompt_ids=ids[:prompt_len], response_ids=ids[prompt_len:], advantage=float(rng.normal()),
        behavior_log_probs=np.full(length + 1 - prompt_len, -np.log(vocab_size), np.float32))])
  return packing.fill_rows(segments, [[row] for row in range(num_rows)], num_rows=num_rows, row_length=length)


def run(values: flags.FlagValues, arguments: list[str]) -> None:
  shapes.no_arguments(arguments)
  if values.prompt_len >= values.seq_len:
    raise UsageError(f'prompt_len={values.prompt_len} must be below seq_len={values.seq_len}: what is left is scored')
  config = shapes.config(
      values, shapes.policy(values, lora_rank=values.lora_rank), length=values.seq_len, chunk=values.seq_len, new_tokens=1,
      learner=LearnerConfig(num_micro_batches=values.num_micro_batches, chunk_length=values.chunk_length))
  mesh = learner_lib.run_mesh(config)
  sharding.check_rows(values.batch, mesh, values.num_micro_batches, 'batch')
  sharding.check_row_length(values.seq_len, mesh)
  learner = learner_lib.make_learner(config, mesh)
  state = step_lib.create_train_state(
      step_lib.params_init(learner.decoder), learner.optimizer, mesh, jax.random.key(values.seed))
  host_batch = random_batch(values.batch, values.seq_len, values.prompt_len, values.vocab, values.seed)
  rate = np.float32(1e-4)
  metrics = {}

  def update() -> None:
    nonlocal state, metrics
    state, metrics = learner.update(state, learner.put(host_batch), rate)
    jax.block_until_ready((state, metrics))

  timing = measure.timed(update, values.reps)
  measure.report('train_step', timing, host_batch.tokens.size, config, scored_tokens=int(host_batch.loss_mask.sum()),
                 loss=float(metrics['loss']))
