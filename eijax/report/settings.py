"""The settings of a run as a flat table, with nothing secret in it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = '(hidden)'
_SECRET_NAME = re.compile(r'(?:api|access|secret|private)_?keys?\b|password|passwd|secret|authorization|bearer|credential', re.I)
_URL_USER = re.compile(r'(?<=://)[^/\s@]+@')
_URL_QUERY = re.compile(r'(?<=[?&])([^=&\s#]*(?:key|token|secret|sig)[^=&\s#]*)=[^&\s#]+', re.I)


def flatten(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, str]]:
  """Yield (dotted name, value as text) in the order of the file.

  A run keeps keys out of its config; should one be there, by name or inside a URL, it is
  hidden all the same, because reports are shared.
  """
  for key, value in config.items():
    name = f'{prefix}{key}'
    if _SECRET_NAME.search(str(key)) and value:
      yield name, HIDDEN
    elif isinstance(value, Mapping) and value:
      yield from flatten(value, f'{name}.')
    else:
      yield name, _as_text(value)


def _as_text(value: Any) -> str:
  if isinstance(value, str):
    text = value
  elif isinstance(value, list) and all(isinstance(item, (str, int, float)) for item in value):
    text = ', '.join(_as_text(item) for item in value)
  else:
    text = json.dumps(value, ensure_ascii=False, sort_keys=True)
  return _URL_QUERY.sub(rf'\1={HIDDEN}', _URL_USER.sub(f'{HIDDEN}@', text))
