"""One supervised fine-tuning, from conversations to a policy.

Conversations -> token ids and loss masks (examples) -> mini-batches (epochs) -> updates of the learner -> held-out
loss, metrics, checkpoints, report.
"""

import contextlib
import itertools
import pathlib
import time
from collections.abc import Sequence

import jax
import numpy as np
import tqdm

from eijax import jsonl
from eijax.checkpoints import layout
from eijax.checkpoints.folder import CheckpointFolder
from eijax.config import SftConfig
from eijax.conversations.record import Conversation
from eijax.conversations.split import digest_of, split_held_out
from eijax.datasets.chats import load_chats
from eijax.errors import UsageError
from eijax.learning import optimizer as optimizer_lib, sharding
from eijax.learning.supervised import PlannedBatch, SupervisedLearner
from eijax.policy.decoder import Decoder
from eijax.report.write import write_report
from eijax.scenarios.load import load_split
from eijax.scenarios.shipped import shipped_folder
from eijax.settings import to_plain
from eijax.sft.epochs import plan_epoch
from eijax.sft.examples import Examples, make_examples
from eijax.sft.held_out import HeldOut
from eijax.text.ports import Tokenizer
from eijax.text.tokenizer import train_tokenizer
from eijax.training import devices, policy_source
from eijax.training.measures import Stopwatch, mean_of_updates
from eijax.training.run_folder import RunFolder
from eijax.warmup.corpus import tokenizer_lines

DATA = 'data.json'


def fine_tune(config: SftConfig, workdir: str, *, tpu: bool, resume: bool) -> None:
  """Run (or go on with) the fine-tuning that `config` describes."""
  # ---- Devices and what can be refused before any work -------------------------------------------
  if tpu:
    devices.require_tpu()
  mesh = sharding.make_mesh(config.mesh)
  print(f'devices: {len(jax.devices())} x {jax.devices()[0].device_kind}, mesh {dict(mesh.shape)}', flush=True)
  if not config.policy_source and not config.scratch:
    raise UsageError(f'preset={config.preset!r} starts from a trained policy and has none of its own; give --policy=FOLDER')
  if not config.policy_source and config.policy.lora.rank:
    raise UsageError(f'lora_rank={config.policy.lora.rank} adapts a trained policy, and preset={config.preset!r} starts from random '
                     'weights; give --policy=FOLDER, or drop --lora_rank')
  sharding.check_rows(config.packing.rows_per_minibatch, mesh, config.learner.num_micro_batches)
  multiple = sharding.num_data_shards(mesh) * config.learner.num_micro_batches
  learner = SupervisedLearner(
      Decoder(config.policy), optimizer_lib.make_optimizer(config.optimizer), mesh,
      num_micro_batches=config.learner.num_micro_batches, chunk_length=config.learner.chunk_length)

  start_step = layout.latest_step(pathlib.Path(workdir) / 'checkpoints')
  if start_step is None and config.policy_source:
    policy_source.check_source(config)

  # ---- Input -------------------------------------------------------------------------------------
  training, held_out = load_conversations(config)
  run = RunFolder(workdir, to_plain(config) | {'conversations': {
      'training': len(training), 'held_out': len(held_out), 'digest': digest_of([*training, *held_out])}}, resume=resume)
  print(f'{len(training)} conversations to train on, {len(held_out)} held out; workdir {run.path}', flush=True)
  if start_step is not None:
    tokenizer = policy_source.read_tokenizer(run.policy)
  elif config.policy_source:
    tokenizer = policy_source.tokenizer_of(config.policy_source)
  else:
    tokenizer = own_tokenizer(training, config.policy.vocab_size)
  examples, held_out_examples = encode(config, tokenizer, training, held_out)
  epochs = [plan_epoch(examples.segments, config.packing, epoch=epoch, seed=config.seed, multiple=multiple)
            for epoch in range(config.num_epochs)]
  planned = list(itertools.chain(*epochs))[:config.max_steps or None]
  run.claim()
  jsonl.write_json(run.path / DATA, {
      'num_steps': len(planned), 'training': examples.counts(),
      'held_out': held_out_examples.counts() if held_out_examples else None,
      'held_out_seen_in_training': len({c.digest for c in held_out} & {c.digest for c in training})})
  print(_summary(examples, len(planned), config.num_epochs), flush=True)

  with contextlib.ExitStack() as stack:
    # ---- Policy and train state ------------------------------------------------------------------
    checkpoints = stack.enter_context(CheckpointFolder(run.checkpoints))
    if start_step is not None:
      start_step, state, _ = checkpoints.restore(learner.abstract)
      print(f'resumed at step {start_step}', flush=True)
    else:
      start_step = 0
      if config.policy_source:
        state = learner.state_of(policy_source.params_of(config, mesh))
      else:
        state = learner.first_state(config.seed)
      policy_source.save_description(run.policy, config.policy, tokenizer, config.policy_source)
      checkpoints.save(0, state, {'step': 0})
    trained = f', and {config.policy.num_adapter_params:,} of an adapter, which alone is trained' if config.policy.lora.rank else ''
    print(f'policy: {config.policy.num_params:,} parameters{trained}', flush=True)
    run.rewind(start_step)

    # ---- Held-out loss ---------------------------------------------------------------------------
    held_out_loss = HeldOut(held_out_examples, learner, config.packing, run, multiple)

    def evaluate_at(step: int) -> dict[str, float] | None:
      found = held_out_loss.measure(state.params, step)
      if found:
        tqdm.tqdm.write(f'held-out loss at step {step}: {found["loss"]:.4f} nats per token, perplexity {found["perplexity"]:.2f}')
      return found

    if start_step == 0:
      evaluate_at(0)

    # ---- Loop ------------------------------------------------------------------------------------
    progress = stack.enter_context(tqdm.tqdm(total=len(planned), initial=start_step, desc='fine-tuning', unit='step'))
    rows = MetricsRows(run, planned, list(map(len, examples.segments)), [len(epoch) for epoch in epochs], progress)
    batches = (batch.fill(examples.segments) for batch in planned[start_step:])
    rate_at = lambda step: optimizer_lib.learning_rate_at(config.optimizer, step, len(planned))
    for step, state, metrics in learner.updates(state, batches, rate_at, start_step):
      done, last = step + 1, step + 1 == len(planned)
      rows.write()  # Of the step before, which the device ends while this one waits.
      rows.hold(step, metrics)
      if last or config.evaluate_every and done % config.evaluate_every == 0:
        with rows.watch.phase('evaluation'):
          found = evaluate_at(done)
        rows.write(found)
      if last or done % config.checkpoint_every == 0:
        rows.write()  # No step that a checkpoint holds lacks its metrics.
        with rows.watch.phase('checkpoint'):
          checkpoints.save(done, state, {'step': done})
    progress.close()
  print(f'report: {write_report(run.path)}', flush=True)


def load_conversations(config: SftConfig) -> tuple[list[Conversation], list[Conversation]]:
  """(training, held-out) conversations; see DataConfig."""
  data = config.data
  training = [c for source in data.sources for c in load_chats(source, data.split, data.data_dir)]
  if data.held_out:
    return training, load_chats(data.held_out, data.held_out_split, data.data_dir)
  return split_held_out(training, data.held_out_fraction, config.seed)


def own_tokenizer(conversations: Sequence[Conversation], vocab_size: int) -> Tokenizer:
  """A tokenizer for a policy that starts from nothing, trained on the conversations and the shipped training scenarios.

  The scenarios let a small file reach the vocabulary, and the policy read the sheets that it will be evaluated with.
  """
  lines = [line for c in conversations for message in c.messages for line in message.content.splitlines() if line.strip()]
  return train_tokenizer(lines + tokenizer_lines(load_split(shipped_folder(), 'train'), ()), vocab_size)


def encode(
    config: SftConfig, tokenizer: Tokenizer, training: Sequence[Conversation], held_out: Sequence[Conversation],
) -> tuple[Examples, Examples | None]:
  """Token ids and loss masks of both sets."""
  chat_format = tokenizer.chat_format(thinking=config.episodes.thinking)
  if chat_format.thought_opened:
    raise UsageError(f'policy={config.policy_source!r}: its chat template opens a thought before every reply, which conversations '
                     'do not continue; use a template that leaves the thought to the policy')
  with tqdm.tqdm(total=len(training) + len(held_out), desc='encoding', unit='conversation') as progress:
    made = [make_examples(conversations, chat_format, max_length=config.packing.row_lengths[-1], too_long=config.data.too_long,
                          thinking=config.episodes.thinking, name=name, on_each=progress.update) if conversations else None
            for conversations, name in ((training, 'training'), (held_out, 'held-out'))]
  return made[0], made[1]


def _summary(examples: Examples, num_steps: int, num_epochs: int) -> str:
  counts = examples.counts()
  text = (f'{counts["turns"]:,} assistant turns of {counts["tokens"]:,} tokens, in {counts["positions"]:,} positions; '
          f'{num_steps} steps in {num_epochs} epochs')
  lost = [f'{counts[name]:,} {words}' for name, words in (
      ('cut', 'conversations are cut'), ('dropped', 'are dropped as too long'), ('thoughts_left_out', 'thoughts are left out')) if counts[name]]
  return f'{text} ({", ".join(lost)})' if lost else text


class MetricsRows:
  """Writes the metrics of a step once the devices have them, and shows the loss.

  Args:
    lengths: of all segments.
    num_steps_of_epochs: planned mini-batches of each epoch.
  """

  def __init__(
      self, run: RunFolder, planned: Sequence[PlannedBatch], lengths: Sequence[int], num_steps_of_epochs: Sequence[int],
      progress: tqdm.tqdm,
  ):
    self.watch = Stopwatch()
    self._run, self._planned, self._lengths, self._progress = run, planned, lengths, progress
    self._ends = np.concatenate([[0], np.cumsum(num_steps_of_epochs)])
    self._held = None
    self._since = time.perf_counter()

  def hold(self, step: int, metrics: dict[str, jax.Array]) -> None:
    """Keep the metrics of a step that has been dispatched."""
    self._held = step, metrics

  def write(self, held_out: dict[str, float] | None = None) -> None:
    """Write what is held, if anything.

    Raises:
      EijaxError: the policy has diverged.
    """
    if self._held is None:
      return
    (step, metrics), self._held = self._held, None
    learned = mean_of_updates([metrics])
    batch = self._planned[step]
    now = time.perf_counter()
    total, self._since = now - self._since, now
    aside = {name: self.watch.seconds.get(name, 0.0) for name in ('seconds/evaluation', 'seconds/checkpoint')}
    self.watch = Stopwatch()
    members = [index for row in batch.rows for index in row]
    num_positions = sum(self._lengths[index] for index in members)
    del learned['num_updates']  # One a step.
    self._run.add_metrics({
        'step': step, 'epoch': float(np.interp(step + 1, self._ends, np.arange(len(self._ends)))), **learned,
        'held_out_loss': held_out and held_out['loss'], 'held_out_perplexity': held_out and held_out['perplexity'],
        'row_length': batch.row_length, 'segments': len(members),
        'filled_fraction': num_positions / (batch.num_rows * batch.row_length), 'tokens_per_sec': num_positions / total,
        'peak_memory_mib': devices.peak_memory_mib(), 'seconds/update': total - sum(aside.values()), **aside,
        'seconds/total': total})
    self._progress.set_postfix_str(f'loss {learned["loss"]:.3f} nats/token', refresh=False)
    self._progress.update()
