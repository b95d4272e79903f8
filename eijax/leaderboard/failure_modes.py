"""How talks go wrong: which rule the simulator says it applied, how talks end, what was imitated."""

import collections
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eijax.leaderboard.entries import Entry
from eijax.report.plain_text import clean_text
from eijax.scenarios.record import SCENES

OTHER_RULES = 'other rules'
_MAX_RULES = 40
_MAX_RULE_CHARS = 32
_RULE_LINE = re.compile(r'["\']?\brule["\']?\s*[:=]\s*["\']?([\w][\w -]{1,60})', re.I)


def rule_of(reflection: Any) -> str | None:
  """The rule that weighed most in a turn, as the simulator named it; None where it did not.

  Reflections are objects with a `rule`, or free text, which may hold such an object or a
  line `rule: ...`.
  """
  if isinstance(reflection, str):
    reflection = _object_in(reflection)
  if not isinstance(reflection, Mapping):
    return None
  rule = reflection.get('rule')
  if not isinstance(rule, str):
    return None
  rule = re.sub(r'[\s\-]+', '_', clean_text(rule).strip().strip('.。"\'`*').lower())
  return rule[:_MAX_RULE_CHARS] or None


def _object_in(text: str) -> Mapping[str, Any] | None:
  try:
    value = json.loads(text)
    if isinstance(value, Mapping):
      return value
  except (ValueError, RecursionError):
    pass
  found = _RULE_LINE.search(text)
  return {'rule': found.group(1)} if found else None


def flags_of(turn: Mapping[str, Any]) -> list[str]:
  """Names of the imitation attempts in a turn."""
  flags = turn.get('flags')
  return [_short(flag) for flag in flags if isinstance(flag, str)] if isinstance(flags, list) else []


def _short(text: str) -> str:
  return clean_text(' '.join(text.split()))[:_MAX_RULE_CHARS]


def known_rules(entries: Sequence[Entry]) -> list[str]:
  """All rules that were named, most frequent first; rare ones of many become OTHER_RULES."""
  counts = collections.Counter(
      rule for entry in entries for row in entry.rows for turn in row['turns'] if (rule := rule_of(turn.get('reflection')))
  )
  ranked = sorted(counts, key=lambda rule: (-counts[rule], rule))
  return ranked if len(ranked) <= _MAX_RULES else ranked[:_MAX_RULES] + [OTHER_RULES]


def count_modes(entry: Entry, rules: Sequence[str]) -> dict[str, dict[str, Any]]:
  """Counts by part ('overall' and scenes).

  Of turns: `turns`, `gain`, `flat`, `harm` (trust change less anger change above, at, below 0),
  `rules`, `flags`. Of talks: `talks`, `ended_by`, `truncated` (talks with a cut-off reply).
  """
  parts = {part: _empty() for part in ('overall', *SCENES)}
  known = set(rules)
  for row in entry.rows:
    for part in (parts['overall'], parts[row['scene_tag']]):
      part['talks'] += 1
      part['ended_by'][_short(str(row.get('ended_by')))] += 1
      part['truncated'] += bool(row.get('truncated_turns'))
      for turn in row['turns']:
        net = turn['trust_delta'] - turn['anger_delta']
        part['turns'] += 1
        part['gain' if net > 0 else 'harm' if net < 0 else 'flat'] += 1
        part['flags'].update(flags_of(turn))
        rule = rule_of(turn.get('reflection'))
        if rule:
          part['rules'][rule if rule in known else OTHER_RULES] += 1
  return parts


def _empty() -> dict[str, Any]:
  return {
      'talks': 0, 'turns': 0, 'gain': 0, 'flat': 0, 'harm': 0, 'truncated': 0,
      'rules': collections.Counter(), 'flags': collections.Counter(), 'ended_by': collections.Counter(),
  }
