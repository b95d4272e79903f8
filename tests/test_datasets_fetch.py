"""fetch: the licence, resumed downloads, every fault of a server, and what is kept of it."""

import hashlib
import json
import os
import pathlib
import pty
import signal
import socket
import subprocess
import sys
import time
import types

import pytest
from absl import flags

from eijax.datasets import download, fetch
from eijax.errors import DataError, EijaxError, UsageError
from eijax.scenarios.load import load_split
from eijax.scenarios.record import SCENES, SPLITS
from file_server import Fault, FileServer
from talks import make_record

ROOT = pathlib.Path(__file__).resolve().parent.parent
BASE = '/Tongyi-ConvAI/Qwen-Character/main'
NAMES = [f'{split}/{scene}_final.jsonl' for split in SPLITS for scene in SCENES]
FIRST = NAMES[0]


def lines(records):
  return b''.join(json.dumps(record, ensure_ascii=False).encode() + b'\n' for record in records)


def make_files(layout='EIBench/data', num=12):
  """Eight files of about 25 kB, Chinese, as the authors' are."""
  return {
    f'{BASE}/{layout}/{split}/{scene}_final.jsonl': lines(
      make_record(scene, id=f'{split}-{scene}-{n}', goal_one_liner=f'承接{n}' * 200) for n in range(num)
    )
    for split in SPLITS
    for scene in SCENES
  }


def run_fetch(server, out, *words, accept=True):
  values = flags.FlagValues()
  fetch.define_flags(values)
  accepting = ['--accept_license'] if accept else []
  rest = values(['fetch', f'--out={out}', f'--base_url={server.url}', '--timeout_secs=0.5', *accepting, *words])
  fetch.run(values, rest[1:])


@pytest.fixture(autouse=True)
def no_waits(monkeypatch):
  waits = []
  monkeypatch.setattr(download, 'time', types.SimpleNamespace(sleep=waits.append))
  return waits


def assert_complete(out, files):
  for name in NAMES:
    content = next(body for path, body in files.items() if path.endswith(name))
    assert (out / name).read_bytes() == content
  assert sorted(str(p.relative_to(out)) for p in out.rglob('*') if p.is_file()) == sorted([*NAMES, fetch.PROVENANCE])


def test_all_files_come_and_load(tmp_path, capsys):
  with FileServer(make_files()) as server:
    run_fetch(server, tmp_path / 'eibench')
    assert_complete(tmp_path / 'eibench', server.files)
  assert [s.id for s in load_split(tmp_path / 'eibench', 'test')][:2] == ['test-support-0', 'test-support-1']
  said = capsys.readouterr().out
  assert 'CC BY-NC 4.0' in said and 'train: 48 scenarios (the paper has 2,009)' in said


def test_provenance_says_what_came_from_where(tmp_path):
  with FileServer(make_files()) as server:
    run_fetch(server, tmp_path, '--revision=main')
    provenance = json.loads((tmp_path / 'PROVENANCE.json').read_text())
  assert provenance['licence'] == 'CC BY-NC 4.0' and provenance['revision'] == 'main'
  assert provenance['accepted']['by'] == 'flag --accept_license'
  entry = provenance['files'][FIRST]
  content = (tmp_path / FIRST).read_bytes()
  assert entry['url'] == f'{server.url}{BASE}/EIBench/data/{FIRST}'
  assert (entry['bytes'], entry['num_scenarios'], entry['broken']) == (len(content), 12, [])
  assert entry['sha256'] == hashlib.sha256(content).hexdigest()
  git = subprocess.run(['git', 'hash-object', '--stdin'], input=content, capture_output=True, check=True).stdout
  assert entry['git_blob'] == git.decode().strip()
  assert entry['etag'].startswith('"')


def test_counts_of_the_paper_are_confirmed(tmp_path, capsys):
  split_sizes = {'train': (502, 502, 502, 503), 'test': (53, 53, 53, 54)}
  files = {
    f'{BASE}/EIBench/data/{split}/{scene}_final.jsonl': lines(
      make_record(scene, id=f'{split}-{scene}-{n}') for n in range(size)
    )
    for split, sizes in split_sizes.items()
    for scene, size in zip(SCENES, sizes)
  }
  with FileServer(files) as server:
    run_fetch(server, tmp_path)
  said = capsys.readouterr().out
  assert 'train: 2,009 scenarios (as in the paper)' in said and 'test: 213 scenarios (as in the paper)' in said


def test_older_layout_is_found(tmp_path):
  with FileServer(make_files('data')) as server:
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)
    # Only the first file has to find out.
    assert [r.status for r in server.requests] == [404] + [200] * 8


def test_nothing_is_asked_for_twice(tmp_path):
  with FileServer(make_files()) as server:
    run_fetch(server, tmp_path)
    run_fetch(server, tmp_path)
    assert len(server.requests) == 8


# --- licence ---


def command(*words, **settings):
  return subprocess.run(
    [sys.executable, '-m', 'eijax.scenarios', 'fetch', *words],
    cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, **settings,
  )  # fmt: skip


def test_no_terminal_and_no_flag_exits_2(tmp_path):
  with FileServer(make_files()) as server:
    result = command(f'--out={tmp_path / "out"}', f'--base_url={server.url}', stdin=subprocess.DEVNULL)
    assert not server.requests
  assert result.returncode == 2 and 'CC BY-NC 4.0' in result.stdout
  assert '--accept_license' in result.stderr and 'Traceback' not in result.stderr
  assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('answer, code', [('yes', 0), ('no', 1), ('', 1)])
def test_on_a_terminal_it_asks(tmp_path, answer, code):
  ours, theirs = pty.openpty()
  try:
    os.write(ours, f'{answer}\n'.encode())
    with FileServer(make_files(num=1)) as server:
      result = command(f'--out={tmp_path}', f'--base_url={server.url}', stdin=theirs)
      assert len(server.requests) == (8 if code == 0 else 0)
  finally:
    os.close(ours)
    os.close(theirs)
  assert result.returncode == code, result.stderr
  if code:
    assert 'licence was not accepted' in result.stderr
  else:
    assert json.loads((tmp_path / 'PROVENANCE.json').read_text())['accepted']['by'] == 'answer on the terminal'


# --- cut connections ---


def test_cut_connection_goes_on_where_it_was(tmp_path):
  size = len(make_files()[f'{BASE}/EIBench/data/{FIRST}'])
  with FileServer(make_files(), [Fault(only=FIRST, cut_at=10_000), Fault(only=FIRST, cut_at=9_000)]) as server:
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)
    asked = [r for r in server.requests if r.path.endswith(FIRST)]
  assert [r.status for r in asked] == [200, 206, 206]
  assert asked[1].headers['If-Range'] and asked[0].headers['Accept-Encoding'] == 'identity'
  # Less than one chunk is sent again for each cut.
  assert sum(r.num_sent for r in asked) < size + 2 * (1 << 13)


def test_many_cuts_are_no_failure_while_there_is_headway(tmp_path):
  with FileServer(make_files(num=60), [Fault(only=FIRST, cut_at=10_000)] * 10) as server:
    run_fetch(server, tmp_path, '--max_tries=2')
    assert_complete(tmp_path, server.files)


def test_server_without_ranges_sends_all_again(tmp_path):
  with FileServer(make_files(), [Fault(only=FIRST, cut_at=20_000)], ranges=False) as server:
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)
    asked = [r for r in server.requests if r.path.endswith(FIRST)]
  assert [r.status for r in asked] == [200, 200] and 'Range' in asked[1].headers


@pytest.mark.parametrize('etags', ['weak', None])
def test_without_a_strong_tag_no_range_is_asked_for(tmp_path, etags):
  # The rest might be that of another version of the file.
  with FileServer(make_files(), [Fault(only=FIRST, cut_at=20_000)], etags=etags) as server:
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)
    assert not [r for r in server.requests if 'Range' in r.headers]


def test_body_without_a_length(tmp_path):
  with FileServer(make_files(), [Fault(only=FIRST, cut_at=20_000)], lengths=False) as server:
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)


def test_server_that_always_cuts_at_the_same_place_is_given_up(tmp_path):
  with FileServer(make_files(), [Fault(only=FIRST, cut_at=20_000)] * 99, ranges=False) as server:
    with pytest.raises(download.DownloadError, match=r'tried 3 times in vain.*run the same command again'):
      run_fetch(server, tmp_path, '--max_tries=3')
    assert len(server.requests) == 4  # The first one brought something.
  assert not (tmp_path / FIRST).exists()


def test_silent_server_times_out_and_is_asked_for_the_rest(tmp_path):
  with FileServer(make_files(), [Fault(only=FIRST, stall_at=20_000)]) as server:
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)
    assert [r.status for r in server.requests[:2]] == [200, 206]


def test_file_that_changes_between_two_tries_is_fetched_whole(tmp_path):
  files = make_files()
  path = f'{BASE}/EIBench/data/{FIRST}'
  old = files[path].replace('承'.encode(), '旧'.encode())
  with FileServer(files, [Fault(only=FIRST, content=old, cut_at=20_000)]) as server:
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, files)
    assert [r.status for r in server.requests[:2]] == [200, 200]  # If-Range did not hold.


@pytest.mark.parametrize('headers', [{}, {'ETag': ''}, {'Content-Range': 'bytes 0-9/10'}, {'Content-Range': 'nonsense'}])
def test_wrong_range_is_never_put_together(tmp_path, headers):
  # A server, or a cache before it, that sends the rest of another version.
  old = make_files()[f'{BASE}/EIBench/data/{FIRST}'].replace('承'.encode(), '旧'.encode())
  if 'Content-Range' in headers:
    old = None
  wrong = Fault(only=FIRST, headers=headers, content=old, force_range=True)
  with FileServer(make_files(), [Fault(only=FIRST, cut_at=20_000), wrong]) as server:
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)
    assert [r.status for r in server.requests if r.path.endswith(FIRST)] == [200, 206, 200]


def test_part_that_is_longer_than_the_file_is_dropped(tmp_path):
  with FileServer(make_files()) as server:
    part = tmp_path / f'{FIRST}.part'
    part.parent.mkdir(parents=True)
    part.write_bytes(b'x' * 10**6)
    note = {'url': f'{server.url}{BASE}/EIBench/data/{FIRST}', 'total': 10, 'etag': '"e"'}
    (tmp_path / f'{FIRST}.part.json').write_text(json.dumps(note))
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)


def test_damaged_note_costs_a_download_and_no_more(tmp_path):
  with FileServer(make_files()) as server:
    part = tmp_path / f'{FIRST}.part'
    part.parent.mkdir(parents=True)
    part.write_bytes(b'x')
    (tmp_path / f'{FIRST}.part.json').write_text('{"url": ')
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)


# --- statuses ---


@pytest.mark.parametrize('status', [429, 500, 503])
def test_passing_statuses_are_retried(tmp_path, status, no_waits):
  with FileServer(make_files(), [Fault(status=status)] * 3) as server:
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)
  assert len(no_waits) == 3


def test_retry_after_is_honoured(tmp_path, no_waits):
  with FileServer(make_files(), [Fault(status=503, headers={'Retry-After': '7'})]) as server:
    run_fetch(server, tmp_path)
  assert no_waits == [7.0]


def test_too_long_a_wait_is_reported(tmp_path, no_waits):
  with FileServer(make_files(), [Fault(status=429, headers={'Retry-After': '3600'})]) as server:
    with pytest.raises(download.DownloadError, match='asks to wait 3600 s'):
      run_fetch(server, tmp_path)
  assert not no_waits


def test_server_that_keeps_failing_is_given_up(tmp_path):
  with FileServer(make_files(), [Fault(status=500)] * 99) as server:
    with pytest.raises(download.DownloadError, match='answered 500 .tried 3 times'):
      run_fetch(server, tmp_path, '--max_tries=3')
    assert len(server.requests) == 3


def test_no_such_revision(tmp_path):
  with FileServer(make_files()) as server:
    with pytest.raises(download.MissingError, match='404.*--revision'):
      run_fetch(server, tmp_path, '--revision=v9')
    assert len(server.requests) == 2  # One a layout, no retry.


def test_one_missing_file_is_an_error_and_the_others_stay(tmp_path):
  files = make_files()
  del files[f'{BASE}/EIBench/data/{NAMES[3]}']
  with FileServer(files) as server:
    with pytest.raises(download.MissingError, match=NAMES[3]):
      run_fetch(server, tmp_path)
    server.files[f'{BASE}/EIBench/data/{NAMES[3]}'] = make_files()[f'{BASE}/EIBench/data/{NAMES[3]}']
    before = len(server.requests)
    run_fetch(server, tmp_path)
    assert len(server.requests) - before == 5
    assert_complete(tmp_path, server.files)


def test_forbidden_is_not_retried(tmp_path):
  with FileServer(make_files(), [Fault(status=403)]) as server:
    with pytest.raises(download.DownloadError, match='answered 403'):
      run_fetch(server, tmp_path)
    assert len(server.requests) == 1


def test_nobody_there(tmp_path):
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    port = free.getsockname()[1]
  result = command(
    f'--out={tmp_path}', f'--base_url=http://127.0.0.1:{port}', '--accept_license', '--max_tries=1'
  )
  assert result.returncode == 1 and 'Connection refused' in result.stderr
  assert len(result.stderr.strip().splitlines()) == 1 and '0x' not in result.stderr


# --- content ---


def truncated(content):
  return content[: len(content) * 2 // 3 + 7]


def corrupted(content):
  return content[:9000] + b'\x00\xff\x00' + content[9003:]


def login_page(content):
  return b'<html>log in first</html>'


def emptied(content):
  return b''


@pytest.mark.parametrize('damage', [truncated, corrupted, login_page, emptied])
def test_damaged_file_is_fetched_anew(tmp_path, damage, capsys):
  bad = damage(make_files()[f'{BASE}/EIBench/data/{FIRST}'])
  with FileServer(make_files(), [Fault(only=FIRST, content=bad)]) as server:
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)
  assert 'fetched once more' in capsys.readouterr().err


@pytest.mark.parametrize('damage', [truncated, corrupted])
def test_file_that_stays_damaged_is_not_kept(tmp_path, damage):
  files = make_files()
  files[f'{BASE}/EIBench/data/{FIRST}'] = damage(files[f'{BASE}/EIBench/data/{FIRST}'])
  with FileServer(files) as server:
    with pytest.raises(DataError, match=rf'http://.*{FIRST}:\d+.*fetched 2 times; nothing of it was kept'):
      run_fetch(server, tmp_path)
  assert not [p for p in tmp_path.rglob('*') if p.is_file()]


def test_records_that_break_a_rule_are_kept_and_named(tmp_path, capsys):
  files = make_files()
  records = [make_record('repair', id='one', rub_goals__target_anger=95), make_record('repair', id='two'), make_record('repair', id='two')]
  files[f'{BASE}/EIBench/data/{NAMES[2]}'] = lines(records)
  with FileServer(files) as server:
    for _ in range(2):  # The second time nothing is fetched, and it is said again.
      with pytest.raises(DataError, match='2 records break a rule.*eijax.scenarios clean'):
        run_fetch(server, tmp_path)
    assert len(server.requests) == 8
    assert_complete(tmp_path, files)
  assert f'{NAMES[2]}:1: field `rub_goals.target_anger` = 95' in capsys.readouterr().err
  provenance = json.loads((tmp_path / 'PROVENANCE.json').read_text())
  assert len(provenance['files'][NAMES[2]]['broken']) == 2


def test_same_id_in_two_files_of_a_split_is_an_error(tmp_path):
  files = make_files()
  files[f'{BASE}/EIBench/data/train/repair_final.jsonl'] = lines([make_record('repair', id='train-support-0')])
  with FileServer(files) as server:
    with pytest.raises(DataError, match='must be unique'):
      run_fetch(server, tmp_path)


# --- folders ---


def test_files_of_others_are_never_touched(tmp_path):
  mine = tmp_path / FIRST
  mine.parent.mkdir(parents=True)
  mine.write_bytes(b'mine')
  with FileServer(make_files()) as server:
    with pytest.raises(UsageError, match='did not write'):
      run_fetch(server, tmp_path)
    assert not server.requests
  assert mine.read_bytes() == b'mine'


def test_changed_file_is_never_overwritten(tmp_path):
  with FileServer(make_files()) as server:
    run_fetch(server, tmp_path)
    (tmp_path / FIRST).write_bytes(b'{}')
    with pytest.raises(UsageError, match='was changed after'):
      run_fetch(server, tmp_path)
  assert (tmp_path / FIRST).read_bytes() == b'{}'


def test_another_revision_needs_another_folder(tmp_path):
  with FileServer(make_files()) as server:
    run_fetch(server, tmp_path)
    with pytest.raises(UsageError, match='name another folder'):
      run_fetch(server, tmp_path, '--revision=v2')


def test_second_download_into_a_folder_is_kept_out(tmp_path):
  with FileServer(make_files()) as server, fetch._locked(tmp_path):
    with pytest.raises(EijaxError, match='under way'):
      run_fetch(server, tmp_path)


def test_disk_that_cannot_be_written(tmp_path):
  (tmp_path / 'train').write_bytes(b'a file where a folder has to be')
  with FileServer(make_files()) as server:
    with pytest.raises(EijaxError, match='cannot write .*train'):
      run_fetch(server, tmp_path)


@pytest.mark.parametrize(
  'words, said',
  [
    (['--out='], '--out is missing'),
    (['--base_url=ftp://x'], r'must be http\(s\)'),
    (['--base_url=https://me:secret@host'], 'must not hold a user name'),
    (['--revision=../..'], '--revision='),
    (['--revision=a b'], '--revision='),
    (['--timeout_secs=0'], '--timeout_secs=0'),
    (['--max_tries=0'], '--max_tries=0'),
    (['more'], "unexpected argument 'more'"),
  ],
)
def test_bad_flags_exit_2_before_anything_is_shown(tmp_path, words, said, capsys):
  with FileServer({}) as server:
    with pytest.raises(UsageError, match=said) as caught:
      run_fetch(server, tmp_path, *words)
    assert not server.requests
  assert caught.value.exit_code == 2 and 'secret' not in str(caught.value)
  assert not capsys.readouterr().out


# --- kill ---


def test_killed_download_goes_on(tmp_path):
  files = make_files(num=60)
  stop = NAMES[5]
  path = tmp_path / f'{stop}.part'
  words = [f'--out={tmp_path}', '--accept_license']
  with FileServer(files, [Fault(only=stop, stall_at=60_000)]) as server:
    process = subprocess.Popen(
      [sys.executable, '-m', 'eijax.scenarios', 'fetch', *words, f'--base_url={server.url}'],
      cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (path.exists() and path.stat().st_size > 50_000):
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    arrived = path.stat().st_size
    assert not (tmp_path / stop).exists()
    before = len(server.requests)
    result = command(*words, f'--base_url={server.url}')
    assert result.returncode == 0, result.stderr
    later = server.requests[before:]
    assert_complete(tmp_path, files)
  assert len(later) == 3  # Five files were there.
  assert later[0].status == 206 and later[0].headers['Range'] == f'bytes={arrived}-'


def test_kill_between_the_note_and_the_last_step_costs_nothing(tmp_path, monkeypatch):
  with FileServer(make_files()) as server:
    with monkeypatch.context() as patch:
      real = os.replace

      def die(source, target):
        if str(target).endswith(FIRST):
          raise KeyboardInterrupt
        real(source, target)

      patch.setattr(fetch.os, 'replace', die)
      with pytest.raises(KeyboardInterrupt):
        run_fetch(server, tmp_path)
    run_fetch(server, tmp_path)
    assert_complete(tmp_path, server.files)
    assert len(server.requests) == 8
