"""Curves over training: reward, its parts by scene, the health of the learner, time."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe
import numpy as np
from matplotlib.ticker import MaxNLocator

from eijax.report import figures
from eijax.report.run_folder import Evaluation, Run
from eijax.report.series import pick, rolling_mean, thin, window_for
from eijax.scenarios.record import SCENES

_DASHES = {'support': '-', 'defense': (0, (5, 1.5)), 'repair': (0, (1.5, 1.2)), 'charm': (0, (6, 1.5, 1.5, 1.5))}
_PHASE_ROLES = ('part-1', 'part-2', 'part-3', 'part-4')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
  """One drawing with its heading and what to look for in it."""

  title: str
  note: str
  svg: markupsafe.Markup


# Metric, heading, what it says. Drawn where the run has the metric.
_HEALTH = (
    ('entropy', 'Entropy', 'Nats per token. How open the policy still is; near 0 it says the same thing always.'),
    ('approx_kl_k3', 'KL, sampler to learner', 'Nats per token. How far an update moves from the policy that spoke.'),
    ('clip_fraction', 'Clip fraction', 'Share of tokens whose importance ratio met the clip. Where it is large, updates are cut short.'),
    ('response_tokens_mean', 'Response length', 'Tokens per reply, thoughts included.'),
    ('grad_norm', 'Gradient norm', 'Before clipping. Single spikes do no harm; a steady rise does.'),
    ('rounds_mean', 'Rounds per talk', 'Fewer rounds can mean that the user was won sooner, or gave up sooner.'),
)


def reward_panel(run: Run) -> Panel | None:
  """Training reward a step, its rolling mean, and the held-out scores."""
  reward = 100 * pick(run.metrics, 'reward')
  scored = [evaluation for evaluation in run.evaluations if evaluation.overall.mean is not None]
  if not has_values(reward) and not scored:
    return None
  window = window_for(len(reward))
  with figures.style():
    figure, axes = _axes(440, 290, run)
    if has_values(reward):
      steps = steps_of(run)
      axes.plot(*thinned(steps, reward), color=figures.color('before'), linewidth=0.9, label='reward, each step')
      axes.plot(
          *thinned(steps, rolling_mean(reward, window)), color=figures.color('after'), linewidth=2.2,
          label=f'reward, mean of {window} steps',
      )
    _plot_held_out(axes, scored)
    axes.axhline(0, color=figures.color('muted'), linewidth=0.8)
    axes.set_ylabel('score × 100')
    figure.legend(loc='outside upper left', ncols=2, handlelength=1.6, columnspacing=1.2)
    svg = figures.to_svg(figure, 'reward', _reward_description(reward, window, scored))
  return Panel(
      title='Reward in training',
      note=f'Mean reward of a step’s talks, × 100; the thick line is the mean of the last {window} steps. '
      'Each step draws other training scenarios, hence the jitter. Diamonds are held-out scores with 95 % '
      'intervals. The reward is the score less penalties, so the two need not meet.',
      svg=svg,
  )


def _plot_held_out(axes, scored: Sequence[Evaluation]) -> None:
  if not scored:
    return
  means = np.array([evaluation.overall.mean for evaluation in scored])
  spread = [
      means - np.array([evaluation.overall.low for evaluation in scored]),
      np.array([evaluation.overall.high for evaluation in scored]) - means,
  ]
  axes.errorbar(
      [evaluation.step for evaluation in scored], means, yerr=np.maximum(spread, 0), fmt='D', markersize=6,
      color=figures.color('ink'), elinewidth=1.4, capsize=3, label='held-out score', clip_on=False, zorder=4,
  )


def _reward_description(reward: np.ndarray, window: int, scored: Sequence[Evaluation]) -> str:
  parts = []
  if has_values(reward):
    smooth = rolling_mean(reward, window)
    smooth = smooth[~np.isnan(smooth)]
    parts.append(f'Training reward times 100: rolling mean {smooth[0]:.1f} at first, {smooth[-1]:.1f} at last.')
  parts += [f'Held-out score at step {item.step}: {item.overall.mean:.1f}.' for item in scored]
  return ' '.join(parts)


def scenes_panel(run: Run) -> Panel | None:
  """Rolling mean of the reward of each scene."""
  window = window_for(len(run.metrics))
  curves = {scene: 100 * pick(run.metrics, f'reward/{scene}') for scene in SCENES}
  curves = {scene: rolling_mean(values, window) for scene, values in curves.items() if has_values(values)}
  if not curves:
    return None
  with figures.style():
    figure, axes = _axes(440, 290, run)
    for scene, values in curves.items():
      axes.plot(
          *thinned(steps_of(run), values), color=figures.color(scene), linestyle=_DASHES[scene], linewidth=2,
          marker=_marker(run), markersize=4, clip_on=False, label=scene.capitalize(),
      )
    axes.axhline(0, color=figures.color('muted'), linewidth=0.8)
    axes.set_ylabel('reward × 100')
    figure.legend(loc='outside upper left', ncols=4, handlelength=1.9, columnspacing=1, handletextpad=0.5)
    ends = ', '.join(f'{scene} {values[~np.isnan(values)][-1]:.1f}' for scene, values in curves.items())
    svg = figures.to_svg(figure, 'scenes', f'Rolling mean of the training reward times 100 by scene; at last: {ends}.')
  return Panel(
      title='Reward by scene',
      note=f'Mean of the last {window} steps, × 100. A line starts where its scene was first drawn.',
      svg=svg,
  )


def health_panels(run: Run) -> list[Panel]:
  """Small multiples of the learner's own figures."""
  return panels(run, _HEALTH)


def panels(run: Run, chosen: Sequence[tuple[str, str, str]]) -> list[Panel]:
  """Small multiples of those (metric, heading, what it says) that the run has."""
  drawn = []
  for key, title, note in chosen:
    values = pick(run.metrics, key)
    if not has_values(values):
      continue
    with figures.style():
      figure, axes = _axes(320, 180, run)
      axes.plot(
          *thinned(steps_of(run), values), color=figures.color('after'), linewidth=1.5, marker=_marker(run), markersize=4,
          clip_on=False,
      )
      axes.margins(y=0.12)
      if np.nanmin(values) >= 0:
        axes.set_ylim(bottom=0)
      axes.yaxis.set_major_locator(MaxNLocator(4))
      present = values[~np.isnan(values)]
      svg = figures.to_svg(
          figure, key.replace('/', '-'),
          f'{title} over training: {present[0]:.3g} at first, {present[-1]:.3g} at last, '
          f'between {present.min():.3g} and {present.max():.3g}.',
      )
    drawn.append(Panel(title=title, note=note, svg=svg))
  return drawn


def seconds_panel(run: Run) -> Panel | None:
  """Seconds of each phase, stacked."""
  phases = _phases(run.metrics)
  if not phases:
    return None
  with figures.style():
    figure, axes = _axes(440, 240, run)
    base = np.zeros(len(run.metrics))
    for role, (name, values) in zip(_PHASE_ROLES, phases.items()):
      steps, low = thinned(steps_of(run), base)
      base = base + np.nan_to_num(values)
      axes.fill_between(steps, low, thin(base), color=figures.color(role), linewidth=0, label=name)
    axes.set_ylim(bottom=0)
    axes.set_ylabel('seconds')
    figure.legend(loc='outside upper left', ncols=4, handlelength=1.2, columnspacing=1.2)
    means = {name: float(np.nanmean(values)) for name, values in phases.items()}
    words = ', '.join(f'{name} {mean:.2f}' for name, mean in means.items())
    svg = figures.to_svg(figure, 'seconds', f'Seconds per step by phase, mean: {words}.')
  total = sum(float(np.nansum(values)) for values in phases.values())
  apart = '' if any('seconds/evaluation' in row for row in run.metrics) else ', without the evaluations'
  return Panel(
      title='Seconds per step',
      note=f'Mean seconds by phase: {words}. All steps together: {duration(total)}{apart}.',
      svg=svg,
  )


def _phases(metrics: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
  """Seconds by phase, the largest three by name and what is left of the total as `other`."""
  keys = sorted({key for row in metrics for key in row if key.startswith('seconds/')} - {'seconds/total'})
  phases = {key.removeprefix('seconds/'): pick(metrics, key) for key in keys}
  phases = {name: values for name, values in phases.items() if has_values(values) and np.nansum(values) > 0}
  ranked = sorted(phases, key=lambda name: (-np.nansum(phases[name]), name))
  shown = {name: phases[name] for name in ranked[:3]}
  total = pick(metrics, 'seconds/total')
  rest = sum((np.nan_to_num(phases[name]) for name in ranked[3:]), np.zeros(len(metrics)))
  if has_values(total):
    named = sum((np.nan_to_num(values) for values in phases.values()), np.zeros(len(metrics)))
    rest = rest + np.maximum(0, np.nan_to_num(total) - named)
  # A sliver that nobody could see only lengthens the legend.
  if rest.sum() > 0.005 * sum(np.nansum(values) for values in phases.values()):
    shown['other'] = rest
  return shown


def duration(secs: float) -> str:
  """Seconds as a reader would say them."""
  if secs < 90:
    return f'{secs:.0f} s'
  if secs < 90 * 60:
    return f'{secs / 60:.1f} min'
  return f'{secs / 3600:.1f} h'


def _axes(width: float, height: float, run: Run):
  return new_axes(width, height, max([run.steps_done, *(evaluation.step for evaluation in run.evaluations)]))


def new_axes(width: float, height: float, last_step: int):
  """A figure of so many CSS pixels, and its axes over steps from 0."""
  figure = figures.new_figure(width, height)
  axes = figure.subplots()
  figures.plain_axes(axes)
  axes.set_xlabel('step')
  axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
  axes.set_xlim(0, max(1, last_step))
  return figure, axes


def steps_of(run: Run) -> np.ndarray:
  """Steps counted from 1, so that step n stands where the evaluation after n updates stands."""
  steps = np.array([row['step'] for row in run.metrics], dtype=float)
  return steps + 1 if len(steps) and steps[0] == 0 else steps


def _marker(run: Run) -> str:
  """Few steps are shown as points too: a scene drawn once has no line."""
  return 'o' if len(run.metrics) <= 12 else ''


def thinned(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Steps and values of a line that a page can carry."""
  return thin(steps), thin(values)


def has_values(values: np.ndarray) -> bool:
  """Whether a metric was recorded at all."""
  return bool(len(values)) and not np.isnan(values).all()
