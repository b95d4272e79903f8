"""Importing this makes `eibench` known to tensorflow-datasets; needs the extra `data`."""

from eijax.datasets.eibench.builder import Eibench, EibenchConfig

__all__ = ['Eibench', 'EibenchConfig']
