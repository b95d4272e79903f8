"""Training and held-out conversations from one set."""

from collections.abc import Sequence
import hashlib
import random

from eijax.conversations.record import Conversation
from eijax.errors import DataError
from eijax.seeds import derive_seed


def split_held_out(
    conversations: Sequence[Conversation], fraction: float, seed: int,
) -> tuple[list[Conversation], list[Conversation]]:
  """(training, held-out): a share of the distinct conversations, drawn by seed, with all of their copies.

  The order stays. At least one is held out where fraction is above 0; a fraction of 0 holds nothing out.

  Raises:
    DataError: nothing would be left to train on.
  """
  # Sorted: which conversations are held out does not depend on the order of the file.
  digests = sorted({conversation.digest for conversation in conversations})
  num = max(1, round(fraction * len(digests))) if fraction else 0
  if num >= len(digests):
    raise DataError(f'held_out_fraction={fraction} of {len(digests)} distinct conversations leaves none to train on; '
                    'add conversations, or set it to 0')
  chosen = set(random.Random(derive_seed('held-out', seed)).sample(digests, num))
  return ([c for c in conversations if c.digest not in chosen], [c for c in conversations if c.digest in chosen])


def digest_of(conversations: Sequence[Conversation]) -> str:
  """Of all conversations in their order."""
  digest = hashlib.sha256()
  for conversation in conversations:
    digest.update(conversation.digest.encode())
  return digest.hexdigest()
