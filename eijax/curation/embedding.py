"""A second similarity: cosine of embeddings from an OpenAI-compatible endpoint."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm

from eijax.chat import client, errors

KEY_VARIABLE = 'EIJAX_EMBEDDING_API_KEY'
_BATCH_SIZE = 32
_CONCURRENCY = 4


class EmbeddingClient(client.ChatClient):
  """Asks `POST /v1/embeddings`, with the connections, keys and retries of the chat client."""

  def __init__(self, url: str, model: str, api_key: str = '', max_retries: int = 8):
    super().__init__(
      [url], model, [api_key] if api_key else (), max_retries=max_retries, concurrency=_CONCURRENCY,
      key_variable=KEY_VARIABLE,
    )  # fmt: skip

  def embed(self, texts: Sequence[str]) -> np.ndarray:
    """Embed texts, in batches.

    Returns:
      float64[N, D], rows of length 1.
    Raises:
      ChatError: after the retries where they can help.
    """
    batches = [texts[start : start + _BATCH_SIZE] for start in range(0, len(texts), _BATCH_SIZE)]
    futures = [self.pool.submit(self._embed_batch, batch) for batch in batches]
    found = []
    with tqdm.tqdm(total=len(texts), desc='embedding', unit='text') as progress:
      for future, batch in zip(futures, batches):
        found.append(future.result())
        progress.update(len(batch))
    widths = {rows.shape[1] for rows in found}
    if len(widths) > 1:
      raise errors.BadAnswer(f'{self.display}: embeddings have {sorted(widths)} numbers; they must all have as many')
    vectors = np.concatenate(found) if found else np.zeros((0, 1))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

  def _embed_batch(self, batch: Sequence[str]) -> np.ndarray:
    asked = {'model': self.model, 'input': list(batch), 'encoding_format': 'float'}
    return self.post('/embeddings', asked, lambda answer: _read(answer, len(batch)), expected=f'{len(batch)} embeddings')


def _read(answer: Any, size: int) -> np.ndarray:
  """float64[size, D] of an answer, in the order of `index`."""
  rows = sorted(answer['data'], key=lambda row: row['index'])
  if [row['index'] for row in rows] != list(range(size)):
    raise ValueError(f'{len(rows)} rows')
  vectors = np.array([row['embedding'] for row in rows], dtype=np.float64)
  if vectors.ndim != 2 or not np.isfinite(vectors).all() or not vectors.any(axis=1).all():
    raise ValueError(f'numbers of shape {vectors.shape}, not finite or all 0')
  return vectors
