"""The page of a supervised fine-tuning: loss curves, what was learned from, settings."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from eijax import jsonl
from eijax.errors import DataError
from eijax.evaluation.reading import number
from eijax.report import figures, learning_figures
from eijax.report.plain_text import shorten
from eijax.report.run_folder import STEP_FOLDER, Run
from eijax.report.series import pick, rolling_mean, window_for
from eijax.report.settings import flatten

_MAX_NAME_CHARS = 100
_MAX_SETTING_CHARS = 1000
_COUNTS = (
    ('conversations', 'Conversations learned from'), ('turns', 'Assistant turns'), ('tokens', 'Tokens of these turns'),
    ('segments', 'Segments'), ('positions', 'Positions, prompts included'), ('cut', 'Conversations cut: their last turns do not fit'),
    ('turns_left_out', 'Assistant turns left out as too long'), ('dropped', 'Conversations dropped as too long'),
    ('thoughts_left_out', 'Thoughts left out'),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
  """The held-out loss after so many updates, in nats per assistant token."""

  step: int
  loss: float
  perplexity: float
  num_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Headline:
  """figure: the held-out losses in large type, if has_figure. finding: a sentence. warnings: what limits it."""

  figure: str
  has_figure: bool
  finding: str
  warnings: tuple[str, ...]


def content(workdir: str | os.PathLike, run: Run) -> dict[str, Any]:
  """What the template `supervised.html.j2` shows.

  Raises:
    DataError: a file of the run is broken.
  """
  folder = pathlib.Path(workdir)
  data = jsonl.read_json(folder / 'data.json') if (folder / 'data.json').exists() else {}
  if not isinstance(data, dict):
    raise DataError(f'{folder / "data.json"}: must hold a JSON object; start the run again to have it written anew')
  measured = _read_measured(folder / 'eval')
  num_steps = data.get('num_steps')
  panel = _loss_panel(run, measured)
  return {
      'title': f'Fine-tuning on {shorten(str(run.config.get("preset") or "a policy"), _MAX_NAME_CHARS)}',
      'seed': shorten(str(run.config.get('seed', 'not recorded')), _MAX_NAME_CHARS),
      'steps_done': run.steps_done, 'num_steps': num_steps,
      'headline': _headline(run, measured, num_steps, data),
      'learning': [panel] if panel else [],
      'health': learning_figures.panels(run, _HEALTH),
      'seconds': learning_figures.seconds_panel(run),
      'measured': measured,
      'data': _data_table(data),
      'settings': [(shorten(name, _MAX_NAME_CHARS), shorten(value, _MAX_SETTING_CHARS)) for name, value in flatten(run.config)],
      'palette': figures.PALETTE,
  }


_HEALTH = (
    ('entropy', 'Entropy', 'Nats per token, of what the policy expects at assistant tokens.'),
    ('grad_norm', 'Gradient norm', 'Before clipping. Single spikes do no harm; a steady rise does.'),
    ('learning_rate', 'Learning rate', 'Warm-up, then a cosine.'),
    ('num_tokens', 'Tokens learned from', 'Assistant tokens of each update.'),
    ('filled_fraction', 'Rows filled', 'Share of the positions of a mini-batch that hold conversations; the rest is padding.'),
    ('tokens_per_sec', 'Tokens per second', 'Positions of conversations, prompts included.'),
)


def _read_measured(folder: pathlib.Path) -> tuple[Measured, ...]:
  found = []
  for path in sorted(folder.glob('step_*/summary.json')):
    match = STEP_FOLDER.match(path.parent.name)
    summary = jsonl.read_json(path) if match else None
    if not match:
      continue
    values = [number(summary.get(name)) for name in ('loss', 'perplexity', 'num_tokens')] if isinstance(summary, Mapping) else [np.nan]
    if np.isnan(values).any():
      raise DataError(f'{path}: must hold the numbers `loss`, `perplexity` and `num_tokens`; remove the folder and start the run again')
    found.append(Measured(step=int(match.group(1)), loss=values[0], perplexity=values[1], num_tokens=int(values[2])))
  return tuple(sorted(found, key=lambda item: item.step))


def _headline(run: Run, measured: Sequence[Measured], num_steps: int | None, data: Mapping[str, Any]) -> Headline:
  warnings = []
  if num_steps is None or run.steps_done < num_steps:
    of = '' if num_steps is None else f' of {num_steps}'
    warnings.append(f'This run is not finished: {run.steps_done}{of} steps are done.')
  seen = data.get('held_out_seen_in_training')
  if seen:
    warnings.append(f'{seen} of the distinct held-out conversations also stand in the training set, so the held-out loss flatters.')
  if not measured:
    return Headline(figure='No held-out loss', has_figure=False, warnings=tuple(warnings),
                    finding='No conversations were held out, or none has been measured yet: what follows is the loss of training alone.')
  first, last = measured[0], measured[-1]
  if first is last:
    return Headline(figure=f'{first.loss:.3f}', has_figure=True, warnings=tuple(warnings),
                    finding=f'Held-out loss at step {first.step}: {first.loss:.4f} nats per token, perplexity {first.perplexity:.2f}.')
  best = min(measured, key=lambda item: item.loss)
  if best.step < last.step:
    warnings.append(f'The lowest held-out loss was {best.loss:.4f} at step {best.step}; since then the policy learns the training set by heart.')
  verb = 'fell' if last.loss < first.loss else 'rose' if last.loss > first.loss else 'did not move'
  return Headline(
      figure=f'{first.loss:.3f} → {last.loss:.3f}', has_figure=True, warnings=tuple(warnings),
      finding=f'The held-out loss {verb} from {first.loss:.4f} at step {first.step} to {last.loss:.4f} nats per token at step '
      f'{last.step}: perplexity {first.perplexity:.2f} to {last.perplexity:.2f}.')


def _loss_panel(run: Run, measured: Sequence[Measured]) -> learning_figures.Panel | None:
  loss = pick(run.metrics, 'loss')
  if not learning_figures.has_values(loss) and not measured:
    return None
  window = window_for(len(loss))
  with figures.style():
    figure, axes = learning_figures.new_axes(440, 290, max([run.steps_done, *(item.step for item in measured)]))
    words = []
    if learning_figures.has_values(loss):
      smooth = rolling_mean(loss, window)
      steps = learning_figures.steps_of(run)
      axes.plot(*learning_figures.thinned(steps, loss), color=figures.color('before'), linewidth=0.9, label='training, each step')
      axes.plot(*learning_figures.thinned(steps, smooth), color=figures.color('after'), linewidth=2.2,
                label=f'training, mean of {window} steps')
      present = smooth[~np.isnan(smooth)]
      words.append(f'Training loss: rolling mean {present[0]:.3f} at first, {present[-1]:.3f} at last.')
    if measured:
      axes.plot([item.step for item in measured], [item.loss for item in measured], 'D', markersize=6,
                color=figures.color('ink'), label='held-out', clip_on=False, zorder=4)
      words += [f'Held-out loss at step {item.step}: {item.loss:.3f}.' for item in (measured[0], measured[-1])]
    axes.set_ylabel('nats per token')
    figure.legend(loc='outside upper left', ncols=2, handlelength=1.6, columnspacing=1.2)
    svg = figures.to_svg(figure, 'loss', ' '.join(words))
  return learning_figures.Panel(
      title='Loss', svg=svg,
      note='Each step learns from other conversations, hence the jitter. Where the held-out loss rises while that of training falls, '
      'the policy learns by heart.')


def _data_table(data: Mapping[str, Any]) -> dict[str, Any] | None:
  columns = [(words, data[name]) for name, words in (('training', 'Training'), ('held_out', 'Held out'))
             if isinstance(data.get(name), Mapping)]
  if not columns:
    return None
  rows = [{'name': words, 'values': [f'{counts.get(key, 0):,}' for _, counts in columns]} for key, words in _COUNTS]
  return {'columns': [words for words, _ in columns], 'rows': rows}
