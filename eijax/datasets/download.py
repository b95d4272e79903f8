"""Download a file so that neither a cut connection nor a kill loses what has arrived.

The bytes go to a part file, with a note beside it of what they are part of. A later try asks for the
rest, under the condition that the file is still the same (RFC 9110, sections 13.1.5 and 14); where the
server cannot promise that, it begins anew.
"""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import random
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import requests
import requests.utils
import urllib3

import eijax
from eijax import jsonl
from eijax.errors import DataError, EijaxError

_CONNECT_TIMEOUT_SECS = 10.0
_MAX_DELAY_SECS = 30.0
# A longer wait than this is better reported than slept through.
_MAX_RETRY_AFTER_SECS = 300.0
_PASSING_STATUS = frozenset((408, 425, 429))
# A cut or a kill may lose one chunk.
_CHUNK_BYTES = 1 << 13
_CONTENT_RANGE = re.compile(r'bytes (\d+)-\d+/(\d+)$')


class DownloadError(EijaxError):
  """A file that could not be downloaded, after the tries that may help."""


class MissingError(DownloadError):
  """The server has no such file (404, 410); never retried."""


class _Passing(Exception):
  """A failure that may pass, and the wait that the server asked for."""

  def __init__(self, message: str, wait_secs: float | None = None):
    super().__init__(message)
    self.wait_secs = wait_secs


@dataclasses.dataclass(frozen=True)
class Part:
  """What has arrived of a file. num_bytes: so far; total: of the whole file, None if the server does not say;
  etag: name of this version of the file, None if there is none that a range may be asked by."""

  num_bytes: int = 0
  total: int | None = None
  etag: str | None = None

  @property
  def is_whole(self) -> bool:
    return self.total is not None and self.num_bytes == self.total


# Called with the part after every change of it.
Progress = Callable[[Part], None]


class Downloader:
  """Owns the connections.

  Args:
    timeout_secs: longest silence of the server.
    max_tries: tries in a row that bring nothing new.
    base_delay_secs: of the exponential back-off with full jitter between them.
  """

  def __init__(self, timeout_secs: float = 30.0, max_tries: int = 6, base_delay_secs: float = 0.5):
    if timeout_secs <= 0 or max_tries < 1 or base_delay_secs < 0:
      raise ValueError(
        f'timeout_secs={timeout_secs} must be above 0, max_tries={max_tries} at least 1 and '
        f'base_delay_secs={base_delay_secs} at least 0; change the one that is not'
      )
    self._timeout = (min(_CONNECT_TIMEOUT_SECS, timeout_secs), timeout_secs)
    self._max_tries = max_tries
    self._base_delay_secs = base_delay_secs
    self._session = requests.Session()
    # An entry in ~/.netrc would send a password to a public server.
    self._session.trust_env = False
    self._session.verify = os.environ.get('REQUESTS_CA_BUNDLE') or os.environ.get('CURL_CA_BUNDLE') or True
    self._session.headers.update({
      # Ranges, lengths and tags are those of the file itself only where it is sent as it is.
      'Accept-Encoding': 'identity',
      'User-Agent': f'eijax/{eijax.__version__}',
    })

  def fetch(self, url: str, path: pathlib.Path, progress: Progress = lambda part: None) -> Part:
    """Bring `path` to the whole content of `url`, from what is there of it.

    Raises:
      MissingError: there is no such file.
      DownloadError: the server refuses it, or max_tries in a row brought nothing new. What has
        arrived stays for a later call.
      EijaxError: the disk is full or cannot be written.
    """
    num_failures, most = 0, read_part(url, path).num_bytes
    for _ in itertools.count():
      try:
        return self._advance(url, path, progress)
      except _Passing as failure:
        # A server without ranges may cut at the same place for ever: only a new high counts as headway.
        here = read_part(url, path).num_bytes
        num_failures, most = (0, here) if here > most else (num_failures + 1, most)
        if num_failures >= self._max_tries:
          raise DownloadError(
            f'{failure} (tried {num_failures} times in vain); what has arrived is kept: run the same command again'
          ) from None
        self._wait(failure, num_failures)

  def close(self) -> None:
    self._session.close()

  def __enter__(self) -> 'Downloader':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()

  def _advance(self, url: str, path: pathlib.Path, progress: Progress) -> Part:
    """One request, and as much of its answer as comes."""
    part = read_part(url, path)
    progress(part)
    if part.is_whole:
      return part
    headers = {}
    if part.num_bytes:
      headers = {'Range': f'bytes={part.num_bytes}-', 'If-Range': part.etag}
    try:
      with self._session.get(
        url, headers=headers, stream=True, timeout=self._timeout, proxies=requests.utils.get_environ_proxies(url)
      ) as response:
        part = self._begin(url, path, response, part)
        progress(part)
        part = _receive(path, response, part, progress)
    except requests.exceptions.SSLError as error:
      raise DownloadError(
        f'{url}: the server cannot be trusted ({_reason(error)}); set REQUESTS_CA_BUNDLE if it is yours'
      ) from None
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, requests.exceptions.TooManyRedirects) as error:
      raise DownloadError(f'{url}: cannot be asked for ({_reason(error)}); check --base_url and --revision') from None
    except requests.Timeout:
      raise _Passing(f'{url}: the server sent nothing for {self._timeout[1]:g} s') from None
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
      raise _Passing(f'{url}: the connection failed ({_reason(error)})') from None
    if part.total is None:
      part = dataclasses.replace(part, total=part.num_bytes)  # The end of a chunked answer is marked.
      _note(url, path, part)
    if not part.is_whole:
      raise _Passing(f'{url}: {part.num_bytes} of {part.total} bytes came')
    return part

  def _begin(self, url: str, path: pathlib.Path, response: requests.Response, part: Part) -> Part:
    """Read status and headers; make the part file ready for what follows."""
    status = response.status_code
    if status == 206 and part.num_bytes:
      span = _CONTENT_RANGE.match(response.headers.get('Content-Range', ''))
      same = response.headers.get('ETag', part.etag) == part.etag
      if span and same and (int(span[1]), int(span[2])) == (part.num_bytes, part.total):
        return part
    if status in (206, 416):
      drop_part(path)
      raise _Passing(f'{url}: the server sent another range than was asked for', wait_secs=0.0)
    if status == 200:
      part = _part_of(response)
      _open_anew(url, path, part)
      return part
    said = f'{url}: the server answered {status}'
    if status in (404, 410):
      raise MissingError(f'{said}, no such file; check --revision and --base_url')
    if status in _PASSING_STATUS or status >= 500:
      raise _Passing(said, _retry_after_secs(response))
    raise DownloadError(f'{said}; check --base_url, and whether the repository is still public')

  def _wait(self, failure: _Passing, num_failures: int) -> None:
    if failure.wait_secs is not None and failure.wait_secs > _MAX_RETRY_AFTER_SECS:
      raise DownloadError(
        f'{failure} and asks to wait {failure.wait_secs:.0f} s; run the same command again after that'
      ) from None
    if failure.wait_secs is not None:
      time.sleep(failure.wait_secs)
    else:
      ceiling = min(_MAX_DELAY_SECS, self._base_delay_secs * 2 ** min(num_failures, 30))
      time.sleep(random.uniform(0.0, ceiling))


def read_part(url: str, path: pathlib.Path) -> Part:
  """What of `url` stands in `path`; nothing where that is unknown or cannot be continued."""
  try:
    note = jsonl.read_json(_note_path(path))
    num_bytes = path.stat().st_size
  except (DataError, OSError):
    return Part()
  if not isinstance(note, Mapping) or note.get('url') != url:
    return Part()
  total, etag = note.get('total'), note.get('etag')
  if not isinstance(total, int) or num_bytes > total:
    return Part()
  if num_bytes < total and not isinstance(etag, str):
    return Part()
  return Part(num_bytes=num_bytes, total=total, etag=etag)


def drop_part(path: pathlib.Path) -> None:
  """Forget what has arrived."""
  for each in (path, _note_path(path)):
    with contextlib.suppress(OSError):
      each.unlink(missing_ok=True)


def drop_note(path: pathlib.Path) -> None:
  """Remove the note of a part that has been moved to its place."""
  with contextlib.suppress(OSError):
    _note_path(path).unlink(missing_ok=True)


def _note_path(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f'{path.name}.json')


def _note(url: str, path: pathlib.Path, part: Part) -> None:
  jsonl.write_json(_note_path(path), {'url': url, 'total': part.total, 'etag': part.etag})


def _part_of(response: requests.Response) -> Part:
  """An empty part of the file that this answer begins."""
  length, etag = response.headers.get('Content-Length', ''), response.headers.get('ETag', '')
  if response.headers.get('Content-Encoding', 'identity') != 'identity':
    return Part()  # Length and tag are those of the packed file, which is unpacked on the way.
  # A weak tag (W/"...") does not promise the same bytes, and If-Range refuses it.
  return Part(total=int(length) if length.isdecimal() else None, etag=etag if etag.startswith('"') else None)


def _open_anew(url: str, path: pathlib.Path, part: Part) -> None:
  drop_part(path)
  with _writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b'')
  _note(url, path, part)


def _receive(path: pathlib.Path, response: requests.Response, part: Part, progress: Progress) -> Part:
  """Append the body to the part file, each chunk at once, so that a kill leaves what came."""
  with contextlib.ExitStack() as stack:
    with _writing(path):
      file = stack.enter_context(path.open('ab', buffering=0))
    for chunk in response.iter_content(_CHUNK_BYTES):
      with _writing(path):
        rest = memoryview(chunk)
        while rest:
          rest = rest[file.write(rest) :]
      part = dataclasses.replace(part, num_bytes=part.num_bytes + len(chunk))
      progress(part)
    with _writing(path):
      os.fsync(file.fileno())
  return part


@contextlib.contextmanager
def _writing(path: pathlib.Path):
  # Errors of the network are OSErrors as well: only what touches the disk stands in here.
  try:
    yield
  except OSError as error:
    reason = error.strerror or str(error)
    raise EijaxError(f'cannot write {path}: {reason}; free some space or choose a writable folder') from None


def _retry_after_secs(response: requests.Response) -> float | None:
  value = response.headers.get('Retry-After')
  if value is None:
    return None
  try:
    return max(0.0, float(urllib3.Retry().parse_retry_after(value)))
  except (ValueError, OverflowError, urllib3.exceptions.HTTPError):
    return None  # Not a time: the usual back-off serves.


def _reason(error: Any) -> str:
  """The innermost cause in plain words, without addresses of objects."""
  while inner := next((item for item in _causes(error) if isinstance(item, BaseException)), None):
    error = inner
  return getattr(error, 'strerror', None) or ' '.join(f'{type(error).__name__}: {error}'.split())[:200]


def _causes(error: BaseException) -> tuple[Any, ...]:
  return (getattr(error, 'reason', None), *error.args)
