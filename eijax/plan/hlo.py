"""Communication of a compiled program, from its text.

A loop's body counts as often as it runs: as its condition says, else as the caller says of loops
by name. What the text does not tell is reported, not guessed.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math
import re

COLLECTIVES = ('all-gather', 'reduce-scatter', 'all-reduce', 'all-to-all', 'collective-permute')
_BYTES = {'pred': 1, 's8': 1, 'u8': 1, 's16': 2, 'u16': 2, 'bf16': 2, 'f16': 2, 's32': 4, 'u32': 4, 'f32': 4, 's64': 8,
          'u64': 8, 'f64': 8}
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$')
_COLLECTIVE = re.compile(rf' = (.*?) ({"|".join(COLLECTIVES)})(-start)?\(')
_SHAPE = re.compile(r'(\w+)\[([\d,]*)\]')
_CALLED = re.compile(r'(?:calls|to_apply|true_computation|false_computation|branch_computations)=\{?((?:%?[\w.\-]+(?:, )?)+)')
_BOUND = re.compile(r'[su]32\[\][^=]*constant\((\d+)\)')
_KNOWN_TRIPS = re.compile(r'known_trip_count[^\d]*(\d+)')


@dataclasses.dataclass(frozen=True)
class Communication:
  """received: bytes that one chip takes in, by kind of collective. unknown_loops: bodies with collectives that were counted
  once for want of a number."""

  received: dict[str, float]
  unknown_loops: tuple[str, ...]

  @property
  def total(self) -> float:
    return sum(self.received.values())


def _shape_bytes(text: str) -> list[int]:
  """Bytes of each array in a type, tuples taken apart."""
  sizes = []
  for dtype, dims in _SHAPE.findall(text):
    if dtype in _BYTES:
      size = _BYTES[dtype]
      for dim in filter(None, dims.split(',')):
        size *= int(dim)
      sizes.append(size)
  return sizes


def _group_size(line: str) -> int:
  explicit = re.search(r'replica_groups=\{\{([\d,]*)\}', line)
  if explicit:
    return len(explicit[1].split(','))
  iota = re.search(r'replica_groups=\[(\d+),(\d+)\]', line)
  if iota:
    return int(iota[2])
  named = re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", line)
  if not named:
    return 1
  sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
  return math.prod(sizes[axis] for axis in re.findall(r"'(\w+)'", named[2]))


def _received(kind: str, started: bool, result: str, line: str) -> float:
  """Bytes that a chip takes in, by the ring algorithm of each collective."""
  sizes, group = _shape_bytes(result), _group_size(line)
  if not sizes or (group < 2 and kind != 'collective-permute'):
    return 0.0
  share = (group - 1) / group
  if kind == 'collective-permute':
    return float(sizes[-1] if not started else sizes[0])
  if kind == 'all-gather':
    return (max(sizes) if started else sum(sizes)) * share
  if kind == 'reduce-scatter':
    return (max(sizes) if started else sum(sizes) * group) * share
  if kind == 'all-to-all':
    return (sum(sizes) / 2 if started else sum(sizes)) * share
  return 2 * (sum(sizes) / 2 if started and len(sizes) > 1 else sum(sizes)) * share


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
  """(lines of each computation, name of the entry)."""
  found, current, entry = {}, None, ''
  for line in text.splitlines():
    start = _COMPUTATION.match(line)
    if start:
      current = found.setdefault(start[2], [])
      entry = start[2] if start[1] else entry
    elif current is not None:
      current.append(line)
  return found, entry


def communication(text: str, trips: Mapping[str, int]) -> Communication:
  """Bytes that each chip receives in one run of the program.

  Args:
    text: as `Compiled.as_text()` gives it.
    trips: how often a loop runs whose operations carry this name (jax.named_scope) and whose text holds no bound.
  """
  computations, entry = _computations(text)
  unknown = []

  def loop_trips(line: str) -> int | None:
    known = _KNOWN_TRIPS.search(line)
    if known:
      return int(known[1])
    name = re.search(r'op_name="([^"]*)"', line)
    for scope, number in trips.items():
      # The innermost scope is the loop's own: `.../scope/while`.
      if name and re.search(rf'{re.escape(scope)}\)*/while$', name[1]):
        return number
    condition = re.search(r'condition=%?([\w.\-]+)', line)[1]
    bounds = [int(number) for each in computations.get(condition, ()) for number in _BOUND.findall(each)]
    return max(bounds) if bounds else None

  @functools.cache
  def count(name: str) -> tuple[tuple[str, float], ...]:
    received = dict.fromkeys(COLLECTIVES, 0.0)

    def add(other: str, times: int = 1) -> None:
      for kind, size in count(other):
        received[kind] += times * size

    for line in computations.get(name, ()):
      collective = _COLLECTIVE.search(line)
      if collective:
        received[collective[2]] += _received(collective[2], bool(collective[3]), collective[1], line)
      if ' while(' in line:
        body = re.search(r'body=%?([\w.\-]+)', line)[1]
        number = loop_trips(line)
        if number is None and any(size for _, size in count(body)):
          unknown.append(body)
        add(body, number or 1)
      elif not collective:
        for called in _CALLED.findall(line):
          for other in called.split(', '):
            add(other.strip('%'))
    return tuple(received.items())

  return Communication(dict(count(entry)), tuple(unknown))
