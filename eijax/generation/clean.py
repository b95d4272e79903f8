"""Mend format and anchors of a set: python -m eijax.scenarios clean DIR --out DIR.

Rules mend JSON, anchors, headings and opening lines; with --model_url a model mends the sheets that rules
cannot. What cannot be mended goes to rejected.jsonl, with the reason. Sound records stay as they are.
"""

import hashlib
import pathlib

import tqdm
from absl import flags

from eijax.errors import UsageError
from eijax.generation import mending, outputs, prompts
from eijax.generation.asking import Asker, Rejected, run_all
from eijax.generation.generate import asking_config, define_endpoint_flags, open_client
from eijax.generation.journal import Journal


def define_flags(flag_values: flags.FlagValues) -> None:
  flags.DEFINE_string('out', '', 'Folder of the cleaned set; its journal lets a killed run go on.', flag_values=flag_values)
  flags.DEFINE_bool(
    'dry_run', False, 'Say what rules mend and what is left for a model; call and write nothing.', flag_values=flag_values
  )
  define_endpoint_flags(flag_values)


class _Supply:
  """The lines that have not ended yet, in order."""

  def __init__(self, lines: list[mending.Line]):
    self._rest = iter(lines)

  def next(self) -> mending.Line | None:
    return next(self._rest, None)

  def done(self, line: mending.Line, accepted: bool) -> None:
    pass


def run(flag_values: flags.FlagValues, arguments: list[str]) -> None:
  """Clean one folder. Raises EijaxError."""
  if len(arguments) != 1:
    raise UsageError('clean takes one folder, DIR, that holds {train,test}/SCENE_final.jsonl; see --help')
  folder = pathlib.Path(arguments[0])
  lines = mending.read_lines(folder)
  if flag_values.dry_run:
    _show_plan(lines)
    return
  if not flag_values.out:
    raise UsageError('--out must name a folder for the cleaned set; give one')
  if pathlib.Path(flag_values.out).resolve() == folder.resolve():
    raise UsageError(f'--out={flag_values.out} is DIR itself; name another folder')
  if bool(flag_values.model_url) != bool(flag_values.model):
    raise UsageError('--model_url and --model belong together; give both, or neither to mend by rule alone')
  digest = hashlib.sha256('\n'.join(line.key for line in lines).encode()).hexdigest()[:16]
  settings = {
    'command': 'clean', 'source': digest, 'model': flag_values.model, 'seed': flag_values.seed,
    'prompts_version': prompts.VERSION,
  }  # fmt: skip
  if flag_values.model_url:
    with open_client(flag_values) as chat, Journal(flag_values.out, settings, flag_values.resume) as journal:
      chat.check()
      asker = Asker(chat, journal, asking_config(flag_values), flag_values.seed)
      _clean(lines, journal, asker, flag_values.concurrency, chat.close)
  else:
    with Journal(flag_values.out, settings, flag_values.resume) as journal:
      _clean(lines, journal, None, 1, lambda: None)


def _clean(lines: list[mending.Line], journal: Journal, asker: Asker | None, concurrency: int, stop) -> None:
  def process(line: mending.Line) -> bool:
    try:
      record, changes = mending.mend(line, asker)
    except Rejected as rejected:
      journal.end(line.key, 'rejected', {'line': line.text}, str(rejected))
      return False
    if changes:
      record['cleaned'] = [*record['cleaned'], *changes] if isinstance(record.get('cleaned'), list) else changes
    journal.end(line.key, 'accepted', record)
    return True

  def ended() -> None:
    outputs.show_progress(bar, journal, asker, len(journal.ends))

  with tqdm.tqdm(total=len(lines), desc='cleaning', unit='record') as bar:
    try:
      ended()
      rest = [line for line in lines if line.key not in journal.ends]
      run_all(_Supply(rest), process, concurrency=concurrency, on_end=ended, stop=stop)
    finally:
      _write(lines, journal)
  print(outputs.summary(journal, asker))
  num_changed = sum('cleaned' in entry['record'] for entry in journal.ends.values() if entry['end'] == 'accepted')
  print(f'written: {journal.folder}; {num_changed} records carry a list of changes (`cleaned`), the others are as they were')


def _write(lines: list[mending.Line], journal: Journal) -> None:
  ends = [(line, journal.ends[line.key]) for line in lines if line.key in journal.ends]
  accepted = [(line.split, entry['record']) for line, entry in ends if entry['end'] == 'accepted']
  outputs.write(
    journal.folder,
    mending.with_free_ids(accepted),
    [entry for _, entry in ends if entry['end'] == 'rejected'],
  )


def _show_plan(lines: list[mending.Line]) -> None:
  num_sound = num_mended = 0
  left: list[tuple[str, str]] = []
  for line in lines:
    try:
      _, changes = mending.mend(line, None)
      num_sound += not changes
      num_mended += bool(changes)
    except Rejected as rejected:
      left.append((line.key, str(rejected)))
  for_model = [reason for _, reason in left if reason.startswith('format: ')]
  print(
    f'dry run: nothing is called, nothing is written; {len(lines)} records: {num_sound} sound, {num_mended} mended by rule, '
    f'{len(for_model)} for a model (one call each if its answers are sound), {len(left) - len(for_model)} beyond mending'
  )
  for key, reason in left[:10]:
    print(f'  {key}: {reason}')
