"""Write new scenarios with a language model: python -m eijax.scenarios generate."""

import collections
import hashlib
import pathlib

import tqdm
from absl import flags

from eijax import jsonl
from eijax.chat.client import ChatClient
from eijax.errors import UsageError
from eijax.generation import duplicates, endpoint, estimate, journal, outputs, prompts, stages
from eijax.generation.asking import Asker, AskingConfig, Rejected, run_all
from eijax.generation.journal import Journal
from eijax.generation.pools import LANGUAGES, Combination, load_pools
from eijax.generation.supply import Supply, shares
from eijax.scenarios.record import SCENES

SPLIT = 'train'
_SHOWN_COMBINATIONS = 3


def define_flags(flag_values: flags.FlagValues) -> None:
  flags.DEFINE_string('out', '', 'Folder of the new set; its journal lets a killed run go on.', flag_values=flag_values)
  flags.DEFINE_integer('num', 40, 'Scenarios wanted, over all scenes.', lower_bound=1, flag_values=flag_values)
  flags.DEFINE_list('scene', ['all'], f'Scenes, comma-separated: all, or some of {", ".join(SCENES)}.', flag_values=flag_values)
  flags.DEFINE_enum('language', 'en', LANGUAGES, 'Language of the scenarios and of the prompts.', flag_values=flag_values)
  flags.DEFINE_string(
    'against', 'scenario_data', 'A set that exists: no near-copy of its items, no seed combination of them; '
    'its train items serve as examples. Empty for none.', flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_bool('appraisal', False, 'Also write our `appraisal`, one more call an item.', flag_values=flag_values)
  flags.DEFINE_bool('dry_run', False, 'Print plan, first prompts and cost estimate; call nothing.', flag_values=flag_values)
  define_endpoint_flags(flag_values)


def define_endpoint_flags(flag_values: flags.FlagValues) -> None:
  """The flags that `generate` and `clean` share."""
  flags.DEFINE_list(
    'model_url', [], 'OpenAI-compatible base URLs, comma-separated (.../v1). '
    f'The key comes from the environment: {endpoint.KEY_VARIABLE}.', flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_string('model', '', 'Name of the model that writes.', flag_values=flag_values)
  flags.DEFINE_integer('seed', 0, 'Seed of everything that is drawn.', flag_values=flag_values)
  flags.DEFINE_integer(
    'concurrency', 8, 'Items worked on at the same time.', lower_bound=1, flag_values=flag_values
  )
  flags.DEFINE_integer(
    'max_cost_tokens', None, 'Stop before more tokens than this, in and out, are spent in this folder. Default: no limit.',
    lower_bound=1, flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_integer(
    'max_tokens', 8192, 'Longest answer, in tokens, the thoughts of a reasoning model included.',
    lower_bound=64, flag_values=flag_values,
  )  # fmt: skip
  flags.DEFINE_integer(
    'max_attempts', 4, 'Answers asked for until one can be used, per stage.', lower_bound=1, flag_values=flag_values
  )
  flags.DEFINE_integer(
    'max_retries', 8, 'Requests sent again after 429, 5xx or silence.', lower_bound=0, flag_values=flag_values
  )
  flags.DEFINE_float(
    'timeout_secs', 300.0, 'Longest silence of the endpoint, in seconds.', lower_bound=0.1, flag_values=flag_values
  )
  flags.DEFINE_bool(
    'resume', True, 'Go on with the run that --out holds; --noresume refuses a folder with a run.',
    flag_values=flag_values,
  )  # fmt: skip


def open_client(flag_values: flags.FlagValues) -> ChatClient:
  return endpoint.open_client(
    flag_values.model_url, flag_values.model, timeout_secs=flag_values.timeout_secs,
    max_retries=flag_values.max_retries, concurrency=flag_values.concurrency,
  )  # fmt: skip


def asking_config(flag_values: flags.FlagValues) -> AskingConfig:
  return AskingConfig(
    max_tokens=flag_values.max_tokens,
    max_attempts=flag_values.max_attempts,
    max_cost_tokens=flag_values.max_cost_tokens,
  )


def run(flag_values: flags.FlagValues, arguments: list[str]) -> None:
  """Generate, or plan with --dry_run. Raises EijaxError."""
  if arguments:
    raise UsageError(f'unexpected argument {arguments[0]!r}; every setting is a flag, see --help')
  wanted = shares(flag_values.num, _scenes(flag_values.scene))
  existing = duplicates.load_existing(flag_values.against) if flag_values.against else duplicates.Existing()
  examples = prompts.Examples(existing.known, flag_values.language)
  if flag_values.dry_run:
    _show_plan(flag_values, wanted, existing, examples)
    return
  if not flag_values.out:
    raise UsageError('--out must name a folder for the new set; give one')
  with open_client(flag_values) as chat:
    with Journal(flag_values.out, _settings(flag_values, existing), flag_values.resume) as journal_:
      chat.check()
      _generate(flag_values, wanted, existing, examples, chat, journal_)


def _scenes(names: list[str]) -> tuple[str, ...]:
  if [name.strip() for name in names] == ['all']:
    return SCENES
  for name in names:
    if name.strip() not in SCENES:
      raise UsageError(f'--scene={name} must be all, or some of {", ".join(SCENES)}; name one of them')
  chosen = {name.strip() for name in names}
  if not chosen:
    raise UsageError(f'--scene must name a scene: all, or some of {", ".join(SCENES)}')
  return tuple(scene for scene in SCENES if scene in chosen)


def _settings(flag_values: flags.FlagValues, existing: duplicates.Existing) -> dict:
  """What the items of one folder have in common. --num, --scene and the limits may change."""
  held_out = hashlib.sha256()
  for scenario in existing.held_out:
    held_out.update(f'{scenario.id}\x1f{scenario.aggressor_prompt}\x1e'.encode('utf-8', 'replace'))
  return {
    'command': 'generate',
    'language': flag_values.language,
    'seed': flag_values.seed,
    'model': flag_values.model,
    'appraisal': flag_values.appraisal,
    'held_out': held_out.hexdigest()[:16],
    'pools_version': load_pools(SCENES[0]).version,
    'prompts_version': prompts.VERSION,
  }


def _generate(flag_values, wanted, existing, examples, chat, journal_: Journal) -> None:
  index = duplicates.Index(existing)
  for entry in journal_.ends.values():
    if entry['end'] == 'accepted':
      index.add(entry['record'])
  supply = Supply(wanted, flag_values.seed, journal_, index)
  asker = Asker(chat, journal_, asking_config(flag_values), flag_values.seed)

  def process(combination: Combination) -> bool:
    try:
      record = stages.make(
        asker, combination, examples, language=flag_values.language, seed=flag_values.seed,
        model=flag_values.model, with_appraisal=flag_values.appraisal,
      )  # fmt: skip
    except Rejected as rejected:
      journal_.end(combination.key, 'rejected', journal_.value(combination.key, 'expand'), str(rejected))
      return False
    with index.lock:  # From the comparison to the entry: two copies cannot both pass.
      why = index.why_not(record)
      if why is not None:
        journal_.end(combination.key, 'rejected', record, why)
        return False
      record['title'] = index.free_title(record['title'])
      journal_.end(combination.key, 'accepted', record)
      index.add(record)
    return True

  def ended() -> None:
    outputs.show_progress(bar, journal_, asker, flag_values.num - supply.num_missing)

  with tqdm.tqdm(total=flag_values.num, desc='generating', unit='scenario') as bar:
    try:
      ended()
      run_all(supply, process, concurrency=flag_values.concurrency, on_end=ended, stop=chat.close)
    finally:
      _write(journal_)
  print(outputs.summary(journal_, asker))
  print(f'written: {pathlib.Path(flag_values.out) / SPLIT}')


def _write(journal_: Journal) -> None:
  ends = sorted(journal_.ends.items())
  outputs.write(
    journal_.folder,
    sorted(
      ((SPLIT, entry['record']) for _, entry in ends if entry['end'] == 'accepted'), key=lambda pair: pair[1]['id']
    ),
    [entry for _, entry in ends if entry['end'] == 'rejected'],
  )


def _accepted(folder: str) -> collections.Counter:
  """How many items of each scene a folder holds, without opening it for writing."""
  entries = jsonl.read_objects(pathlib.Path(folder) / journal.NAME) if folder else []
  return collections.Counter(
    entry['item'].split('/')[0] for entry in entries if entry.get('end') == 'accepted'
  )


def _show_plan(flag_values, wanted, existing, examples) -> None:
  """The dry run."""
  done = _accepted(flag_values.out)
  missing = {scene: max(0, num - done[scene]) for scene, num in wanted.items()}
  print(f'dry run: nothing is called, nothing is written; language {flag_values.language}, seed {flag_values.seed}')
  against = flag_values.against or 'none'
  print(f'compared with: {len(existing.held_out)} held-out and {len(existing.known)} other scenarios ({against})')
  index = duplicates.Index(existing)
  for scene, num in wanted.items():
    pools = load_pools(scene)
    size = f'{pools.num_combinations:,} combinations of {len(pools.situations)} situations'
    print(f'{scene}: {num} wanted, {done[scene]} there; {size}')
    for combination in estimate.first_combinations(scene, flag_values.seed, min(num, _SHOWN_COMBINATIONS)):
      taken = index.holds(combination)
      print(f'  {combination.key}' + (f'  (left out: {taken} is made of it)' if taken else ''))
  plan = estimate.estimate(
    missing, examples, asking_config(flag_values), language=flag_values.language,
    seed=flag_values.seed, with_appraisal=flag_values.appraisal,
  )  # fmt: skip
  first = estimate.first_combinations(next(iter(wanted)), flag_values.seed, 1)[0]
  messages = estimate.expansion_prompt(first, examples, flag_values.language, flag_values.seed)
  print(f'\nfirst prompt, of {first.key}, temperature {stages.TEMPERATURES["expand"]}:')
  for message in messages:
    print(f'--- {message["role"]}\n{message["content"]}')
  stages_asked = ['expand', 'goal', 'worst', '(reclean)', *(['appraisal'] if flag_values.appraisal else [])]
  print(f'--- end of prompt; calls of an item: {", ".join(stages_asked)}\n')
  print('\n'.join(plan.lines()))
  if flag_values.max_cost_tokens is not None:
    print(f'--max_cost_tokens={flag_values.max_cost_tokens:,}: the run stops before more is spent')
