"""Draw one talk: anger and trust after each turn, and the change that each turn brought."""

from collections.abc import Mapping
from typing import Any

import markupsafe
from matplotlib.ticker import MaxNLocator

from eijax.report import figures
from eijax.report import held_out
from eijax.report.held_out_figures import spread_labels
from eijax.scenarios.record import Anchors

_MARKERS = {'anger': 'o', 'trust': 's'}


def talk_svg(
    row: Mapping[str, Any], name: str, *, num_rounds: int, max_delta: float, anchors: Anchors | None
) -> markupsafe.Markup:
  """Levels above, changes below, on one axis of turns.

  Args:
    num_rounds: width of the axis, the same for all talks so that they compare.
    max_delta: height of the lower part, likewise.
    anchors: draws the targets as dotted lines.
  """
  with figures.style():
    # Fixed margins: there are many of these, and finding the layout is most of the work.
    figure = figures.new_figure(400, 270, layout='none')
    upper, lower = figure.subplots(
        2, 1, sharex=True,
        gridspec_kw={'height_ratios': (2, 1), 'left': 0.125, 'right': 0.995, 'top': 0.975, 'bottom': 0.155, 'hspace': 0.1},
    )
    ends = {}
    for place, axis in enumerate(held_out.AXES):
      levels = held_out.levels(row, axis)
      if anchors is not None:
        target = getattr(anchors, f'target_{axis}')
        upper.plot((0, num_rounds), (target, target), color=figures.color(axis), linewidth=1, linestyle=(0, (1, 2)))
      if not levels:
        continue
      upper.plot(
          range(len(levels)), levels, color=figures.color(axis), marker=_MARKERS[axis], markersize=4, linewidth=1.8, clip_on=False
      )
      ends[f'{axis} {levels[-1]:.0f}'] = (float(levels[-1]), axis)
      lower.bar(
          [turn + (place - 0.5) * 0.36 for turn in range(1, len(levels))],
          [turn[f'{axis}_delta'] for turn in row['turns']], 0.34, color=figures.color(axis),
      )
    for label, (_, place, axis) in spread_labels(ends, gap=14).items():
      upper.annotate(
          label, (len(row['turns']), place), xytext=(8, 0), textcoords='offset points', va='center',
          color=figures.color(axis), fontsize=10, annotation_clip=False,
      )
    _frame(upper, lower, num_rounds, max_delta)
    return figures.to_svg(figure, name, describe(row))


def _frame(upper, lower, num_rounds: int, max_delta: float) -> None:
  for axes in (upper, lower):
    figures.plain_axes(axes)
  upper.set_ylim(0, 100)
  upper.set_ylabel('level')
  # Room at the right for the labels of a talk that went to the last round.
  upper.set_xlim(-0.2, num_rounds + 1.9)
  upper.tick_params(axis='x', length=0)
  lower.axhline(0, color=figures.color('muted'), linewidth=0.8)
  lower.set_ylim(-1.1 * max_delta, 1.1 * max_delta)
  lower.yaxis.set_major_locator(MaxNLocator(3, integer=True, symmetric=True))
  lower.set_ylabel('change')
  for axes in (upper, lower):
    axes.yaxis.set_label_coords(-0.105, 0.5)
  lower.set_xlabel('turn')
  lower.set_xticks(range(num_rounds + 1), ['start', *map(str, range(1, num_rounds + 1))])


def describe(row: Mapping[str, Any]) -> str:
  """The drawing in words."""
  parts = []
  for axis in held_out.AXES:
    levels = held_out.levels(row, axis)
    if levels:
      parts.append(f'{axis} {", ".join(f"{level:.0f}" for level in levels)}')
  return f'Levels at the start and after each turn: {"; ".join(parts)}.' if parts else 'A talk without a turn.'
