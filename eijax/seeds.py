"""Seeds that depend on names, not on the order of events."""

import hashlib


def derive_seed(*parts: object) -> int:
  """Hash the parts to an integer in 0..2**31 - 1, the range that every endpoint takes.

  The same parts give the same seed on every machine and Python version.
  """
  digest = hashlib.sha256('\x1f'.join(map(str, parts)).encode('utf-8', 'replace')).digest()
  return int.from_bytes(digest[:4], 'big') >> 1
