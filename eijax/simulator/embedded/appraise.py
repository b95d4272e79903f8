"""From credit to deltas: mood bands, round caps, waning patience, noise, clip.

Source of the rules: arXiv 2606.15532, section 2. Deltas are integers in -10..10.
"""

import dataclasses
import hashlib
import math

from eijax.simulator.embedded import credit as credit_lib
from eijax.simulator.embedded import stop as stop_lib
from eijax.simulator.embedded.reading import Reading, read
from eijax.simulator.embedded.sheet import Sheet, compile_sheet
from eijax.simulator.prompts import ParsedRequest

MAX_GAIN = 8.0
MAX_COST = 10.0
HOT_ANGER = 60
CURT_TRUST = 20
# Most that one round may earn on an axis, by round ("never accept quickly").
EARLY_CAPS = {1: 3.5, 2: 4.0, 3: 5.0, 4: 5.4}
SUPPORT_CAP = 5.4  # Until three good rounds have gone before.
_NOISE = 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
  """What one reply did to the user, and why. deltas are final integers; points and tier are free of noise."""

  anger_delta: int
  trust_delta: int
  anger_points: float
  trust_points: float
  tier: str
  rule: str
  credit: credit_lib.Credit
  credits: tuple[credit_lib.Credit, ...]
  reading: Reading
  sheet: Sheet
  stop: bool
  stop_reason: str


def judge(request: ParsedRequest, seed_text: str) -> Judgement:
  """Appraise the last line of a request. `seed_text` seeds the noise, nothing else."""
  sheet = compile_sheet(request.language, request.scene, request.persona, request.appraisal)
  readings = _readings(sheet, request)
  credits = credit_lib.fold(request.scene, readings)
  now = credits[-1]
  anger, trust = _points(request, credits)
  tier = credit_lib.tier_of(max(-anger, trust)) if now.net > 0 else 'none'
  anger_delta = _round(anger, f'{seed_text}|anger', MAX_GAIN, MAX_COST)
  trust_delta = -_round(-trust, f'{seed_text}|trust', MAX_GAIN, MAX_COST)
  next_anger = max(0, min(100, request.anger + anger_delta))
  next_trust = max(0, min(100, request.trust + trust_delta))
  stop, reason = stop_lib.decide(request, sheet, credits, readings, next_anger, next_trust)
  return Judgement(
    anger_delta=anger_delta,
    trust_delta=trust_delta,
    anger_points=anger,
    trust_points=trust,
    tier=tier,
    rule=now.rule,
    credit=now,
    credits=credits,
    reading=readings[-1],
    sheet=sheet,
    stop=stop,
    stop_reason=reason,
  )


def _readings(sheet: Sheet, request: ParsedRequest) -> list[Reading]:
  """Read every line of the other side, each against the user's line before it."""
  readings, before = [], ''
  for said in request.history:
    if said.speaker == 'you':
      before = said.text
    elif said.speaker == 'they':
      readings.append(read(sheet, said.text, before))
  readings.append(read(sheet, request.last_line, before))
  return readings


def _points(request: ParsedRequest, credits: tuple[credit_lib.Credit, ...]) -> tuple[float, float]:
  """Return signed points (anger, trust) before noise; negative anger is relief."""
  now, before = credits[-1], credits[:-1]
  second_half = request.round > request.max_rounds / 2
  cap = EARLY_CAPS.get(request.round, MAX_GAIN)
  good_before = sum(entry.good for entry in before)
  if request.scene == 'support' and (good_before < 3 or request.round <= 4):
    cap = min(cap, SUPPORT_CAP)
  gain_anger, gain_trust = min(now.gain_anger, cap), min(now.gain_trust, cap)
  cost_anger = sum(anger for _, anger, _ in now.costs)
  cost_trust = sum(trust for _, _, trust in now.costs)
  if request.anger > HOT_ANGER:
    gain_anger *= 0.85
    cost_anger *= 1.15
    cost_trust *= 1.15
  if request.trust < CURT_TRUST:
    gain_trust *= 0.85
  if second_half:
    cost_anger *= 1.15
  flat_before = 0
  for entry in reversed(before):
    if not entry.flat:
      break
    flat_before += 1
  if now.flat:
    if second_half:
      cost_anger += 0.4 + 0.15 * min(flat_before, 3)
      cost_trust += 0.3 if flat_before >= 2 else 0.0
    if request.trust < CURT_TRUST and flat_before >= 2:
      cost_trust += 0.6
  anger = min(cost_anger, MAX_COST) - gain_anger
  trust = gain_trust - min(cost_trust, MAX_COST)
  return anger, trust


def _round(points: float, seed_text: str, max_gain: float, max_cost: float) -> int:
  """Round with unbiased seeded noise below one point; exactly 0 stays 0 (the default)."""
  if points == 0.0:
    return 0
  digest = hashlib.blake2b(seed_text.encode('utf-8', 'surrogatepass'), digest_size=8).digest()
  first, second = (
    int.from_bytes(digest[:4], 'big') / 2**32,
    int.from_bytes(digest[4:], 'big') / 2**32,
  )
  value = math.floor(points + _NOISE * (first + second - 1.0) + 0.5)
  return int(max(-max_gain, min(max_cost, value)))
