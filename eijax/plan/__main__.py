"""Plan a run on a TPU slice that is not there: python -m eijax.plan --preset=qwen3_8b --topology=v5p:2x2x4.

Compiles the very programs of eijax.train for the slice with the real TPU compiler, on any Linux machine, and says what they take and
what bounds them. All flags of eijax.train apply. Needs pip install 'eijax[plan]'.
"""

import dataclasses
import json
import sys

from absl import flags

from eijax import command, flags as flags_lib
from eijax.errors import UsageError
from eijax.learning import sharding
from eijax.plan import topology as topology_lib

PROGRAMS = ('train_step', 'decode_step', 'prefill')


def define(values: flags.FlagValues = flags.FLAGS) -> None:
  """Define the flags. Call once, in the entry point."""
  flags_lib.define(values)
  flags.DEFINE_string('topology', None, f'The slice: CHIP:SHAPE, e.g. {topology_lib.EXAMPLES}.', flag_values=values)
  flags.DEFINE_list('programs', list(PROGRAMS[:2]), f'Comma-separated programs to compile: {", ".join(PROGRAMS)}.', flag_values=values)
  flags.DEFINE_bool('json', False, 'Print one JSON object instead of tables: bytes and FLOPs per chip, seconds.', flag_values=values)
  flags.DEFINE_bool('sweep', False, 'Compile the update under several meshes and remat policies, and rank them.', flag_values=values)
  flags.DEFINE_list('sweep_meshes', [], 'Meshes of the sweep, each with + for commas: fsdp=16,fsdp=8+tensor=2. Default: '
                    'the usual ones.', flag_values=values)
  flags.DEFINE_list('sweep_remats', ['full', 'attention', 'offload'], 'Remat policies of the sweep.', flag_values=values)


def _plain(step) -> dict:
  return dataclasses.asdict(step)


def _plan(values, config, chip, devices) -> dict:
  """Compile each program; print as they come, unless --json."""
  # Here: jax has to be told first what it may use.
  from eijax.plan import estimate, tables  # pylint: disable=import-outside-toplevel
  from eijax.training.learner import run_mesh  # pylint: disable=import-outside-toplevel

  mesh = run_mesh(config, devices)
  shown = ','.join(f'{axis}={size}' for axis, size in mesh.shape.items())
  say = (lambda *lines: None) if values.json else (lambda *lines: print('\n'.join(lines), flush=True))
  say(tables.header(config.preset, values.topology, len(devices), chip, shown), '')
  batch = (f'{config.packing.rows_per_minibatch} rows x {config.packing.row_lengths[-1]} tokens, '
           f'{estimate.num_micro_batches(config, mesh)} micro-batches')
  slots = f'{config.sampler.num_slots} slots x {config.sampler.max_tokens} cells'
  titles = {'train_step': f'update ({batch})', 'decode_step': f'decode, one token a slot ({slots})',
            'prefill': f'prefill, {config.sampler.chunks[-1]} tokens a slot ({slots})'}
  steps = {}
  for name in values.programs:
    if sys.stderr.isatty():
      print(f'compiling {name} ...', file=sys.stderr, flush=True)
    steps[name] = getattr(estimate, name)(config, mesh, chip)
    say(*tables.program(titles[name], steps[name]), '')
  advice = estimate.suggestions(config, mesh, chip, steps['train_step']) if 'train_step' in steps else []
  if advice:
    say('to make it fit, try', *(f'  {line}' for line in advice), '')
  say('assumptions', *(f'  {line}' for line in estimate.ASSUMPTIONS))
  return {
      'preset': config.preset, 'topology': values.topology, 'num_devices': len(devices), 'mesh': dict(mesh.shape),
      'fits': all(step.fits for step in steps.values()), **{name: _plain(step) for name, step in steps.items()},
      'suggestions': advice, 'chip': dataclasses.asdict(chip), 'assumptions': estimate.ASSUMPTIONS}


def _sweep(values, config, chip, devices) -> dict:
  from eijax.plan import sweep, tables  # pylint: disable=import-outside-toplevel

  meshes = [mesh.replace('+', ',') for mesh in values.sweep_meshes] or sweep.default_meshes(
      len(devices), config.packing.rows_per_minibatch)
  for mesh in meshes:
    sharding.parse_mesh(mesh, len(devices))

  def told(trial) -> None:
    print(f'compiled mesh {trial.mesh}, remat {trial.remat}', file=sys.stderr, flush=True)

  trials = sweep.sweep(config, devices, chip, meshes, values.sweep_remats, told)
  if not values.json:
    print('\n'.join(tables.ranking(trials)))
  return {'preset': config.preset, 'topology': values.topology, 'num_devices': len(devices),
          'fits': any(trial.train_step and trial.train_step.fits for trial in trials),
          'trials': [dataclasses.asdict(trial) for trial in trials]}


def main(argv: list[str]) -> None:
  values = flags.FLAGS
  if len(argv) > 1 or not values.topology:
    raise UsageError(f'--topology={values.topology or ""} must be given, e.g. {topology_lib.EXAMPLES}, and nothing else but flags; '
                     'see --help')
  unknown = [name for name in values.programs if name not in PROGRAMS]
  if unknown or not values.programs:
    raise UsageError(f'--programs={",".join(values.programs)} must be some of {", ".join(PROGRAMS)}')
  topology_lib.parse(values.topology)
  config = flags_lib.build_config(values)
  topology_lib.prepare()
  chip, devices = topology_lib.describe(values.topology)
  result = (_sweep if values.sweep else _plan)(values, config, chip, devices)
  if values.json:
    print(json.dumps(result))


if __name__ == '__main__':
  define()
  command.run(main)
