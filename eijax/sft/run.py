"""One supervised fine-tuning, from conversations to a policy.

Conversations -> token ids and loss masks (examples) -> mini-batches (epochs) -> updates of the learner -> held-out
loss, metrics, checkpoints, report.
"""

from collections.abc import Sequence
import contextlib
import itertools
import pathlib

import jax
import tqdm

from eijax import jsonl
from eijax.checkpoints import layout
from eijax.checkpoints.folder import CheckpointFolder
from eijax.config import SftConfig
from eijax.conversations.record import Conversation
from eijax.conversations.split import digest_of, split_held_out
from eijax.datasets.chats import load_chats
from eijax.errors import UsageError
from eijax.learning import hosts, optimizer as optimizer_lib, sharding
from eijax.learning.supervised import SupervisedLearner
from eijax.policy.decoder import Decoder
from eijax.report.write import write_report
from eijax.scenarios.load import load_split
from eijax.scenarios.shipped import shipped_folder
from eijax.settings import to_plain
from eijax.sft.epochs import plan_epoch
from eijax.sft.examples import Examples, make_examples
from eijax.sft.held_out import HeldOut
from eijax.sft.metrics import MetricsRows
from eijax.text.ports import Tokenizer
from eijax.text.tokenizer import train_tokenizer
from eijax.training import compilation, devices, learner as learner_lib, policy_source
from eijax.training.machine import MachineConfig
from eijax.training.peers import Peers
from eijax.training.preemption import Preemption
from eijax.training.profile import ProfileWindow
from eijax.training.run_folder import RunFolder
from eijax.training.scalars import ScalarLog
from eijax.warmup.corpus import tokenizer_lines

DATA = 'data.json'


def fine_tune(
    config: SftConfig, workdir: str, *, tpu: bool, resume: bool, machine: MachineConfig = MachineConfig(), peers: Peers | None = None,
) -> None:
  """Run (or go on with) the fine-tuning that `config` describes.

  Args:
    peers: the processes that run it together, each with this call; default, this one alone. They read the same conversations, and
      share the workdir, whose files process 0 writes.

  Raises:
    PreemptedError: SIGTERM came, and the run is saved.
  """
  preemption = Preemption(machine.grace_secs)
  with contextlib.ExitStack() as stack:
    # ---- Devices and what can be refused before any work -----------------------------------------
    if tpu:
      devices.require_tpu()
    peers = peers or Peers()
    mesh = learner_lib.run_mesh(config)
    compilation.use_cache(machine.compilation_cache)
    stack.enter_context(preemption.watch())
    peers.attach(preemption)
    peers.say(f'devices: {len(jax.devices())} x {jax.devices()[0].device_kind}, mesh {dict(mesh.shape)}'
              + (f', {peers.count} processes' if peers.count > 1 else ''))
    if not config.policy_source and not config.scratch:
      raise UsageError(f'preset={config.preset!r} starts from a trained policy and has none of its own; give --policy=FOLDER')
    if not config.policy_source and config.policy.lora.rank:
      raise UsageError(f'lora_rank={config.policy.lora.rank} adapts a trained policy, and preset={config.preset!r} starts from random '
                       'weights; give --policy=FOLDER, or drop --lora_rank')
    hosts.check_processes(mesh)
    num_micro_batches = learner_lib.num_micro_batches(config, mesh)
    sharding.check_rows(config.packing.rows_per_minibatch, mesh, num_micro_batches)
    for length in config.packing.row_lengths:
      sharding.check_row_length(length, mesh)
    multiple = sharding.num_data_shards(mesh) * num_micro_batches
    learner = SupervisedLearner(
        Decoder(config.policy), optimizer_lib.make_optimizer(config.optimizer), mesh,
        num_micro_batches=num_micro_batches, chunk_length=config.learner.chunk_length)

    start_step = peers.exchange(layout.latest_step(pathlib.Path(workdir) / 'checkpoints'))[0]
    if start_step is None and config.policy_source:
      policy_source.check_source(config)

    # ---- Input -----------------------------------------------------------------------------------
    training, held_out = load_conversations(config)
    run = _run_folder(config, workdir, training, held_out, resume, peers)
    peers.say(f'{len(training)} conversations to train on, {len(held_out)} held out; workdir {run.path}')
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
    machine.check_profile(len(planned))
    if peers.is_first:
      run.claim()
      jsonl.write_json(run.path / DATA, {
          'num_steps': len(planned), 'training': examples.counts(),
          'held_out': held_out_examples.counts() if held_out_examples else None,
          'held_out_seen_in_training': len({c.digest for c in held_out} & {c.digest for c in training})})
    peers.say(_summary(examples, len(planned), config.num_epochs))

    # ---- Policy and train state ------------------------------------------------------------------
    peers.exchange(None)  # Devices wait for each other only half a minute.
    checkpoints = stack.enter_context(CheckpointFolder(run.checkpoints))
    if start_step is not None:
      start_step, state, _ = checkpoints.restore(learner.abstract, start_step)
      peers.say(f'resumed at step {start_step}')
    else:
      start_step = 0
      if config.policy_source:
        state = learner.state_of(policy_source.params_of(config, mesh))
      else:
        state = learner.first_state(config.seed)
      if peers.is_first:
        policy_source.save_description(run.policy, config.policy, tokenizer, config.policy_source)
      with preemption.held():
        checkpoints.save(0, state, {'step': 0})
    done = start_step  # `state` is that after `done` steps, wherever a notice may be raised.
    trained = f', and {config.policy.num_adapter_params:,} of an adapter, which alone is trained' if config.policy.lora.rank else ''
    peers.say(f'policy: {config.policy.num_params:,} parameters{trained}')
    if peers.is_first:
      run.rewind(start_step)
    scalars = stack.enter_context(ScalarLog(run.tensorboard, start_step)) if peers.is_first else None
    progress = stack.enter_context(tqdm.tqdm(
        total=len(planned), initial=start_step, desc='fine-tuning', unit='step', disable=not peers.is_first))
    rows = MetricsRows(run if peers.is_first else None, scalars, planned, list(map(len, examples.segments)),
                       [len(epoch) for epoch in epochs], progress)

    def save_now() -> int:
      peers.agree_to_leave(preemption)
      rows.write()
      if peers.exchange(done not in checkpoints.steps())[0]:
        checkpoints.save(done, state, {'step': done})
      peers.exchange('saved')
      return done

    stack.enter_context(preemption.leaving(save_now))

    # ---- Held-out loss ---------------------------------------------------------------------------
    held_out_loss = HeldOut(held_out_examples, learner, config.packing, run, multiple, peers, preemption)

    def evaluate_at(step: int) -> dict[str, float] | None:
      found = held_out_loss.known(step)
      if found is None:
        found = held_out_loss.measure(state.params, step)
      if found and peers.is_first:
        scalars.add(step, found, 'held_out/')
        tqdm.tqdm.write(f'held-out loss at step {step}: {found["loss"]:.4f} nats per token, perplexity {found["perplexity"]:.2f}')
      return found

    def is_evaluated(step: int) -> bool:
      return step in (0, len(planned)) or bool(config.evaluate_every) and step % config.evaluate_every == 0

    # Also a run that was stopped in a measurement, if it comes back with the very policy that was measured.
    if is_evaluated(start_step):
      found = evaluate_at(start_step)
      if start_step and peers.is_first:
        rows.complete(start_step - 1, found)

    # ---- Loop ------------------------------------------------------------------------------------
    profile = stack.enter_context(ProfileWindow(machine.profile_steps, run.profile))
    batches = (batch.fill(examples.segments) for batch in planned[start_step:])
    rate_at = lambda step: optimizer_lib.learning_rate_at(config.optimizer, step, len(planned))
    updates = learner.updates(state, batches, rate_at, start_step)
    for step in range(start_step, len(planned)):
      # The state before an update is gone once it has begun: from there to the end of the step a notice waits.
      with profile.step(step), peers.together(preemption):
        _, state, metrics = next(updates)
        rows.write()  # Of the step before, which the device ends while this one waits.
        rows.hold(step, metrics)
        done = step + 1
        last = done == len(planned)
        if is_evaluated(done):
          with rows.watch.phase('seconds/evaluation'):
            found = evaluate_at(done)
          rows.write(found)
        if last or done % config.checkpoint_every == 0:
          rows.write()  # No step that a checkpoint holds lacks its metrics.
          with rows.watch.phase('seconds/checkpoint'):
            checkpoints.save(done, state, {'step': done})
    progress.close()
    if peers.is_first:
      peers.say(f'report: {write_report(run.path)}')


def _run_folder(
    config: SftConfig, workdir: str, training: Sequence[Conversation], held_out: Sequence[Conversation], resume: bool, peers: Peers,
) -> RunFolder:
  """The folder of the run, whose settings name the conversations.

  Raises:
    UsageError: it holds another run, or the processes have read different conversations.
  """
  named = {'training': len(training), 'held_out': len(held_out), 'digest': digest_of([*training, *held_out])}
  if any(other != named for other in peers.exchange(named)):
    raise UsageError('the processes have read different conversations; --data and --held_out must name the same files on every host')
  if not peers.is_first:
    peers.exchange(None)  # Process 0 has found the folder usable.
  run = RunFolder(workdir, to_plain(config) | {'conversations': named}, resume=resume or not peers.is_first)
  if peers.is_first:
    peers.exchange(None)
  return run


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
  with tqdm.tqdm(total=len(training) + len(held_out), desc='encoding', unit='conversation',
                 disable=jax.process_index() > 0) as progress:
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
