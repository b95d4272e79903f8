"""The same update under several meshes and remat policies, best first."""

from collections.abc import Callable, Iterable
import dataclasses

from eijax import config as config_lib
from eijax.errors import EijaxError, UsageError
from eijax.learning import sharding
from eijax.plan import estimate
from eijax.plan.chips import Chip
from eijax.training.learner import run_mesh


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
  """One combination: its estimate, or why there is none."""

  mesh: str
  remat: str
  train_step: estimate.Estimate | None
  refused: str = ''


def default_meshes(num_devices: int, rows: int) -> list[str]:
  """The default mesh, and those with 2 and 4 devices on tensor or sequence."""
  found = [sharding.default_mesh(num_devices, rows)]
  for axis in ('tensor', 'sequence'):
    for ways in (2, 4):
      fsdp = num_devices // ways
      if num_devices % ways == 0 and rows % fsdp == 0:
        found.append(f'fsdp={fsdp},{axis}={ways}')
  return list(dict.fromkeys(found))


def sweep(
    config: config_lib.RunConfig, devices: list, chip: Chip, meshes: Iterable[str], remats: Iterable[str],
    on_trial: Callable[[Trial], None],
) -> list[Trial]:
  """Every combination, those that fit first, the fastest of them first."""
  trials = []
  remats = tuple(remats)
  for mesh in meshes:
    for remat in remats:
      try:
        changed = dataclasses.replace(config, mesh=mesh, policy=dataclasses.replace(config.policy, remat=remat))
        trial = Trial(mesh=mesh, remat=remat, train_step=estimate.train_step(changed, run_mesh(changed, devices), chip))
      except (UsageError, EijaxError) as error:
        trial = Trial(mesh=mesh, remat=remat, train_step=None, refused=str(error))
      trials.append(trial)
      on_trial(trial)
  return sorted(trials, key=_rank)


def _rank(trial: Trial) -> tuple:
  step = trial.train_step
  if step is None:
    return (2, 0.0, 0)
  # What does not fit is ranked by how much it lacks.
  return (0, step.seconds_estimate, step.hbm_bytes) if step.fits else (1, float(step.hbm_bytes), 0)
