"""Talks for the page: an index that is read at once, and the texts of each model, packed."""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from typing import Any

from eijax.leaderboard.entries import Entry
from eijax.leaderboard.failure_modes import OTHER_RULES, flags_of, rule_of
from eijax.report.plain_text import clean_text, shorten
from eijax.scenarios.record import SCENES

_MAX_NAME_CHARS = 120
_MAX_REASON_CHARS = 400


def index(entries: Sequence[Entry], rules: Sequence[str]) -> dict[str, Any]:
  """What lists and filters need: `ids`, `endings`, `flags`, and `talks`, a list a model.

  A talk is [place in ids, sample, place in SCENES, score x100 or None, place in endings,
  turns, places in `rules`, places in flags], in the order of the model's rows.
  """
  ids, endings, flags = {}, {}, {}
  rule_place = {rule: place for place, rule in enumerate(rules)}
  talks = []
  for entry in entries:
    rows = []
    for row in entry.rows:
      named = {rule for turn in row['turns'] if (rule := rule_of(turn.get('reflection')))}
      flagged = {flag for turn in row['turns'] for flag in flags_of(turn)}
      rows.append([
          _place(ids, clean_text(row['id'])[:_MAX_NAME_CHARS]), row.get('sample', 0), SCENES.index(row['scene_tag']),
          None if row['score'] is None else round(100 * row['score'], 1),
          _place(endings, clean_text(str(row.get('ended_by')))[:_MAX_NAME_CHARS]), len(row['turns']),
          sorted({rule_place.get(rule, rule_place.get(OTHER_RULES, 0)) for rule in named}),
          sorted(_place(flags, flag) for flag in flagged),
      ])
    talks.append(rows)
  return {'ids': list(ids), 'endings': list(endings), 'flags': list(flags), 'talks': talks}


def _place(places: dict[str, int], name: str) -> int:
  return places.setdefault(name, len(places))


def packed_talks(entry: Entry, *, max_chars: int, thoughts: bool) -> str:
  """The texts of all talks of a model as base64 of gzipped JSON, in the order of its rows.

  A talk is [turns, stop_reason, error, closing line]; a turn is [defender, thought, simulator,
  anger, trust, anger_delta, trust_delta, reflection as [name, text] pairs, flags].
  """
  talks = [
      [
          [_turn(turn, max_chars, thoughts) for turn in row['turns']],
          _text(row.get('stop_reason'), _MAX_REASON_CHARS), _text(row.get('error'), _MAX_REASON_CHARS),
          _text((row.get('closing') or {}).get('defender'), max_chars),
      ]
      for row in entry.rows
  ]
  content = json.dumps(talks, ensure_ascii=False, separators=(',', ':')).encode('utf-8')
  # No time stamp: the same folders give the same bytes.
  return base64.b64encode(gzip.compress(content, compresslevel=6, mtime=0)).decode('ascii')


def _turn(turn: Mapping[str, Any], max_chars: int, thoughts: bool) -> list[Any]:
  return [
      _text(turn.get('defender'), max_chars),
      _text(turn.get('thought'), max_chars) if thoughts else '',
      _text(turn.get('simulator'), max_chars),
      *(turn[name] for name in ('anger', 'trust', 'anger_delta', 'trust_delta')),
      _reflection(turn.get('reflection'), max_chars),
      flags_of(turn),
  ]


def _reflection(reflection: Any, max_chars: int) -> list[list[str]]:
  if isinstance(reflection, Mapping):
    return [[_text(name, _MAX_NAME_CHARS), _text(value, max_chars)] for name, value in reflection.items()]
  text = _text(reflection, max_chars)
  return [['', text]] if text else []


def _text(value: Any, max_chars: int) -> str:
  if value is None:
    return ''
  if not isinstance(value, str):
    value = json.dumps(value, ensure_ascii=False)
  return shorten(clean_text(value), max_chars)
