"""The folder of a run that was never held: what a saved policy consists of, with first weights of a seed."""

import pathlib

import jax

from eijax import jsonl
from eijax.checkpoints.folder import CheckpointFolder
from eijax.learning import optimizer as optimizer_lib, sharding, step as step_lib
from eijax.policy.decoder import Decoder
from eijax.settings import to_plain
from eijax.text.tokenizer import train_tokenizer
from eijax.training import policy_source
from tiny_run import tiny_config, write_scenarios


def one_device_mesh() -> jax.sharding.Mesh:
  return sharding.make_mesh('', devices=jax.devices()[:1])


def write_run(folder, steps=(0,), **changes):
  """Write scenarios and a run with one checkpoint per step; returns (workdir, config, params of each step)."""
  folder = pathlib.Path(folder)
  config = tiny_config(write_scenarios(folder / 'scenarios'), **changes)
  workdir, mesh = folder / 'run', one_device_mesh()
  texts = [path.read_text() for path in sorted((folder / 'scenarios').rglob('*.jsonl'))]
  tokenizer = train_tokenizer([line for text in texts for line in text.splitlines()], config.policy.vocab_size)
  jsonl.write_json(workdir / 'config.json', to_plain(config))
  policy_source.save_description(workdir / 'policy', config.policy, tokenizer)
  init, optimizer = step_lib.params_init(Decoder(config.policy)), optimizer_lib.make_optimizer(config.optimizer)
  params = []
  with CheckpointFolder(workdir / 'checkpoints', keep=len(steps)) as checkpoints:
    for step in steps:
      state = step_lib.create_train_state(init, optimizer, mesh, jax.random.key(step))
      checkpoints.save(step, state, {'step': step})
      params.append(jax.device_get(state.params))
  return workdir, config, params
