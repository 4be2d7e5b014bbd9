"""Everything that charlm can expect to go wrong, as one tree.

    CharlmError              exit code 1, one line on stderr
    +-- ConfigError          a setting out of its range; exit code 2, as for any wrong option
    +-- CorpusError          a text that cannot be read, or cannot be learnt from
    +-- VectorsError         a file of word vectors that cannot be read, or does not fit
    +-- CheckpointError      a model file that is missing, damaged or not one
    +-- RunError             a run that exists, or is not there to be resumed
    +-- TrainingError        learning that cannot go on
    |   +-- PeerLostError    one of several processes is gone, and said why itself
    +-- NoveltyError         text that has to be new, and cannot be told or made

A message says what is wrong, where, and what to do about it.
"""

__all__ = [
    "CharlmError",
    "CheckpointError",
    "ConfigError",
    "CorpusError",
    "NoveltyError",
    "PeerLostError",
    "RunError",
    "TrainingError",
    "VectorsError",
]


class CharlmError(Exception):
    """The root: any failure that its user can do something about."""

    exit_code = 1


class ConfigError(CharlmError):
    """A setting is outside its range, or two settings contradict each other."""

    exit_code = 2


class CorpusError(CharlmError):
    """A text cannot be found, read, decoded or learnt from."""


class VectorsError(CharlmError):
    """A file of word vectors cannot be read, or knows nothing of a vocabulary."""


class CheckpointError(CharlmError):
    """A model file is missing, damaged, or no model file of charlm's."""


class RunError(CharlmError):
    """A run's folder is in the way, or is not there."""


class TrainingError(CharlmError):
    """Training cannot go on, for instance because the loss is no longer a number."""


class PeerLostError(TrainingError):
    """Another of the processes that learn together has ended; what it says matters more than this."""


class NoveltyError(CharlmError):
    """There is no training text to compare with, or nothing new to say."""
