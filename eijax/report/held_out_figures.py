"""Drawings of held-out evaluations: scores by scene, endings, anger and trust over the rounds."""

from collections.abc import Mapping

import numpy as np
from matplotlib.ticker import MaxNLocator

from eijax.report import figures
from eijax.report import held_out
from eijax.report.learning_figures import Panel
from eijax.report.run_folder import NO_SCORE, Evaluation, Score
from eijax.scenarios.record import SCENES


def scene_bars(before: Evaluation, after: Evaluation | None, labels: tuple[str, str]) -> Panel:
  """Score by scene and overall, both evaluations side by side, with 95 % intervals."""
  evaluations = [('before', labels[0], before)] + ([('after', labels[1], after)] if after else [])
  names = ['All', *(scene.capitalize() for scene in SCENES)]
  with figures.style():
    figure = figures.new_figure(440, 290)
    axes = figure.subplots()
    figures.plain_axes(axes)
    width = 0.38
    for index, (role, label, evaluation) in enumerate(evaluations):
      scores = [evaluation.overall, *(evaluation.scenes.get(scene, NO_SCORE) for scene in SCENES)]
      offset = (index - (len(evaluations) - 1) / 2) * width
      _bars(axes, scores, offset, width * 0.92, role, label)
    axes.axhline(0, color=figures.color('ink'), linewidth=0.9)
    axes.axvline(0.5, color=figures.color('grid'), linewidth=0.8)
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis='x', length=0, labelcolor=figures.color('ink'))
    axes.set_ylabel('score × 100')
    axes.margins(x=0.02, y=0.08)
    figure.legend(loc='outside upper left', ncols=2, handlelength=1.2)
    described = '; '.join(
        f'{label}: ' + ', '.join(
            f'{name} {score.mean:.1f}'
            for name, score in zip(names, [evaluation.overall, *(evaluation.scenes.get(scene, NO_SCORE) for scene in SCENES)])
            if score.mean is not None
        )
        for _, label, evaluation in evaluations
    )
    svg = figures.to_svg(figure, 'bars', f'Held-out score by scene. {described}.')
  return Panel(title='Score by scene', note='Mean score × 100; the whiskers are 95 % intervals.', svg=svg)


def _bars(axes, scores: list[Score], offset: float, width: float, role: str, label: str) -> None:
  places = [(place, score) for place, score in enumerate(scores) if score.mean is not None]
  if not places:
    return
  means = np.array([score.mean for _, score in places])
  spread = np.maximum(
      [means - [score.low for _, score in places], np.array([score.high for _, score in places]) - means], 0
  )
  axes.bar(
      [place + offset for place, _ in places], means, width, color=figures.color(role), label=label,
      yerr=spread, error_kw={'ecolor': figures.color('ink'), 'elinewidth': 1.2, 'capsize': 2.5},
  )


def endings_panel(before: Evaluation, after: Evaluation | None, labels: tuple[str, str]) -> Panel:
  """How talks ended: one bar of shares for each evaluation."""
  evaluations = [(labels[0], before)] + ([(labels[1], after)] if after else [])
  with figures.style():
    figure = figures.new_figure(440, 90 + 42 * len(evaluations))
    axes = figure.subplots()
    axes.set_facecolor('none')
    handles = {}
    for place, (_, evaluation) in enumerate(evaluations):
      counts = held_out.count_endings(evaluation.rows)
      left = 0.0
      for key, words, role in held_out.ENDINGS:
        share = 100 * counts[key] / max(1, len(evaluation.rows))
        if share:
          bar = axes.barh(place, share, 0.6, left=left, color=figures.color(role), edgecolor='none')
          handles.setdefault(words, bar)
        left += share
    axes.set_yticks(range(len(evaluations)), [label for label, _ in evaluations])
    axes.tick_params(axis='y', labelcolor=figures.color('ink'))
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel('% of talks')
    axes.spines['left'].set_visible(False)
    order = [words for _, words, _ in held_out.ENDINGS if words in handles]
    figure.legend(
        [handles[words] for words in order], order, loc='outside upper left', ncols=2, handlelength=1.2, columnspacing=1.2
    )
    svg = figures.to_svg(figure, 'endings', 'Share of talks by how they ended; the table below has the counts.')
  return Panel(title='How the talks ended', note='', svg=svg)


def mood_panels(before: Evaluation, after: Evaluation | None, meanings: Mapping[str, tuple[str, str]]) -> list[Panel]:
  """Mean anger and trust after each round, a panel a scene."""
  evaluations = [('before', before)] + ([('after', after)] if after else [])
  num_rounds = max((len(row['turns']) for _, evaluation in evaluations for row in evaluation.rows), default=0)
  panels = []
  for scene in SCENES:
    rows = {name: [row for row in item.rows if row['scene_tag'] == scene] for name, item in evaluations}
    if num_rounds and any(rows.values()):
      anger, trust = meanings[scene]
      panels.append(Panel(
          title=scene.capitalize(), note=f'Anger here: {anger}. Trust: {trust}.', svg=_mood(scene, rows, num_rounds)
      ))
  return panels


def _mood(scene: str, rows: Mapping[str, list], num_rounds: int):
  with figures.style():
    figure = figures.new_figure(440, 230)
    axes = figure.subplots()
    figures.plain_axes(axes)
    ends, words = {}, []
    for name, part in rows.items():
      for axis in held_out.AXES:
        means = held_out.mean_levels(part, axis, num_rounds)
        if np.isnan(means).all():
          continue
        axes.plot(
            range(num_rounds + 1), means, color=figures.color(axis), marker='o', markersize=3.5,
            linewidth=2.2 if name == 'after' else 1.4, linestyle='-' if name == 'after' else (0, (4, 2)),
            markerfacecolor=figures.color(axis) if name == 'after' else 'none',
        )
        ends[f'{axis}, {name}'] = (float(means[-1]), axis)
        words.append(f'{axis} {name}: from {means[0]:.0f} to {means[-1]:.0f}')
    axes.set_ylim(0, 100)
    axes.set_xlim(0, num_rounds)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_xlabel('round')
    for label, (level, place, axis) in spread_labels(ends, gap=9).items():
      axes.annotate(
          label, (num_rounds, level), xytext=(num_rounds * 1.03, place), textcoords='data', va='center',
          color=figures.color(axis), fontsize=10.5, annotation_clip=False,
      )
    svg = figures.to_svg(figure, f'mood-{scene}', f'{scene.capitalize()}, mean level over the rounds. {"; ".join(words)}.')
  return svg


def spread_labels(ends: Mapping[str, tuple[float, str]], gap: float) -> dict[str, tuple[float, float, str]]:
  """Heights of labels at the ends of lines, moved apart to `gap` and kept within 0..100.

  Returns:
    label -> (height of the line, height of the label, colour role).
  """
  order = sorted(ends, key=lambda label: (ends[label][0], label))
  places = [ends[label][0] for label in order]
  for index in range(1, len(places)):
    places[index] = max(places[index], places[index - 1] + gap)
  overflow = max(0.0, places[-1] - 100.0) if places else 0.0
  for index in reversed(range(len(places))):
    ceiling = places[index] - overflow if index == len(places) - 1 else places[index + 1] - gap
    places[index] = min(places[index], ceiling)
  return {label: (ends[label][0], place, ends[label][1]) for label, place in zip(order, places)}
