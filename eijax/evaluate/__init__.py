"""The command `python -m eijax.evaluate`: a model, hosted or local, over scenarios, scored."""
