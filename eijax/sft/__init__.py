"""Supervised fine-tuning: python -m eijax.sft."""
