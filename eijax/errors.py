"""The errors that a user may meet, each with the exit status of its command.

Every message names the field, the value, the rule and the remedy. Commands print
it as one line on stderr, without a traceback; any other exception is a bug and
keeps its traceback.
"""


class EijaxError(Exception):
  """A run-time failure that the user can act on (exit status 1)."""

  exit_code = 1


class UsageError(EijaxError, ValueError):
  """A flag or setting that cannot be used as given (exit status 2)."""

  exit_code = 2


class DataError(EijaxError, ValueError):
  """A file whose content breaks a rule; names file, line, field, value, rule."""


class SimulatorError(EijaxError):
  """The user simulator cannot be reached or refuses to serve (e.g. 401)."""


class CheckpointError(EijaxError):
  """A checkpoint that is missing, damaged or belongs to another run."""


class PreemptedError(EijaxError):
  """The run was told to leave its machine and has saved: the same command goes on (exit status 75, EX_TEMPFAIL)."""

  exit_code = 75
