"""eijax: measure and train emotional intelligence in language models, on JAX."""

__version__ = '0.1.0'
