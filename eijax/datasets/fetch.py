"""Download the scenario set of the EIBench authors for local use: fetch --out DIR.

Their data stands under CC BY-NC 4.0 and is no part of this project. A killed download goes on where it
was when the same command is run again. What was fetched, from where and when, stands in PROVENANCE.json.
"""

import collections
import contextlib
import dataclasses
import datetime
import fcntl
import hashlib
import os
import pathlib
import re
import sys
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any

import tqdm
from absl import flags

import eijax
from eijax import jsonl
from eijax.datasets import download
from eijax.errors import DataError, EijaxError, UsageError
from eijax.scenarios.load import load_split, parse_record
from eijax.scenarios.record import SCENES, SPLITS

REPOSITORY = 'Tongyi-ConvAI/Qwen-Character'
# Where the files stand in the repository: now, and in revisions before the folder EIBench.
LAYOUTS = ('EIBench/data', 'data')
PROVENANCE = 'PROVENANCE.json'
PAPER = 'https://arxiv.org/abs/2606.15532'
LICENCE = 'CC BY-NC 4.0'
LICENCE_URL = 'https://creativecommons.org/licenses/by-nc/4.0/'
EXPECTED = {'train': 2009, 'test': 213}
NOTICE = f"""\
The EIBench scenarios of {REPOSITORY} ({PAPER})
are the work of their authors, under the Creative Commons licence {LICENCE}:
  {LICENCE_URL}
You may share and adapt them for non-commercial purposes if you give credit to the authors, link the
licence and say what you changed. You may not use them for commercial purposes. Their authors ask that
they serve research only, and no manipulation of people and no imitation of real ones.
They are no part of eijax, whose own scenarios stand under other terms."""
_REVISION = re.compile(r'[A-Za-z0-9][A-Za-z0-9._/-]*')
# A file whose content does not read is fetched anew so often, in case it was damaged on its way.
_NUM_FRESH = 2
_NUM_SHOWN = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Content:
  """A file that reads. broken: one text for each record that breaks a rule of the format."""

  num_bytes: int
  sha256: str
  git_blob: str  # The name that git gives this content: `git ls-tree` of the repository shows the same.
  num_scenarios: int
  broken: tuple[str, ...]


def define_flags(flag_values: flags.FlagValues) -> None:
  flags.DEFINE_string(
    'out', None, f'Folder that gets {{train,test}}/SCENE_final.jsonl and {PROVENANCE}.', flag_values=flag_values
  )
  flags.DEFINE_bool(
    'accept_license', False, f'Accept the licence ({LICENCE}) without being asked on the terminal.',
    flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_string(
    'revision', 'main', 'Branch, tag or commit of the repository; a commit is always the same files.',
    flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_string(
    'base_url', 'https://raw.githubusercontent.com', 'Server of the files, or a mirror with the same paths.',
    flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_float('timeout_secs', 30.0, 'Longest silence of the server in seconds.', flag_values=flag_values)
  flags.DEFINE_integer('max_tries', 6, 'Tries in a row that may bring nothing new.', flag_values=flag_values)


def run(flag_values: flags.FlagValues, arguments: list[str]) -> None:
  """Show the licence, ask, download, verify.

  Raises:
    UsageError: a flag that cannot be used, or nobody there to accept the licence.
    DownloadError: the server does not give the files.
    DataError: what it gives does not read, or holds records that break a rule.
  """
  _check_flags(flag_values, arguments)
  print(NOTICE, flush=True)
  accepted = _accept(flag_values.accept_license)
  out = pathlib.Path(flag_values.out)
  with _locked(out):
    source = f'{flag_values.base_url.rstrip("/")}/{REPOSITORY}/{urllib.parse.quote(flag_values.revision)}'
    provenance = _read_provenance(out, source, flag_values.revision, accepted)
    with download.Downloader(timeout_secs=flag_values.timeout_secs, max_tries=flag_values.max_tries) as downloader:
      for split in SPLITS:
        for scene in SCENES:
          _fetch_file(downloader, out, f'{split}/{scene}_final.jsonl', source, provenance)
    _report(out, provenance)


def _check_flags(flag_values: flags.FlagValues, arguments: list[str]) -> None:
  if arguments:
    raise UsageError(f'unexpected argument {arguments[0]!r}; every setting is a flag, see --help')
  if not flag_values.out:
    raise UsageError('--out is missing; name a folder for the downloaded set')
  if os.path.exists(flag_values.out) and not os.path.isdir(flag_values.out):
    raise UsageError(f'--out={flag_values.out} must be a folder, and is a file; name another one')
  revision = flag_values.revision
  if not _REVISION.fullmatch(revision) or '..' in revision:
    raise UsageError(
      f'--revision={revision!r} must be a branch, tag or commit (letters, digits, ., _, / and -); use main, say'
    )
  try:
    parts = urllib.parse.urlsplit(flag_values.base_url)
    sound = parts.scheme in ('http', 'https') and parts.hostname and not (parts.query or parts.fragment)
    secret = '@' in parts.netloc
  except ValueError:
    sound, secret = False, False
  if secret:  # It would be written to PROVENANCE.json, and is not shown here either.
    raise UsageError('--base_url must not hold a user name or password; the files are public, leave them out')
  if not sound:
    raise UsageError(f'--base_url={flag_values.base_url!r} must be http(s)://HOST[/PATH]; mend it')
  if flag_values.timeout_secs <= 0:
    raise UsageError(f'--timeout_secs={flag_values.timeout_secs} must be above 0; use 30, say')
  if flag_values.max_tries < 1:
    raise UsageError(f'--max_tries={flag_values.max_tries} must be at least 1; use 6, say')


def _accept(by_flag: bool) -> dict[str, str]:
  """Who accepted the licence, when.

  Raises:
    UsageError: no flag, and no terminal to ask on.
    EijaxError: the answer is not yes.
  """
  if not by_flag:
    if sys.stdin is None or not sys.stdin.isatty():
      raise UsageError(
        'the licence has not been accepted, and there is no terminal to ask on; read it and give --accept_license'
      )
    try:
      answer = input('Do you accept this licence? Type yes to download: ')
    except EOFError:
      answer = ''
    if answer.strip().lower() not in ('y', 'yes'):
      raise EijaxError('the licence was not accepted, so nothing was downloaded; answer yes to download')
  return {'by': 'flag --accept_license' if by_flag else 'answer on the terminal', 'at': _now()}


def _now() -> str:
  return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds')


@contextlib.contextmanager
def _locked(out: pathlib.Path) -> Iterator[None]:
  """Keep a second download out of the folder; a killed one leaves no lock behind."""
  try:
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)
  except OSError as error:
    raise EijaxError(f'cannot write {out}: {error.strerror}; choose a writable folder') from None
  try:
    try:
      fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise EijaxError(f'--out={out}: another download into this folder is under way; wait for its end') from None
    yield
  finally:
    os.close(folder)


def _read_provenance(out: pathlib.Path, source: str, revision: str, accepted: Mapping[str, str]) -> dict[str, Any]:
  """What an earlier run has written, or the beginning of a new one.

  Raises:
    UsageError: the folder holds scenarios from elsewhere.
  """
  path = out / PROVENANCE
  if not path.exists():
    return {
      'format': 1, 'repository': f'https://github.com/{REPOSITORY}', 'revision': revision, 'source': source,
      'paper': PAPER, 'licence': LICENCE, 'licence_url': LICENCE_URL, 'notice': NOTICE, 'accepted': dict(accepted),
      'eijax': eijax.__version__, 'files': {},
    }  # fmt: skip
  old = jsonl.read_json(path)
  if not isinstance(old, dict) or not isinstance(old.get('files'), dict):
    raise DataError(f'{path}: field `files` must be an object; remove the file or name another folder')
  if old.get('source') != source:
    raise UsageError(
      f'--out={out} holds files from {old.get("source")}, and {source} is asked for; name another folder'
    )
  return old


def _fetch_file(
  downloader: download.Downloader, out: pathlib.Path, name: str, source: str, provenance: dict[str, Any]
) -> None:
  """Get one file to its place, unless it is there already."""
  path, part = out / name, out / f'{name}.part'
  entry = provenance['files'].get(name)
  if path.exists():
    if entry is None:
      raise UsageError(f'--out={out} holds {name}, which this command did not write; name another folder')
    if hashlib.sha256(path.read_bytes()).hexdigest() != entry['sha256']:
      raise UsageError(f'{path} was changed after it was downloaded; move it away, or name another folder')
    download.drop_part(part)
    print(f'{name}: is there, as it was downloaded at {entry["fetched_at"]}')
    return
  url, arrived, content = _download(downloader, source, provenance, part, name)
  provenance['files'][name] = {
    'url': url, 'fetched_at': _now(), 'bytes': content.num_bytes, 'sha256': content.sha256,
    'git_blob': content.git_blob, 'etag': arrived.etag, 'num_scenarios': content.num_scenarios,
    'broken': list(content.broken),
  }  # fmt: skip
  # In this order a kill between the two costs no download: the part file is whole.
  jsonl.write_json(out / PROVENANCE, provenance)
  try:
    os.replace(part, path)
  except OSError as error:
    raise EijaxError(f'cannot write {path}: {error.strerror}; choose a writable folder') from None
  download.drop_note(part)
  print(f'{name}: {content.num_scenarios} scenarios, {content.num_bytes:,} bytes, sha256 {content.sha256[:12]}...')


def _download(
  downloader: download.Downloader, source: str, provenance: dict[str, Any], part: pathlib.Path, name: str
) -> tuple[str, download.Part, Content]:
  """Fetch and read one file, anew where it does not read. Returns (url, what arrived, content)."""
  for attempt in range(_NUM_FRESH):
    url, arrived = _from_layouts(downloader, source, provenance, part, name)
    try:
      return url, arrived, read_content(part, url)
    except DataError as error:
      download.drop_part(part)
      if attempt + 1 == _NUM_FRESH:
        raise DataError(
          f'{error} (the file was fetched {_NUM_FRESH} times; nothing of it was kept: check --base_url and --revision)'
        ) from None
      print(f'{name}: does not read, so it is fetched once more ({error})', file=sys.stderr)
  raise AssertionError('unreachable')


def _from_layouts(
  downloader: download.Downloader, source: str, provenance: dict[str, Any], part: pathlib.Path, name: str
) -> tuple[str, download.Part]:
  """Fetch from the layout that the revision has; the first file finds out which."""
  known = provenance.get('layout')
  missing = None
  for layout in (known,) if known else LAYOUTS:
    url = f'{source}/{layout}/{name}'
    try:
      with _bar(name) as progress:
        arrived = downloader.fetch(url, part, progress)
    except download.MissingError as error:
      missing = missing or error
      continue
    provenance['layout'] = layout
    return url, arrived
  raise missing


@contextlib.contextmanager
def _bar(name: str) -> Iterator[download.Progress]:
  # The part says how far it is; it may go back to 0 where the server has no ranges.
  with tqdm.tqdm(desc=name, unit='B', unit_scale=True, unit_divisor=1024, leave=False, disable=None) as bar:

    def show(part: download.Part) -> None:
      bar.total = part.total
      bar.update(part.num_bytes - bar.n)

    yield show


def read_content(path: pathlib.Path, url: str) -> Content:
  """Read a downloaded file to its end.

  Raises:
    DataError: a line is no JSON object, as in a damaged or cut file or a web page, or no line holds a scenario.
  """
  num_scenarios, broken, places = 0, [], {}
  for number, obj in _lines(path, url):
    where = f'{url}:{number}'
    if not isinstance(obj, Mapping):
      raise DataError(f'{where}: the line holds {str(obj)[:40]!r} and must hold a JSON object')
    num_scenarios += 1
    try:
      scenario = parse_record(obj, where)
    except DataError as error:
      broken.append(str(error))
      continue
    if scenario.id in places:
      broken.append(f'{where}: field `id` = {scenario.id!r} must be unique, and stands at {places[scenario.id]} already')
    places.setdefault(scenario.id, where)
  if not num_scenarios:
    raise DataError(f'{url}: the file holds no scenario, and must hold one a line')
  content = path.read_bytes()
  return Content(
    num_bytes=len(content), sha256=hashlib.sha256(content).hexdigest(),
    git_blob=hashlib.sha1(b'blob %d\0' % len(content) + content, usedforsecurity=False).hexdigest(),
    num_scenarios=num_scenarios, broken=tuple(broken),
  )  # fmt: skip


def _lines(path: pathlib.Path, url: str) -> Iterator[tuple[int, Any]]:
  try:
    yield from jsonl.read(path)
  except DataError as error:
    raise DataError(str(error).replace(str(path), url)) from None


def _report(out: pathlib.Path, provenance: Mapping[str, Any]) -> None:
  """Say what is there.

  Raises:
    DataError: records break a rule of the format. The files stay: they are what the server has.
  """
  counts = collections.Counter()
  for name, entry in provenance['files'].items():
    counts[name.split('/')[0]] += entry['num_scenarios']
  for split in SPLITS:
    expected = EXPECTED[split]
    note = 'as in the paper' if counts[split] == expected else f'the paper has {expected:,}'
    print(f'{split}: {counts[split]:,} scenarios ({note})')
  print(f'sources and checksums: {out / PROVENANCE}')
  broken = [text for entry in provenance['files'].values() for text in entry['broken']]
  if broken:
    for text in broken[:_NUM_SHOWN]:
      print(f'  {text}', file=sys.stderr)
    raise DataError(
      f'{out}: {len(broken)} records break a rule of the format (all in {PROVENANCE}); the files are what the server has: '
      f'mend them with `python -m eijax.scenarios clean {out} --out ANOTHER`'
    )
  for split in SPLITS:
    load_split(out, split)  # What holds only between files: ids are unique in a split.
