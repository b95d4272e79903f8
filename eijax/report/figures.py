"""Draw matplotlib figures as inline SVG that follows the page: its colours, its font, its width."""

import io
import re
from collections.abc import Mapping

import markupsafe
import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from eijax.report.plain_text import clean_text

# Light and dark value of each role. The light values are what matplotlib draws with; they must all
# differ, because each is replaced by the CSS variable of its role. Blue, vermilion, green and purple
# after Okabe and Ito (https://jfly.uni-koeln.de/color/), with at least 3:1 to the page.
PALETTE: Mapping[str, tuple[str, str]] = {
    'ink': ('#1b1f24', '#e7e9ec'),
    'muted': ('#57606a', '#a6aeb8'),
    'grid': ('#dde1e6', '#343b44'),
    'before': ('#7d8791', '#98a2ad'),
    'after': ('#0a5a9c', '#63b3ed'),
    'anger': ('#c14600', '#f28b50'),
    'trust': ('#0068a9', '#5fb0ee'),
    'support': ('#0072b2', '#56b4e9'),
    'defense': ('#b94700', '#ee8746'),
    'repair': ('#007a5c', '#2fc39b'),
    'charm': ('#a6478a', '#e08fc3'),
    'part-1': ('#2a6f97', '#4f9fd0'),
    'part-2': ('#e0a100', '#d9a92e'),
    'part-3': ('#6a994e', '#7fb661'),
    'part-4': ('#9a8c98', '#8d8393'),
}
_LONG_NUMBER = re.compile(r'-?\d+\.\d{3,}')
_STYLE = {
    'svg.fonttype': 'none',
    'svg.hashsalt': 'eijax',
    'font.family': ['DejaVu Sans'],
    'font.size': 11.0,
    'axes.labelsize': 10.5,
    'xtick.labelsize': 10.5,
    'ytick.labelsize': 10.5,
    'legend.fontsize': 10.5,
    'axes.unicode_minus': True,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.linewidth': 0.8,
    'axes.axisbelow': True,
    'xtick.major.size': 3.0,
    'ytick.major.size': 0.0,
    'legend.frameon': False,
    'lines.solid_capstyle': 'round',
    'path.simplify': True,
    'text.usetex': False,
    'text.parse_math': False,
}


def color(role: str) -> str:
  """The colour to draw with for a role of the palette."""
  return PALETTE[role][0]


def style():
  """Context in which figures are made and drawn."""
  rc = dict(matplotlib.rcParamsDefault)
  # Keys whose mere setting warns or imports a toolkit have no part in a drawing.
  rc = {key: value for key, value in rc.items() if not key.startswith(('backend', 'date.', 'animation.', 'webagg.'))}
  rc |= _STYLE
  for key in ('text.color', 'axes.labelcolor'):
    rc[key] = color('ink')
  for key in ('xtick.labelcolor', 'ytick.labelcolor', 'axes.edgecolor', 'xtick.color', 'ytick.color'):
    rc[key] = color('muted')
  rc['grid.color'] = color('grid')
  return matplotlib.rc_context(rc)


def new_figure(width: float, height: float, *, layout: str = 'constrained') -> Figure:
  """An empty figure of so many CSS pixels; use inside `style()`."""
  return Figure(figsize=(width / 72, height / 72), facecolor='none', layout=layout)


def plain_axes(axes, *, grid: str = 'y') -> None:
  """A quiet frame: no fill, faint lines across."""
  axes.set_facecolor('none')
  axes.grid(axis=grid, linewidth=0.8)


def to_svg(figure: Figure, name: str, description: str) -> markupsafe.Markup:
  """Render to an <svg> element; the same figure gives the same text.

  Args:
    name: unique on the page; keeps the inner ids of drawings apart.
    description: what a reader who does not see the drawing is told.
  """
  buffer = io.StringIO()
  FigureCanvasSVG(figure).print_svg(buffer, metadata={'Date': None, 'Creator': None, 'Format': None, 'Type': None})
  svg = buffer.getvalue()
  svg = svg[svg.index('<svg') :]
  svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.S)
  svg = re.sub(r'<!--.*?-->', '', svg, flags=re.S)
  opening, rest = svg.split('>', 1)
  view_box = re.search(r'viewBox="([^"]+)"', opening).group(1)
  rest = _with_own_ids(rest, name)
  # Two decimals of a CSS pixel are finer than any screen; six double the page.
  rest = re.sub(r'<[^>]*>', lambda tag: _LONG_NUMBER.sub(_two_decimals, tag.group()), rest)
  rest = re.sub(r"font: ([\d.]+px) [^;\"]*", r'font-size: \1', rest)
  rest = re.sub(r'font-family: [^;"]*;?', '', rest)
  rest = rest.replace('xlink:href', 'href')
  for role, (light, _) in PALETTE.items():
    rest = rest.replace(light, f'var(--{role})')
  rest = re.sub(r'\s*\n\s*', '\n', rest)
  label = markupsafe.escape(clean_text(description))
  return markupsafe.Markup(f'<svg viewBox="{view_box}" role="img" aria-label="{label}">{rest.strip()}')


def _two_decimals(number: re.Match) -> str:
  return f'{float(number.group()):.2f}'


def _with_own_ids(svg: str, name: str) -> str:
  """Keep the ids that are referred to, under a prefix of their own."""
  used = set(re.findall(r'url\(#([^)]+)\)', svg)) | set(re.findall(r'href="#([^"]+)"', svg))

  def rename(match: re.Match) -> str:
    return f' id="{name}-{match.group(1)}"' if match.group(1) in used else ''

  svg = re.sub(r' id="([^"]+)"', rename, svg)
  return re.sub(r'(url\(#|href="#)', rf'\g<1>{name}-', svg)
