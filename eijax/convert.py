"""Convert a policy between a Hugging Face folder and a folder of ours: python -m eijax.convert --from=A --to=B.

The direction follows from what --from holds: a config.json with a model_type becomes a folder
that --policy takes, and so does an adapter of peft with its --base; the workdir of a run, or such
a folder, becomes one that transformers and vLLM load. An adapter is merged into the weights then,
unless --part says otherwise. The target gets its name when all of it is written.
"""

import dataclasses
import os
import pathlib

from absl import flags
import jax
import tqdm

from eijax import command, jsonl
from eijax.checkpoints.folder import ParamsReader, save_params
from eijax.errors import UsageError
from eijax.hf.adapter import base_of_adapter, is_adapter_folder, load_adapter, read_lora_config, save_adapter
from eijax.hf.architecture import is_hf_folder, read_architecture
from eijax.hf.files import WeightFiles
from eijax.hf.load import load_params
from eijax.hf.save import check_target, new_folder, save_folder, stored_dtype
from eijax.learning import sharding
from eijax.policy import lora
from eijax.policy.config import DTYPES
from eijax.training import policy_source

GIB = 2**30
PARTS = ('merged', 'adapter', 'base')


def import_folder(source: str, target: str, adapter: str | None = None) -> None:
  """A Hugging Face folder to policy/ and checkpoints/. The host holds the weights once, as float32.

  Args:
    adapter: folder of an adapter of peft for this model, which stays apart from the weights.
  Raises:
    UsageError, DataError, EijaxError: as the parts do; nothing is left behind.
  """
  target = pathlib.Path(target)
  check_target(target)
  config, files = read_architecture(source), WeightFiles(source)
  tokenizer = policy_source.read_tokenizer(source)
  policy_source.check_tokenizer(source, tokenizer, config)
  if adapter:
    config = dataclasses.replace(config, lora=read_lora_config(adapter))
  abstract = policy_source.abstract_params(config, sharding.make_mesh('', devices=jax.devices()[:1]))
  trained = load_adapter(adapter, config, lora.split(abstract)[0]) if adapter else {}
  with new_folder(target, 4 * (config.num_params + config.num_adapter_params)) as partial:
    with policy_source.reading(files) as on_bytes:
      params = lora.join(load_params(files, config, lora.base_of(abstract), on_bytes=on_bytes), trained)
    policy_source.save_description(partial / 'policy', config, tokenizer, source)
    print('writing the checkpoint', flush=True)
    save_params(partial / 'checkpoints', params)
  if files.left_out:
    print(f'left out: {len(files.left_out)} tensors of the vision tower, e.g. {files.left_out[0]}', flush=True)


def export_folder(
    source: str, target: str, *, step: int | None, dtype: str | None, max_shard_bytes: int, part: str = 'merged',
    base_name: str | None = None,
) -> None:
  """The policy of a run to a Hugging Face folder, one parameter after the other.

  Args:
    step: of the checkpoint; default, the latest.
    dtype: of all weights; default, that of the folder that the policy came from, else float32. Of an adapter alone: float32.
    part: one of PARTS.
    base_name: that an adapter alone names; default, the model's folder that the run began from.
  """
  folder = pathlib.Path(source) / 'policy'
  config = policy_source.read_shapes(folder)
  reader = ParamsReader(pathlib.Path(source) / 'checkpoints', step)
  place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  leaf_of = lambda name: reader.read(name, place)
  if part == 'adapter':
    if not config.lora.rank:
      raise UsageError(f'--part=adapter: {source} holds no adapter, its run trained all weights; use --part=merged')
    save_adapter(target, config, reader.shapes, leaf_of, dtype=dtype or 'float32', base_name=base_name or _origin(source))
    return
  shapes, merged_leaf_of = lora.merged_leaves(reader.shapes, leaf_of, config)
  origin = folder / policy_source.HF_CONFIG
  origin = origin if origin.exists() else None
  dtype = dtype or (origin and stored_dtype(origin)) or 'float32'
  total = config.num_params * (4 if dtype == 'float32' else 2)
  with tqdm.tqdm(total=total, desc='weights', unit='B', unit_scale=True) as progress:
    save_folder(target, config, shapes, leaf_of if part == 'base' else merged_leaf_of, dtype=dtype,
                max_shard_bytes=max_shard_bytes, source_config=origin, companions=folder, on_bytes=progress.update)


def _origin(source: str) -> str | None:
  """The model's folder that a run began from; None if it began from something else."""
  path = pathlib.Path(source) / policy_source.CONFIG
  name = jsonl.read_json(path).get('policy_source') if path.exists() else None
  return name if name and is_hf_folder(name) else None


def define(values: flags.FlagValues = flags.FLAGS) -> None:
  """Define the flags. Call once, in the entry point."""
  flags.DEFINE_string('from', None, 'Folder to convert: a Hugging Face model, an adapter of peft, or the workdir of a run.', flag_values=values)
  flags.DEFINE_string('to', None, 'Folder to write; must not exist yet, or be empty.', flag_values=values)
  flags.DEFINE_integer('step', None, 'Checkpoint to export. Default: the latest.', flag_values=values)
  flags.DEFINE_enum('dtype', None, DTYPES, 'Type of the exported weights. Default: that of the folder that the policy '
                    'came from, else float32.', flag_values=values)
  flags.DEFINE_enum('part', 'merged', PARTS, 'What to export of a policy with a LoRA adapter: the policy with the adapter '
                    'merged into its weights, the adapter alone as peft loads it, or the weights without it.', flag_values=values)
  flags.DEFINE_string('base', None, 'Of an adapter. In an import: folder of the model that it was trained for; default, what '
                      'adapter_config.json names. In an export with --part=adapter: the name to write there; default, the folder '
                      'that the run began from.', flag_values=values)
  flags.DEFINE_float('max_shard_gib', 4.0, 'Largest file of an export, in GiB; a larger tensor gets one of its own.',
                     lower_bound=0.0, flag_values=values)


def main(argv: list[str]) -> None:
  values = flags.FLAGS
  source, target = values['from'].value, values.to
  if len(argv) > 1 or not source or not target:
    raise UsageError(f'--from={source or ""} and --to={target or ""} must both be given, and nothing else but flags; see --help')
  # Weights are only moved: an accelerator that another process holds need not be asked.
  jax.config.update('jax_platforms', 'cpu')
  is_adapter = is_adapter_folder(source)
  if values.base and not is_adapter and values.part != 'adapter':
    raise UsageError(f'--base={values.base} is of adapters: give --part=adapter, or the folder of an adapter as --from')
  if is_adapter or is_hf_folder(source):
    given = [name for name in ('step', 'dtype', 'part') if values[name].present]
    if given:
      raise UsageError(f'--{given[0]} is of exports; {source} is a Hugging Face folder, whose weights are kept as float32')
    model = (values.base or base_of_adapter(source)) if is_adapter else source
    if not is_hf_folder(model):
      raise UsageError(f'--base={model} must be the folder of the model that the adapter {source} was trained for')
    import_folder(model, target, source if is_adapter else None)
  elif (pathlib.Path(source) / 'policy' / policy_source.CONFIG).exists():
    export_folder(source, target, step=values.step, dtype=values.dtype, max_shard_bytes=int(values.max_shard_gib * GIB),
                  part=values.part, base_name=values.base)
  else:
    raise UsageError(f'--from={source} is neither a Hugging Face folder (config.json with a model_type) nor the workdir of a run '
                     f'(policy/{policy_source.CONFIG}); give one of these')
  print(f'written: {os.path.abspath(target)}', flush=True)


if __name__ == '__main__':
  define()
  command.run(main)
