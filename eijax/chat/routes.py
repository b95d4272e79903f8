"""Where requests go: base URLs and keys, and how to speak of them without leaking a key."""

import dataclasses
import functools
import urllib.parse
from collections.abc import Sequence

from eijax.errors import UsageError


def display_url(url: str) -> str:
  """The URL without user, password, query and fragment, which may hold secrets."""
  parts = urllib.parse.urlsplit(url)
  return urllib.parse.urlunsplit((parts.scheme, parts.netloc.rpartition('@')[2], parts.path, '', ''))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
  """One endpoint with one key ('' for none)."""

  url: str  # Base URL, without a slash at the end.
  key: str = dataclasses.field(repr=False)

  @functools.cached_property
  def display(self) -> str:
    return display_url(self.url)


def make_routes(urls: Sequence[str], keys: Sequence[str], key_variable: str) -> tuple[Route, ...]:
  """Combine URLs and keys: pairwise where their numbers agree, else every key at every URL.

  Args:
    urls: base URLs such as http://127.0.0.1:8000/v1.
    keys: may be empty.
    key_variable: the environment variable that the keys came from, for messages.
  Raises:
    UsageError: a malformed URL or key; the message never holds the key.
  """
  if not urls:
    raise UsageError('urls is empty, but must hold at least one base URL; give http://host:port/v1')
  cleaned = []
  for url in urls:
    url = url.strip().rstrip('/').removesuffix('/chat/completions')
    try:
      parts = urllib.parse.urlsplit(url)
      is_sound = parts.scheme in ('http', 'https') and bool(parts.hostname)
      _ = parts.port  # Raises ValueError where it is no port.
    except ValueError:
      is_sound = False
    if not is_sound:
      # What is no URL may be a key in the wrong place: do not show it.
      raise UsageError(
          f'url number {len(cleaned) + 1} must look like http://host:port/v1 or https://host/v1; mend the URL'
      )
    cleaned.append(url)
  for number, key in enumerate(keys, start=1):
    if not key or not key.isascii() or not key.isprintable() or ' ' in key:
      raise UsageError(
          f'{key_variable}: key number {number} must be printable ASCII without blanks; '
          f'set {key_variable} again, keys separated by commas'
      )
  if not keys:
    return tuple(Route(url=url, key='') for url in cleaned)
  if len(keys) == len(cleaned):
    return tuple(Route(url=url, key=key) for url, key in zip(cleaned, keys))
  return tuple(Route(url=url, key=key) for key in keys for url in cleaned)
