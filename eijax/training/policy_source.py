"""Where a run's first policy comes from: a former run, or a warm-up from random weights."""

from collections.abc import Sequence
import os
import pathlib
from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh
import numpy as np
import tqdm

from eijax import jsonl
from eijax.checkpoints import layout
from eijax.checkpoints.folder import restore_params
from eijax.config import RunConfig
from eijax.errors import DataError, UsageError
from eijax.learning import packing, sharding, step
from eijax.policy.config import PolicyConfig
from eijax.policy.decoder import Decoder
from eijax.scenarios.record import Scenario
from eijax.seeds import derive_seed
from eijax.settings import differences, to_plain
from eijax.text.chat_format import ChatFormat
from eijax.text.tokenizer import Tokenizer, train_tokenizer
from eijax.warmup import corpus, exercises as exercises_lib
from eijax.warmup.supervised import warm_up

TOKENIZER = 'tokenizer.model'
CONFIG = 'config.json'


def save_description(folder: os.PathLike, config: PolicyConfig, tokenizer: Tokenizer) -> None:
  """Write what a checkpoint's weights need beside them: shapes and tokenizer."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  jsonl.write_bytes(folder / TOKENIZER, tokenizer.model_bytes)
  jsonl.write_json(folder / CONFIG, to_plain(config))


def read_shapes(folder: os.PathLike) -> PolicyConfig:
  """The shapes of a saved policy."""
  path = pathlib.Path(folder) / CONFIG
  values = jsonl.read_json(path)
  try:
    return PolicyConfig(**values)
  except TypeError as error:
    raise DataError(f'{path}: not the shapes of a policy ({error}); restore it from a copy') from None


def read_tokenizer(folder: os.PathLike) -> Tokenizer:
  """The tokenizer of a saved policy."""
  return Tokenizer.from_file(pathlib.Path(folder) / TOKENIZER)


def abstract_params(config: PolicyConfig, mesh: Mesh) -> Any:
  """Shapes and placements of the policy's params, without computing anything."""
  boxed = jax.eval_shape(step.params_init(Decoder(config)), jax.random.key(0))
  shardings = sharding.tree_shardings(boxed, mesh)
  return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), nn.unbox(boxed), shardings)


def check_source(config: RunConfig) -> None:
  """Refuse a `policy_source` that is no run with a policy of the same shapes.

  Raises:
    UsageError, CheckpointError: names what is missing or differs.
  """
  source = config.policy_source
  folder = pathlib.Path(source) / 'policy'
  if not (folder / CONFIG).exists():
    raise UsageError(f'policy={source!r} is neither a preset nor the folder of a run (it lacks policy/{CONFIG}); '
                     'give the --workdir of a run, whose checkpoints and tokenizer are read')
  changed = [d for d in differences(to_plain(read_shapes(folder)), to_plain(config.policy))
             if d[0] not in ('compute_dtype', 'remat', 'scan_unroll')]
  if changed:
    shown = ', '.join(f'{name} {theirs} instead of {ours}' for name, theirs, ours in changed)
    raise UsageError(f'policy={source!r} has other shapes than preset {config.preset!r} ({shown}); use the preset it was trained with')
  layout.pick_step(pathlib.Path(source) / 'checkpoints', None)


def from_run(config: RunConfig, mesh: Mesh) -> tuple[Tokenizer, Any]:
  """Tokenizer and params of the latest policy of a former run's folder, which `check_source` has passed."""
  folder = pathlib.Path(config.policy_source)
  return read_tokenizer(folder / 'policy'), restore_params(folder / 'checkpoints', abstract_params(config.policy, mesh))


def _segments(
    talks: Sequence, chat_format: ChatFormat, config: RunConfig, lead_in: int | None = None,
) -> list[packing.Segment]:
  row = config.warmup.packing.row_lengths[-1]
  longest = min(row, config.sampler.max_tokens) - config.sampling.max_new_tokens
  result = []
  for talk in talks:
    turns = [packing.supervised_sample(np.array(turn.prompt_ids, np.int32), np.array(turn.response_ids, np.int32))
             for turn in corpus.demonstrations(talk, chat_format, longest, lead_in=lead_in)
             # A scripted line may be longer than any that the policy may sample.
             if len(turn.prompt_ids) + len(turn.response_ids) <= row]
    result += packing.merge_turns(turns, max_length=row)
  return result


def from_warm_up(config: RunConfig, mesh: Mesh, scenarios: Sequence[Scenario]) -> tuple[Tokenizer, Any]:
  """A tokenizer and a policy made from nothing but training scenarios and scripted talks."""
  settings = config.warmup
  with tqdm.tqdm(total=1, desc='warm-up: talks', bar_format='{desc}: {elapsed}', leave=True):
    talks = corpus.played_talks(
        scenarios, num_talks=settings.num_talks, max_rounds=config.episodes.max_rounds, seed=config.seed)
    tokenizer = train_tokenizer(corpus.tokenizer_lines(scenarios, talks), config.policy.vocab_size)
    chat_format = ChatFormat(tokenizer)
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
  with tqdm.tqdm(desc='warm-up', unit='update') as progress:

    def show(done: int, total: int, loss: float) -> None:
      progress.total = total
      progress.set_postfix_str(f'loss {loss:.2f} nats/token', refresh=False)
      progress.update(done - progress.n)

    params = warm_up(Decoder(config.policy), mesh, settings, kinds=kinds, seed=config.seed, lead_in=lead_in,
                     on_update=show)
  return tokenizer, params
