"""What a run will ask and cost, without asking anything."""

import dataclasses
import itertools
from collections.abc import Mapping

from eijax import seeds
from eijax.chat.usage import messages_bound
from eijax.generation import prompts, sheets
from eijax.generation.asking import AskingConfig
from eijax.generation.pools import Combination, combinations
from eijax.scenarios.cards import SINGLES

# Tokens of a sound answer, without thoughts: what our own examples and a long appraisal take.
TYPICAL_ANSWER = {'expand': 1400, 'goal': 350, 'worst': 120, 'reclean': 1200, 'appraisal': 1800}
# Sheets of a model are longer than our examples.
_LONGER = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """Calls and tokens. typical: every answer is sound; most: every attempt is used, at full length."""

  num_items: int
  typical_calls: int
  most_calls: int
  typical_tokens_in: int
  most_tokens_in: int
  typical_tokens_out: int
  most_tokens_out: int

  def lines(self) -> list[str]:
    return [
      f'items still to write: {self.num_items}',
      f'calls: {self.typical_calls:,} if every answer is sound, at most {self.most_calls:,} (rejected items, '
      'which are replaced, come on top)',
      f'tokens in: about {self.typical_tokens_in:,}, at most {self.most_tokens_in:,}',
      f'tokens out: about {self.typical_tokens_out:,} without thoughts, at most {self.most_tokens_out:,} '
      '(every answer as long as --max_tokens)',
    ]


def first_combinations(scene: str, seed: int, num: int) -> list[Combination]:
  return list(itertools.islice(combinations(scene, seed), num))


def expansion_prompt(combination: Combination, examples: prompts.Examples, language: str, seed: int):
  shown = examples.choose(combination.scene, seeds.derive_seed('examples', seed, combination.key))
  return prompts.render(
    'expand', language, scene=combination.scene, seeds=combination.texts(language), examples=shown
  )


def _later_prompts(scene: str, language: str) -> dict[str, int]:
  """Bounds of the prompts of later stages, which quote what earlier ones wrote; an example stands in."""
  text = prompts.Examples((), language).choose(scene, 0)[0]
  both = {'user_sheet': text, 'partner_sheet': ''}
  values = {
    'goal': {**both, 'opening_line': text[:120]},
    'worst': {**both, 'goal': text[:120], 'initial_anger': 50, 'initial_trust': 50},
    'reclean': {'sheets': text, 'faults': ['a section is missing or empty'] * len(sheets.SECTIONS['user'])},
    'appraisal': {
      **both, 'criteria': [text[:80]] * 4, 'avoid': [text[:80]] * 4,
      'keys': ['facts', 'needs', 'soothes', 'inflames', *SINGLES[scene]],
    },
  }  # fmt: skip
  return {
    stage: int(_LONGER * messages_bound(prompts.render(stage, language, scene=scene, **given)))
    for stage, given in values.items()
  }


def estimate(
  missing: Mapping[str, int], examples: prompts.Examples, config: AskingConfig, *,
  language: str, seed: int, with_appraisal: bool,
) -> Estimate:  # fmt: skip
  """Bound the calls and tokens of a run.

  Args:
    missing: items that each scene still lacks.
  """
  sums = dict.fromkeys(('calls', 'most_calls', 'in', 'most_in', 'out', 'most_out'), 0)
  for scene, num in missing.items():
    if not num:
      continue
    sample = first_combinations(scene, seed, 5)
    bounds = _later_prompts(scene, language)
    bounds['expand'] = max(
      messages_bound(expansion_prompt(one, examples, language, seed)) for one in sample
    )
    # The correction after an unusable answer, 800 characters at most.
    for stage, bound in bounds.items():
      if stage == 'appraisal' and not with_appraisal:
        continue
      sums['most_calls'] += num * config.max_attempts
      sums['most_in'] += num * config.max_attempts * (bound + 400)
      sums['most_out'] += num * config.max_attempts * config.max_tokens
      if stage != 'reclean':
        sums['calls'] += num
        sums['in'] += num * bound
        sums['out'] += num * TYPICAL_ANSWER[stage]
  return Estimate(
    num_items=sum(missing.values()),
    typical_calls=sums['calls'], most_calls=sums['most_calls'],
    typical_tokens_in=sums['in'], most_tokens_in=sums['most_in'],
    typical_tokens_out=sums['out'], most_tokens_out=sums['most_out'],
  )  # fmt: skip
