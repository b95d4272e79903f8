"""Plans in words."""

from collections.abc import Iterable

from eijax.plan.chips import GIB, Chip
from eijax.plan.estimate import Estimate
from eijax.plan.sweep import Trial


def gib(size: float | None) -> str:
  return '-' if size is None else f'{size / GIB:.2f}'


def _quantity(value: float, unit: str) -> str:
  for factor, prefix in ((1e15, 'P'), (1e12, 'T'), (1e9, 'G'), (1e6, 'M')):
    if value >= factor:
      return f'{value / factor:.2f} {prefix}{unit}'
  return f'{value:.0f} {unit}'


def _seconds(value: float) -> str:
  return f'{value:.2f} s' if value >= 1 else f'{value * 1e3:.2f} ms'


def program(title: str, step: Estimate) -> list[str]:
  """Lines about one program."""
  share = 100 * step.hbm_bytes / step.hbm_limit_bytes
  lines = [
      title,
      f'  memory     {gib(step.hbm_bytes)} of {gib(step.hbm_limit_bytes)} GiB a chip ({share:.0f} %): '
      + ('fits' if step.fits else 'DOES NOT FIT'),
  ]
  if step.temporaries_bytes is None:
    lines.append('             the compiler gave up; the figure is what it asked for')
  else:
    lines.append(f'             arguments {gib(step.arguments_bytes)}, temporaries {gib(step.temporaries_bytes)}'
                 + (f', on the host {gib(step.host_bytes)}' if step.host_bytes else ''))
  lines += [f'             {name:<18}{gib(size):>7}' for name, size in step.parts.items()]
  lines.append(f'  FLOPs      {_quantity(step.flops, "FLOP")} a chip, of which the model needs {_quantity(step.model_flops, "FLOP")}')
  for kind, size in step.communication_bytes.items():
    if size:
      lines.append(f'  received   {kind:<18}{_quantity(size, "B"):>10}')
  if step.unknown_loops:
    lines.append(f'             loops without a known number of rounds were counted once: {", ".join(step.unknown_loops)}')
  times = ', '.join(f'{name} {_seconds(value)}' for name, value in step.seconds.items())
  lines.append(f'  at least   {_seconds(step.seconds_estimate)}, bound by {step.bound} ({times})')
  lines.append(f'             {_quantity(step.tokens / step.seconds_estimate, "token/s")} of all chips')
  lines.append(f'  compiled   in {step.compile_seconds:.0f} s, {step.compile_cpu_seconds:.0f} s of CPU')
  return lines


def header(preset: str, topology: str, num_chips: int, chip: Chip, mesh: str) -> str:
  return (f'{preset} on {topology}: {num_chips} chips of {gib(chip.hbm_bytes)} GiB, {chip.flops / 1e12:.0f} bf16 TFLOP/s, '
          f'{chip.hbm_bandwidth / 1e9:.0f} GB/s HBM, {chip.ici_bandwidth / 1e9:.0f} GB/s interconnect a direction\n'
          f'({chip.source})\nmesh {mesh}')


def ranking(trials: Iterable[Trial]) -> list[str]:
  """A table of a sweep, best first."""
  lines = [f'{"mesh":<28}{"remat":<11}{"fits":<6}{"GiB":>7}{"temp":>8}{"received":>12}{"at least":>12}  bound']
  for trial in trials:
    step = trial.train_step
    if step is None:
      lines.append(f'{trial.mesh:<28}{trial.remat:<11}refused: {trial.refused}')
      continue
    received = _quantity(sum(step.communication_bytes.values()), 'B') if step.communication_bytes else '-'
    lines.append(
        f'{trial.mesh:<28}{trial.remat:<11}{"yes" if step.fits else "no":<6}{gib(step.hbm_bytes):>7}{gib(step.temporaries_bytes):>8}'
        f'{received:>12}{_seconds(step.seconds_estimate):>12}  {step.bound}')
  return lines
