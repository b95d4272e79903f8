"""Durable files: torn lines, full disks, broken JSON."""

import os
import threading

import pytest

from eijax import jsonl
from eijax.errors import DataError, EijaxError


def test_append_then_read_keeps_order_and_unicode(tmp_path):
  path = tmp_path / 'deep' / 'rows.jsonl'
  rows = [{'a': 1}, {'text': '你好\u2028line'}, {'half': '\ud83d'}]
  with jsonl.Appender(path) as file:
    for row in rows:
      file.append(row)
  # U+2028 must not split a line, and half a surrogate pair must not stop a run.
  assert jsonl.read_objects(path) == [rows[0], rows[1], {'half': '?'}]


@pytest.mark.parametrize('torn', [b'{"a": 3, "b": "x', b'{"a"', b'{"a": "\xe4\xbd'])
def test_truncated_last_line_is_tolerated_and_cut(tmp_path, torn):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(b'{"a": 1}\n{"a": 2}\n' + torn)
  assert jsonl.read_objects(path) == [{'a': 1}, {'a': 2}]
  with jsonl.Appender(path) as file:
    file.append({'a': 3})
  assert path.read_bytes() == b'{"a": 1}\n{"a": 2}\n{"a": 3}\n'


def test_whole_last_line_without_newline_is_kept(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(b'{"a": 1}\n{"a": 2}')
  with jsonl.Appender(path) as file:
    file.append({'a': 3})
  assert [row['a'] for row in jsonl.read_objects(path)] == [1, 2, 3]


def test_broken_line_in_the_middle_is_an_error(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(b'{"a": 1}\n{"a": \n{"a": 3}\n')
  with pytest.raises(DataError, match=r'rows.jsonl:2: column'):
    jsonl.read_objects(path)


def test_read_numbers_lines_and_skips_blank_ones(tmp_path):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": 2}\n')
  assert list(jsonl.read(path)) == [(1, {'a': 1}), (4, {'a': 2})]


@pytest.mark.parametrize(
    'line, pattern',
    [
        (b'{"a": 1,, "b": 2}', r'rows.jsonl:2: column 9: broken JSON'),
        (b'{"a": "\xff"}', r'rows.jsonl:2: byte 8 of the line is not UTF-8'),
        (b'[' * 100_000, r'rows.jsonl:2: '),
        (b'{"a": ' + b'9' * 5000 + b'}', r'rows.jsonl:2: '),
    ],
)
def test_broken_json_names_line_and_column(tmp_path, line, pattern):
  path = tmp_path / 'rows.jsonl'
  path.write_bytes(b'{"a": 1}\n' + line + b'\n')
  with pytest.raises(DataError, match=pattern):
    list(jsonl.read(path))


def test_missing_file_is_a_data_error(tmp_path):
  with pytest.raises(DataError, match='No such file'):
    list(jsonl.read(tmp_path / 'none.jsonl'))


def test_threads_do_not_mix_lines(tmp_path):
  path = tmp_path / 'rows.jsonl'
  with jsonl.Appender(path) as file:
    threads = [
        threading.Thread(target=lambda i=i: [file.append({'i': i, 'x': 'y' * 500}) for _ in range(5)])
        for i in range(8)
    ]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert len(jsonl.read_objects(path)) == 40


def test_atomic_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
  path = tmp_path / 'summary.json'
  jsonl.write_json(path, {'n': 1})

  def full(_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(EijaxError, match='No space left on device; free some space'):
    jsonl.write_json(path, {'n': 2})
  assert jsonl.read_json(path) == {'n': 1}
  assert [p.name for p in tmp_path.iterdir()] == ['summary.json']


def test_full_disk_while_appending_keeps_whole_records(tmp_path, monkeypatch):
  path = tmp_path / 'rows.jsonl'
  file = jsonl.Appender(path)
  file.append({'a': 1})
  with monkeypatch.context() as patch:
    patch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'No space left on device')))
    with pytest.raises(EijaxError, match='No space left'):
      file.append({'a': 2})
  file.append({'a': 3})
  file.close()
  assert jsonl.read_objects(path) == [{'a': 1}, {'a': 3}]


def test_unwritable_folder_is_one_clear_error(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(EijaxError, match='cannot write'):
    jsonl.Appender(tmp_path / 'file' / 'rows.jsonl')
  with pytest.raises(EijaxError, match='cannot write'):
    jsonl.write_json(tmp_path / 'file' / 'x.json', {})
