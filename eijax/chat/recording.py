"""Record every exchange with an endpoint, and answer from the record without a network.

A recording is one folder with one file of JSON lines, an object an exchange:

  run       one name for all that was recorded in one go
  call      one name for all tries of one request
  attempt   from 0
  key       hash of the request as the caller asked for it, before it was put into the form that
            the endpoint takes
  request   that request (with attempt 0)
  sent      the request as it went out, as text; null where it is that of `request`
  url, keyed, status, headers, body or body_base64, latency_secs, trouble, reason
            as in `eijax.chat.wire.Exchange`; API keys are in none of them
  end       null where another try follows, 'answered', or the type of the error that was raised

Requests are found by key, and equal ones by how often they came, so that neither order nor
concurrency matter. An exchange is on disk before its answer is used.
"""

import base64
import collections
import dataclasses
import hashlib
import json
import os
import pathlib
import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from eijax import jsonl
from eijax.chat.errors import NotRecorded
from eijax.chat.wire import Exchange, encode
from eijax.errors import DataError, UsageError

FILE = 'exchanges.jsonl'
ANSWERED = 'answered'


class Call(Protocol):
  """The tries of one request.

  is_replay: whether they come from a recording, so that nothing is to be waited for.
  """

  is_replay: bool

  def send(self, live: Callable[[], Exchange]) -> Exchange:
    """The next try: of the recording, or what `live` does."""

  def keep(self, exchange: Exchange, end: str | None) -> None:
    """Write a try down, with what came of it."""

  @property
  def is_last(self) -> bool:
    """Whether the recording holds no further try."""


class Exchanges(Protocol):
  """Where the tries of a client come from and go to."""

  def open(self, asked: Mapping[str, Any]) -> Call:
    """Begin a request. asked: in the common form."""

  def replays(self, model: str) -> bool:
    """Whether all answers come from a recording; raises where that has none of this model."""


class _LiveCall:
  """Tries that nobody records."""

  is_replay = False
  is_last = False

  def send(self, live: Callable[[], Exchange]) -> Exchange:
    return live()

  def keep(self, exchange: Exchange, end: str | None) -> None:
    pass


class Live:
  """The network alone."""

  def open(self, asked: Mapping[str, Any]) -> Call:
    return _LiveCall()

  def replays(self, model: str) -> bool:
    return False


def key_of(asked: Mapping[str, Any]) -> str:
  """Under what a request is found again: the same in every version, however requests are written on the wire."""
  text = json.dumps(asked, ensure_ascii=False)
  return hashlib.blake2b(text.encode('utf-8', 'replace'), digest_size=16).hexdigest()


@dataclasses.dataclass
class _Tries:
  """Where the tries of one call stand in the file: (offset, length) each."""

  run: str
  places: list[tuple[int, int]] = dataclasses.field(default_factory=list)
  end: str | None = None

  @property
  def is_answered(self) -> bool:
    return self.end == ANSWERED


class _Index:
  """Finds tries in a recording; the bodies stay on disk. Thread-safe.

  Equal requests come in their order. Left out are calls that a kill cut short, and those that
  failed and were asked again by a later run: they are replayed as they went in the end.
  """

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._lock = threading.Lock()
    self._taken: collections.Counter[str] = collections.Counter()
    self.models: set[str] = set()
    self._calls: dict[str, list[_Tries]] = {}
    open_calls: dict[str, _Tries] = {}
    try:
      self._file = open(path, 'rb')  # pylint: disable=consider-using-with
      offset = 0
      for number, line in enumerate(self._file, start=1):
        if line.endswith(b'\n'):  # A last line without its end is one that a kill cut short.
          self._enter(open_calls, self._parse(line, number), offset, len(line))
        offset += len(line)
    except OSError as error:
      raise DataError(f'{path}: cannot be read ({error.strerror}); give the folder of a recording') from None
    for key, calls in self._calls.items():
      last_run = calls[-1].run
      self._calls[key] = [tries for tries in calls if tries.is_answered or tries.run == last_run]

  def _parse(self, line: bytes, number: int) -> dict[str, Any]:
    try:
      entry = json.loads(line)
      if isinstance(entry, dict) and isinstance(entry['key'], str) and isinstance(entry['call'], str):
        return entry
    except (ValueError, KeyError, RecursionError):
      pass
    raise DataError(f'{self._path}:{number}: is no exchange; restore the file or record again')

  def _enter(self, open_calls: dict[str, _Tries], entry: dict[str, Any], offset: int, length: int) -> None:
    tries = open_calls.setdefault(entry['call'], _Tries(str(entry.get('run'))))
    tries.places.append((offset, length))
    if isinstance(entry.get('request'), dict):
      self.models.add(str(entry['request'].get('model')))
    if entry.get('end'):
      tries.end = entry['end']
      del open_calls[entry['call']]
      self._calls.setdefault(entry['key'], []).append(tries)

  def take(self, key: str, *, failed_too: bool) -> _Tries | None:
    """The next recorded call with this key; None where there is none left."""
    with self._lock:
      found = [tries for tries in self._calls.get(key, ()) if failed_too or tries.is_answered]
      position = self._taken[key]
      if position >= len(found):
        return None
      self._taken[key] += 1
      return found[position]

  def read(self, place: tuple[int, int]) -> Exchange:
    """Read one try; does not move a shared position."""
    return _decode(json.loads(os.pread(self._file.fileno(), place[1], place[0])))

  def close(self) -> None:
    self._file.close()


class _ReplayedCall:
  """Tries as they stand in a recording."""

  is_replay = True

  def __init__(self, index: _Index, tries: _Tries):
    self._index, self._tries, self._position = index, tries, 0

  @property
  def is_last(self) -> bool:
    return self._position >= len(self._tries.places)

  def send(self, live: Callable[[], Exchange]) -> Exchange:
    if self.is_last:
      raise NotRecorded('the recording ends before its request does; record again with this version of the program')
    self._position += 1
    return self._index.read(self._tries.places[self._position - 1])

  def keep(self, exchange: Exchange, end: str | None) -> None:
    pass


class Replayer:
  """Answers every request from a recording; touches no network. Thread-safe.

  Raises:
    DataError: the folder holds no recording, or a damaged one.
  """

  def __init__(self, folder: str | os.PathLike):
    self.folder = pathlib.Path(folder)
    self._index = _Index(self.folder / FILE)

  def open(self, asked: Mapping[str, Any]) -> Call:
    """Find a request.

    Raises:
      NotRecorded: it is not there, or came more often than it was recorded.
    """
    tries = self._index.take(key_of(asked), failed_too=True)
    if tries is None:
      said = str(asked['messages'][-1].get('content', ''))[:60] if asked.get('messages') else ''
      raise NotRecorded(
          f'the recording in {self.folder} holds no (further) request like this one (model {asked.get("model")}, seed '
          f'{asked.get("seed")}, last message {said!r}); replay with the settings, scenarios and version of the recording'
      )
    return _ReplayedCall(self._index, tries)

  def replays(self, model: str) -> bool:
    if model not in self._index.models:
      known = ', '.join(sorted(self._index.models)) or 'none at all'
      raise NotRecorded(
          f'the recording in {self.folder} has no request to the model {model!r}, but to {known}; name the recorded model')
    return True

  def close(self) -> None:
    self._index.close()

  def __enter__(self) -> 'Replayer':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()


@dataclasses.dataclass(eq=False)
class _Batch:
  """Exchanges that are written together, by the thread that brought the first."""

  entries: list[dict[str, Any]] = dataclasses.field(default_factory=list)
  written: threading.Event = dataclasses.field(default_factory=threading.Event)
  error: BaseException | None = None


class Recorder:
  """Writes every exchange down. Thread-safe; one a folder, shared by the clients of a run.

  A folder that holds a recording is gone on with: requests that were answered in it are
  answered from it, so that a resumed run stays one that can be replayed, and costs nothing
  twice. Give an empty folder for a fresh recording.
  """

  def __init__(self, folder: str | os.PathLike):
    self.folder = pathlib.Path(folder)
    path = self.folder / FILE
    self._file = jsonl.Appender(path)  # Cuts a line that a kill left incomplete.
    self._index = _Index(path)
    self.run = uuid.uuid4().hex[:8]
    self._lock, self._writing = threading.Lock(), threading.Lock()
    self._batch = _Batch()

  @property
  def is_resumed(self) -> bool:
    """Whether the folder held exchanges already."""
    return bool(self._index.models)

  def open(self, asked: Mapping[str, Any]) -> Call:
    key = key_of(asked)
    tries = self._index.take(key, failed_too=False)
    if tries is not None:
      return _ReplayedCall(self._index, tries)
    return _RecordedCall(self, key, asked)

  def replays(self, model: str) -> bool:
    return False

  def append(self, entry: dict[str, Any]) -> None:
    """Write one exchange durably; those of threads that come while the disk is busy go together.

    Raises:
      EijaxError: the folder cannot be written.
    """
    with self._lock:
      batch = self._batch
      batch.entries.append(entry)
      leads = len(batch.entries) == 1
    if leads:
      with self._writing:
        with self._lock:
          self._batch = _Batch()
        try:
          self._file.extend(batch.entries)
        except BaseException as error:
          batch.error = error
          raise
        finally:
          batch.written.set()
    else:
      batch.written.wait()
      if batch.error is not None:
        raise batch.error

  def close(self) -> None:
    self._file.close()
    self._index.close()

  def __enter__(self) -> 'Recorder':
    return self

  def __exit__(self, *exc_info) -> None:
    self.close()


class _RecordedCall:
  """Tries over the network, written down one by one."""

  is_replay = False
  is_last = False

  def __init__(self, recorder: Recorder, key: str, asked: Mapping[str, Any]):
    self._recorder, self._key, self._asked = recorder, key, asked
    self._name = uuid.uuid4().hex[:16]
    self._attempt = 0

  def send(self, live: Callable[[], Exchange]) -> Exchange:
    return live()

  def keep(self, exchange: Exchange, end: str | None) -> None:
    entry: dict[str, Any] = {'run': self._recorder.run, 'call': self._name, 'attempt': self._attempt, 'key': self._key}
    if self._attempt == 0:
      entry['request'] = dict(self._asked)
    as_asked = self._attempt == 0 and exchange.sent == encode(self._asked)
    entry['sent'] = None if as_asked else exchange.sent.decode('utf-8')
    self._attempt += 1
    self._recorder.append(entry | _encode(exchange) | {'end': end})


def _encode(exchange: Exchange) -> dict[str, Any]:
  entry = dataclasses.asdict(exchange)
  del entry['sent']
  body = entry.pop('body')
  try:
    return entry | {'body': body.decode('utf-8')}
  except UnicodeDecodeError:
    return entry | {'body_base64': base64.b64encode(body).decode()}


def _decode(entry: Mapping[str, Any]) -> Exchange:
  fields = {field.name: entry[field.name] for field in dataclasses.fields(Exchange) if field.name in entry}
  body = base64.b64decode(entry['body_base64']) if 'body_base64' in entry else entry['body'].encode('utf-8')
  sent = entry.get('sent')
  sent = encode(entry['request']) if sent is None else sent.encode('utf-8')
  return Exchange(**fields | {'body': body, 'sent': sent})
