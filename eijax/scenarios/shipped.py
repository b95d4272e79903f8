"""Where the scenarios that come with the project stand."""

import pathlib
import sys

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2] / 'scenario_data'
_INSTALLED = pathlib.Path(sys.prefix) / 'share' / 'eijax' / 'scenario_data'


def shipped_folder() -> pathlib.Path:
  """The folder `scenario_data` of the checkout, or that of an installation without one."""
  return _CHECKOUT if _CHECKOUT.is_dir() else _INSTALLED
