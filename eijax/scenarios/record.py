"""Typed scenario records: the authors' format, plus our optional `appraisal`.

Format: EIBench, arXiv 2606.15532, one JSON object a line in
`{train,test}/{charm,defense,repair,support}_final.jsonl`.
"""

import dataclasses
import functools
import re
from collections.abc import Mapping
from typing import Any

SCENES = ('support', 'defense', 'repair', 'charm')
SPLITS = ('train', 'test')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Anchors:
  """Start, success and failure points of the two axes, integers in 0..100.

  Invariants: target_anger < initial_anger < worst_anger and
  worst_trust < initial_trust < target_trust.
  """

  initial_anger: int
  initial_trust: int
  target_anger: int
  target_trust: int
  worst_anger: int
  worst_trust: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cue:
  """One thing that a reply can mention or do, with alternative wordings.

  text: a plain phrase that a reader (or a hosted LLM) understands.
  cues: alternative wordings; one matches when all of its words, stemmed, stand
    in one sentence of the reply, in any order ("sorry shouted" matches
    "I'm sorry that you shouted").
  """

  text: str
  cues: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Appraisal:
  """What the simulated user holds a reply against (our extension).

  facts: what happened, in particular; `needs`: what the user wants and does not
  say; `soothes` / `inflames`: acts that soften or harden, plausible ones.
  boundary (Defense only): what must not be given away; `holds`, `yields`,
  `way_out` are wordings of keeping it, giving it away, and the respectful exit.
  act (Repair only): what was done; `effect` is what it cost the user, `amends`
  what would count as repair.
  """

  facts: tuple[Cue, ...]
  needs: tuple[Cue, ...]
  soothes: tuple[Cue, ...]
  inflames: tuple[Cue, ...]
  boundary: Cue | None = None
  holds: Cue | None = None
  yields: Cue | None = None
  way_out: Cue | None = None
  act: Cue | None = None
  effect: Cue | None = None
  amends: Cue | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scenario:
  """One situation. Texts are verbatim; `extra` keeps every unknown key."""

  id: str
  title: str
  scene: str  # `scene_tag` in the file, one of SCENES.
  data_source: str
  aggressor_prompt: str  # Persona sheet of the simulated user.
  opening_line: str | None  # None in Charm, where the policy opens.
  defender_prompt: str  # What the policy is told.
  goal: str
  success_criteria: tuple[str, ...]
  must_avoid: tuple[str, ...]
  anchors: Anchors
  appraisal: Appraisal | None = None
  extra: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @functools.cached_property
  def language(self) -> str:
    """'zh' if more CJK characters than Latin words stand in the persona, else 'en'."""
    cjk = len(re.findall(r'[\u4e00-\u9fff]', self.aggressor_prompt))
    return 'zh' if cjk > len(re.findall(r'[A-Za-z]+', self.aggressor_prompt)) else 'en'
