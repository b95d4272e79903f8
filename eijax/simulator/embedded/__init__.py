"""A deterministic, rule-based user: see engine.py."""

from eijax.simulator.embedded.engine import EmbeddedSimulator

__all__ = ['EmbeddedSimulator']
