"""Python's garbage collector in a process that makes many small objects and few cycles."""

import gc

# Instead of 700. Answers and talks die by their reference counts; cycles are rare, and are still found.
_YOUNG_OBJECTS = 20_000


def relieve() -> None:
  """Look at what is loaded by now no more, and at the rest less often: a tenth of a simulator's CPU time.

  For commands, once they are ready to work; a library leaves such settings to its caller.
  """
  gc.collect()
  gc.freeze()
  gc.set_threshold(_YOUNG_OBJECTS, 20, 20)
