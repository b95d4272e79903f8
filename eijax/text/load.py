"""A saved tokenizer of either kind."""

import os
import pathlib

from eijax.text import ports
from eijax.text.hf_files import is_hf_folder
from eijax.text.hf_tokenizer import load_hf_tokenizer
from eijax.text.tokenizer import FILE_NAME, Tokenizer


def load_tokenizer(folder: str | os.PathLike) -> ports.Tokenizer:
  """The tokenizer that a folder holds: a Hugging Face model's, or one of ours.

  Raises:
    DataError: the folder has none that can be used.
  """
  return load_hf_tokenizer(folder) if is_hf_folder(folder) else Tokenizer.from_file(pathlib.Path(folder) / FILE_NAME)
