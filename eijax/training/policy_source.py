"""Where a run's first policy comes from: a Hugging Face folder, a former run, or a warm-up from random weights.

Where the run trains an adapter, that policy is its frozen base, and the adapter starts at nothing. The adapter of a
former run is merged into it.
"""

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import os
import pathlib
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh
import tqdm

from eijax import jsonl, presets
from eijax.checkpoints import layout
from eijax.checkpoints.folder import restore_params
from eijax.config import RunConfig, SftConfig
from eijax.errors import DataError, UsageError
from eijax.hf.architecture import is_hf_folder, read_architecture
from eijax.hf.files import WeightFiles
from eijax.hf.load import check_weights, load_params
from eijax.hf.save import copy_companions
from eijax.learning import packing, sharding, step
from eijax.learning.supervised import segments_of
from eijax.policy import lora
from eijax.policy.config import HOW_IT_RUNS, LoraConfig, PolicyConfig
from eijax.policy.decoder import Decoder
from eijax.scenarios.record import Scenario
from eijax.seeds import derive_seed
from eijax.settings import differences, to_plain
from eijax.text.load import load_tokenizer
from eijax.text.ports import ChatFormat, Tokenizer
from eijax.text.tokenizer import train_tokenizer
from eijax.warmup import corpus, exercises as exercises_lib
from eijax.warmup.supervised import warm_up

CONFIG = 'config.json'
# The config.json of the Hugging Face folder that a policy came from: an export goes back to it.
HF_CONFIG = 'hf_config.json'


def save_description(
    folder: os.PathLike, config: PolicyConfig, tokenizer: Tokenizer, source: str | os.PathLike = '') -> None:
  """Write what a checkpoint's weights need beside them: shapes and tokenizer.

  Args:
    source: of the policy. What belongs to it goes along, if it is a Hugging Face folder or came from one.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  if source and is_hf_folder(source):
    copy_companions(source, folder)
    jsonl.write_bytes(folder / HF_CONFIG, (pathlib.Path(source) / CONFIG).read_bytes())
  elif source and (pathlib.Path(source) / 'policy' / HF_CONFIG).exists():
    copy_companions(pathlib.Path(source) / 'policy', folder)
    jsonl.write_bytes(folder / HF_CONFIG, (pathlib.Path(source) / 'policy' / HF_CONFIG).read_bytes())
  tokenizer.save(folder)
  jsonl.write_json(folder / CONFIG, to_plain(config))


def read_shapes(folder: os.PathLike) -> PolicyConfig:
  """The shapes of a saved policy."""
  path = pathlib.Path(folder) / CONFIG
  values = jsonl.read_json(path)
  plain = lambda part: {name: tuple(value) if isinstance(value, list) else value for name, value in part.items()}
  try:
    adapter = {'lora': LoraConfig(**plain(values['lora']))} if 'lora' in values else {}
    return PolicyConfig(**plain(values) | adapter)
  except (TypeError, AttributeError) as error:
    raise DataError(f'{path}: not the shapes of a policy ({error}); restore it from a copy') from None


def holds_policy(folder: os.PathLike) -> bool:
  """Whether a folder is that of a run, or what eijax.convert made of a model."""
  return (pathlib.Path(folder) / 'policy' / CONFIG).exists()


def preset_of(folder: os.PathLike) -> str | None:
  """The preset that a run took its recipe from; None where the folder names none that is known here."""
  path = pathlib.Path(folder) / CONFIG
  config = jsonl.read_json(path) if path.exists() else None
  name = config.get('preset') if isinstance(config, dict) else None
  return name if name in presets.PRESETS else None


def read_tokenizer(folder: os.PathLike) -> Tokenizer:
  """The tokenizer of a saved policy."""
  return load_tokenizer(folder)


def _abstract_shapes(config: PolicyConfig) -> Any:
  return nn.unbox(jax.eval_shape(step.params_init(Decoder(config)), jax.random.key(0)))


def abstract_params(config: PolicyConfig, mesh: Mesh) -> Any:
  """Shapes and placements of the policy's params, an adapter included, without computing anything."""
  boxed = jax.eval_shape(step.params_init(Decoder(config)), jax.random.key(0))
  shardings = sharding.tree_shardings(boxed, mesh)
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), shardings)


def check_source(config: RunConfig | SftConfig) -> None:
  """Refuse a `policy_source` that holds no policy of the same shapes: before any work, weights unread.

  Raises:
    UsageError, DataError, CheckpointError: names what is missing, broken or differs.
  """
  source = config.policy_source
  if is_hf_folder(source):
    _check_shapes(config, read_architecture(source))
    check_weights(WeightFiles(source), config.policy, _abstract_shapes(config.policy))
    tokenizer = read_tokenizer(source)
    check_tokenizer(source, tokenizer, config.policy)
    tokenizer.chat_format(thinking=config.episodes.thinking)  # Refuses a template that cannot hold a talk.
    return
  folder = pathlib.Path(source) / 'policy'
  if not (folder / CONFIG).exists():
    raise UsageError(f'policy={source!r} is neither a preset nor the folder of a run (it lacks policy/{CONFIG}) nor that of '
                     f'a Hugging Face model (it lacks a {CONFIG} with a model_type); '
                     'give the --workdir of a run, or the folder of a model')
  _check_shapes(config, read_shapes(folder))
  layout.pick_step(pathlib.Path(source) / 'checkpoints', None)


def _check_shapes(config: RunConfig | SftConfig, theirs: PolicyConfig) -> None:
  changed = [d for d in differences(to_plain(theirs), to_plain(config.policy))
             if d[0] not in HOW_IT_RUNS and not d[0].startswith('lora.')]
  if changed:
    shown = ', '.join(f'{name} {theirs} instead of {ours}' for name, theirs, ours in changed)
    raise UsageError(f'policy={config.policy_source!r} has other shapes than preset {config.preset!r} ({shown}); '
                     'use the preset it was trained with')


def check_tokenizer(source: str, tokenizer: Tokenizer, config: PolicyConfig) -> None:
  """Refuse a tokenizer with ids beyond the rows of the embedding, with a DataError."""
  if tokenizer.vocab_size > config.vocab_size:
    raise DataError(f'{source}: its tokenizer has ids up to {tokenizer.vocab_size - 1}, but the weights have only '
                    f'{config.vocab_size} rows; use the tokenizer files that belong to the weights')


def load(config: RunConfig | SftConfig, mesh: Mesh) -> tuple[Tokenizer, Any]:
  """Tokenizer and params of `policy_source`, which `check_source` has passed; of a run, its latest policy."""
  return tokenizer_of(config.policy_source), params_of(config, mesh)


def tokenizer_of(source: str) -> Tokenizer:
  """The tokenizer of a Hugging Face folder or a run."""
  return read_tokenizer(source if is_hf_folder(source) else pathlib.Path(source) / 'policy')


def params_of(config: RunConfig | SftConfig, mesh: Mesh) -> Any:
  """The params of `policy_source`, placed on a mesh, with a new adapter if the run trains one."""
  folder = pathlib.Path(config.policy_source)
  if is_hf_folder(folder):
    return with_adapter(read_weights(folder, config.policy, mesh), config, mesh)
  theirs = read_shapes(folder / 'policy')
  former = restore_params(folder / 'checkpoints', abstract_params(theirs, mesh))
  return with_adapter(lora.merge(former, theirs), config, mesh)


def read_weights(folder: os.PathLike, config: PolicyConfig, mesh: Mesh) -> Any:
  """Params from a Hugging Face folder, placed on a mesh, without an adapter."""
  files = WeightFiles(folder)
  with reading(files) as on_bytes:
    return load_params(files, config, lora.base_of(abstract_params(config, mesh)), on_bytes=on_bytes)


def with_adapter(base: Any, config: RunConfig | SftConfig, mesh: Mesh) -> Any:
  """Params of a trained policy, with a new adapter beside them if the run trains one.

  Args:
    base: without adapter; weights are rounded to the dtype that the run keeps them in.
  """
  abstract = abstract_params(config.policy, mesh)
  base = jax.tree.map(lambda x, like: jax.device_put(x.astype(like.dtype), like.sharding), base, lora.base_of(abstract))
  key = jax.random.key(derive_seed('adapter', config.seed))
  return step.with_fresh_adapter(base, step.params_init(Decoder(config.policy)), abstract, key)


@contextlib.contextmanager
def reading(files: WeightFiles):
  """A progress bar for `load_params`."""
  total = sum(tensor.num_bytes for tensor in files.tensors.values())
  with tqdm.tqdm(total=total, desc='weights', unit='B', unit_scale=True, disable=jax.process_index() > 0) as progress:
    yield progress.update


def _segments(
    talks: Sequence, chat_format: ChatFormat, config: RunConfig, lead_in: int | None = None,
) -> list[packing.Segment]:
  row = config.warmup.packing.row_lengths[-1]
  longest = min(row, config.sampler.max_tokens) - config.sampling.max_new_tokens
  result = []
  for talk in talks:
    turns = [(turn.prompt_ids, turn.response_ids)
             for turn in corpus.demonstrations(talk, chat_format, longest, lead_in=lead_in)
             # A scripted line may be longer than any that the policy may sample.
             if len(turn.prompt_ids) + len(turn.response_ids) <= row]
    result += segments_of(turns, row)
  return result


def from_warm_up(
    config: RunConfig, mesh: Mesh, scenarios: Sequence[Scenario], on_ready: Callable[[], Any] = lambda: None,
) -> tuple[Tokenizer, Any]:
  """A tokenizer and a policy made from nothing but training scenarios and scripted talks.

  Args:
    on_ready: called before the devices are used; with several processes it waits for all of them.
  """
  settings = config.warmup
  with tqdm.tqdm(total=1, desc='warm-up: talks', bar_format='{desc}: {elapsed}', leave=True, disable=jax.process_index() > 0):
    talks = corpus.played_talks(
        scenarios, num_talks=settings.num_talks, max_rounds=config.episodes.max_rounds, seed=config.seed)
    tokenizer = train_tokenizer(corpus.tokenizer_lines(scenarios, talks), config.policy.vocab_size)
    chat_format = tokenizer.chat_format(thinking=False)
    drills = exercises_lib.exercises(scenarios, talks, num=settings.num_exercises, seed=config.seed)
    # Exercises teach how a fact is said, not how often: that is for the talks to show.
    lead_in = tokenizer.lead_in()
    kinds = [_segments(drills, chat_format, config, lead_in[0])]
    vocabulary = exercises_lib.vocabulary_of(scenarios)
    for number in range(settings.num_passes):
      # Every pass in other words, so that no fact can be learned by heart.
      told = [exercises_lib.rewritten(talk, vocabulary, derive_seed('rewritten', config.seed, number, i))
              for i, talk in enumerate(talks)]
      kinds.append(_segments(told, chat_format, config))
  on_ready()
  with tqdm.tqdm(desc='warm-up', unit='update', disable=jax.process_index() > 0) as progress:

    def show(done: int, total: int, loss: float) -> None:
      progress.total = total
      progress.set_postfix_str(f'loss {loss:.2f} nats/token', refresh=False)
      progress.update(done - progress.n)

    whole = dataclasses.replace(config.policy, lora=LoraConfig())
    params = warm_up(Decoder(whole), mesh, settings, kinds=kinds, seed=config.seed, lead_in=lead_in, on_update=show)
  return tokenizer, with_adapter(params, config, mesh)
