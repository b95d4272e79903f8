"""EICAP's fine-tuning on UltraChat: a LoRA adapter on Qwen2.5, from a user's own copy of the data.

    python experiments/eicap_ultrachat.py --data=train_0.jsonl,train_1.jsonl --policy=/models/Qwen2.5-7B-Instruct
    python -m eijax.evaluate --model=runs/eicap-ultrachat

Source: EICAP, https://arxiv.org/abs/2508.06196: Qwen2.5 (7B), base and instruct, is fine-tuned with LoRA adapters on
UltraChat (in English and Arabic), to see whether general conversations teach emotional intelligence. Its second version
finds no significant gain from UltraChat (macro score 24.6, chance 25), and says of the adapter of its own corpus that it
has about 0.8 % of the parameters. Its abstracts give no rank, rate, batch or number of passes, and no code is public:
these are OURS, in `SETTINGS`, and any of them can be overridden. Rank 24 beside all seven linear maps of a layer is 0.8 % of
Qwen2.5-7B.

UltraChat is not part of this project. Its own files ({"id", "data": [user, assistant, ...]} a line) are rewritten as
chats beside --workdir; files that hold {"messages": [...]} already are used as they are. Conversations that break a rule of
eijax.sft (an empty turn, say) are left out and counted. Further flags go to eijax.sft, after --:

    python experiments/eicap_ultrachat.py --data=... --policy=... -- --mesh=fsdp=8 --tpu --max_steps=1000
"""

import pathlib
import subprocess
import sys

from absl import flags

from eijax import command, jsonl
from eijax.conversations.record import parse_conversation
from eijax.errors import DataError, UsageError

_DATA = flags.DEFINE_list('data', None, "Comma-separated JSONL files of the user's own copy of UltraChat.")
_POLICY = flags.DEFINE_string('policy', None, 'Folder of a Hugging Face model; in EICAP, Qwen2.5-7B or Qwen2.5-7B-Instruct.')
_WORKDIR = flags.DEFINE_string('workdir', 'runs/eicap-ultrachat', 'Folder of the run.')
_LIMIT = flags.DEFINE_integer('limit', 0, 'Conversations to read, from the first; 0 for all.', lower_bound=0)

# All ours, see above.
SETTINGS = {
    'lora_rank': 24, 'lora_alpha': 48, 'learning_rate': 2e-4, 'warmup_fraction': 0.03, 'weight_decay': 0.0, 'num_epochs': 1,
    'row_lengths': '1024,2048,4096', 'rows_per_minibatch': 32, 'num_micro_batches': 4, 'held_out_fraction': 0.01,
    'eval_every': 200, 'checkpoint_every': 200, 'too_long': 'cut',
}


def as_messages(record) -> dict:
  """{"messages"} of a record of UltraChat: texts of user and assistant in turn. Others stay as they are."""
  turns = record.get('data') if isinstance(record, dict) else None
  if not isinstance(turns, list):
    return record
  return {'messages': [{'role': ('user', 'assistant')[number % 2], 'content': text} for number, text in enumerate(turns)]}


def convert(sources: list[str], target: pathlib.Path, limit: int) -> tuple[int, int]:
  """Write the conversations of all sources to one file of chats, at once.

  Returns:
    (number written, number left out because they break a rule).
  Raises:
    DataError: a file cannot be read, a line is not JSON, or nothing is left.
  """
  written, left_out, first = [], 0, ''
  for source in sources:
    for number, record in jsonl.read(source):
      if limit and len(written) + left_out == limit:
        break
      chat = as_messages(record)
      try:
        parse_conversation(chat, f'{source}:{number}')
        written.append({'messages': chat['messages']})
      except DataError as error:
        left_out += 1
        first = first or str(error)
  if not written:
    raise DataError(f'{",".join(sources)}: no conversation could be used' + (f', the first because {first}' if left_out else ''))
  if left_out:
    print(f'left out: {left_out} conversations, the first because {first}', flush=True)
  jsonl.write_lines(target, written)
  return len(written), left_out


def main(argv: list[str]) -> None:
  if not _DATA.value or not _POLICY.value:
    raise UsageError('--data and --policy must both be given; see --help')
  workdir = pathlib.Path(_WORKDIR.value)
  chats = workdir.with_name(f'{workdir.name}-chats.jsonl')
  num, _ = convert(_DATA.value, chats, _LIMIT.value)
  print(f'{num} conversations in {chats}', flush=True)
  settings = [f'--{name}={value}' for name, value in SETTINGS.items()]
  tune = [sys.executable, '-m', 'eijax.sft', f'--data={chats}', f'--policy={_POLICY.value}', f'--workdir={workdir}', *settings, *argv[1:]]
  sys.exit(subprocess.run(tune, check=False).returncode)


if __name__ == '__main__':
  command.run(main)
