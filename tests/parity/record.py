"""Record what transformers makes of the talks: python tests/parity/record.py (needs the extra parity)."""

import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from chat_talks import conversations  # pylint: disable=wrong-import-position
from hf_text_folders import FAMILIES, FOLDERS, GOLDEN, MOMENT, digest  # pylint: disable=wrong-import-position
import transformers  # pylint: disable=wrong-import-position
from transformers.utils import chat_template_utils  # pylint: disable=wrong-import-position


class FixedClock:
  """Stands in for `datetime` where transformers asks for the present."""

  @staticmethod
  def now():
    return MOMENT


def recorded() -> dict:
  """family -> thinking -> [number of ids, digest] of each talk."""
  result = {}
  before, chat_template_utils.datetime = chat_template_utils.datetime, FixedClock
  try:
    for family in FAMILIES:
      tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDERS / family)
      result[family] = {
          str(thinking).lower(): [
              digest(tokenizer.apply_chat_template(talk, add_generation_prompt=True, enable_thinking=thinking, return_dict=False))
              for talk in conversations()]
          for thinking in (False, True)}
  finally:
    chat_template_utils.datetime = before
  return result


if __name__ == '__main__':
  GOLDEN.write_text(json.dumps(recorded()).replace('], [', '],\n['), encoding='utf-8')
