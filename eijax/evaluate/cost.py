"""Tokens of each role, and one budget for all of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from eijax.chat.usage import UsageMeter


class RoleMeter(UsageMeter):
  """Counts for one role, and for a budget that the roles share.

  Args:
    budget: may forbid further requests; None for a role that costs nothing.
  """

  def __init__(self, budget: UsageMeter | None):
    super().__init__()
    self._budget = budget

  def add(self, messages: Sequence[Mapping[str, Any]], text: str, usage: Mapping[str, Any], retries: int) -> None:
    super().add(messages, text, usage, retries)
    if self._budget is not None:
      self._budget.add(messages, text, usage, retries)

  def check(self) -> None:
    if self._budget is not None:
      self._budget.check()
