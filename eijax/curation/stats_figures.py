"""Drawings of a set: anchors by scene, closeness of neighbours, lengths of the sheets."""

from collections.abc import Mapping, Sequence
from typing import Any

import markupsafe
import numpy as np

from eijax.report import figures
from eijax.scenarios.record import SCENES

_MOMENTS = (('initial', 'start', 'before'), ('target', 'target', 'trust'), ('worst', 'worst case', 'anger'))
_AXES = ('anger', 'trust')
_KINDS = (('within train', 'after', '-'), ('within test', 'charm', '-'), ('train to test', 'anger', '--'))


def anchors_figure(anchors: Mapping[str, Mapping[str, Mapping[str, int]]]) -> markupsafe.Markup:
  """How often each level is a start, a target, a worst case: one row a scene, anger and trust side by side."""
  present = [scene for scene in SCENES if anchors.get(scene)]
  with figures.style():
    figure = figures.new_figure(860, 60 + 150 * len(present))
    grid = figure.subplots(len(present), 2, sharex=True, squeeze=False)
    for row, scene in zip(grid, present):
      for axes, axis in zip(row, _AXES):
        figures.plain_axes(axes)
        for place, (moment, label, role) in enumerate(_MOMENTS):
          counts = anchors[scene][f'{moment}_{axis}']
          # Side by side: a start may lie where another scenario has its worst case.
          levels = [int(level) + 1.4 * (place - 1) for level in counts]
          axes.bar(levels, list(counts.values()), 1.4, color=figures.color(role), label=label)
        axes.set_title(f'{scene.capitalize()}: {axis}', loc='left', fontsize=10.5)
        axes.set_xlim(-4, 104)
        axes.locator_params(axis='y', nbins=4, integer=True)
    for axes in grid[-1]:
      axes.set_xlabel('level')
      axes.set_xticks(range(0, 101, 20))
    figure.supylabel('scenarios', fontsize=10.5)
    handles, labels = grid[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper left', ncols=3, handlelength=1.2)
    return figures.to_svg(figure, 'anchors', 'Levels of anger and trust at the start, target and worst case, by scene.')


def closeness_figure(near_copies: Mapping[str, Mapping[str, Any]]) -> markupsafe.Markup:
  """Share of scenarios by the Jaccard index of their closest neighbour."""
  with figures.style():
    figure = figures.new_figure(440, 290)
    axes = figure.subplots()
    figures.plain_axes(axes)
    for name, role, line in _KINDS:
      if name in near_copies:
        counts = np.array(near_copies[name]['histogram'], dtype=float)
        axes.stairs(
          counts / counts.sum(), np.linspace(0, 1, len(counts) + 1), color=figures.color(role), label=name,
          linestyle=line, linewidth=1.6,
        )
    highest = max((values['highest'] for values in near_copies.values()), default=0)
    axes.set_xlim(0, min(1.0, max(0.52, highest * 1.1)))
    axes.set_xlabel('5-gram Jaccard of the closest other sheet')
    axes.set_ylabel('share of scenarios')
    figure.legend(loc='outside upper left', ncols=3, handlelength=1.2)
    described = '; '.join(f'{name}: highest {values["highest"]:.3f}' for name, values in near_copies.items())
    return figures.to_svg(figure, 'closeness', f'Closest neighbours. {described}.')


def lengths_figure(words: Mapping[str, Sequence[int]]) -> markupsafe.Markup:
  """Lengths of the users' sheets by scene. words: scene -> words of each sheet."""
  present = {scene: values for scene, values in words.items() if len(values)}
  with figures.style():
    figure = figures.new_figure(440, 290)
    axes = figure.subplots()
    figures.plain_axes(axes)
    everything = np.concatenate([np.asarray(values) for values in present.values()])
    bins = np.histogram_bin_edges(everything, bins=30)
    for scene, values in present.items():
      axes.hist(
        values, bins=bins, histtype='step', color=figures.color(scene), label=scene.capitalize(), linewidth=1.6
      )
    axes.set_xlabel("words of the user's sheet")
    axes.set_ylabel('scenarios')
    figure.legend(loc='outside upper left', ncols=4, handlelength=1.2)
    described = '; '.join(f'{scene}: median {np.median(values):.0f}' for scene, values in present.items())
    return figures.to_svg(figure, 'lengths', f"Words of the users' sheets. {described}.")
