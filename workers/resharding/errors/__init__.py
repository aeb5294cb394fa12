"""Name what can be wrong with a checkpoint, its strategy, or what is wanted of them.

Every error says where, what and what to try, keeps its parts as attributes, and travels
between processes. Most are found before any tensor is copied.
"""

from __future__ import annotations

from workers.resharding.errors.base import ReshardError
from workers.resharding.errors.files import (
    CheckpointFormatError,
    ChecksumError,
    DecryptionError,
    EncryptedCheckpointError,
    FileChangedError,
    StrategyFileError,
    TargetFolderError,
    TargetWriteError,
    UnreadableFileError,
)
from workers.resharding.errors.plans import (
    CoverageError,
    DtypeMismatchError,
    LayoutError,
    MissingParametersError,
    NoLayoutError,
    NoMemoryError,
    OverlapError,
    ShapeMismatchError,
)
from workers.resharding.errors.sets import (
    CheckpointChangedError,
    CounterMismatchError,
    IncompleteFileError,
    MisplacedParameterError,
    MissingPartError,
    MissingRankError,
    NoCheckpointError,
    RankCountError,
    RankOrderError,
    ReplicaMismatchError,
    SeveralFilesError,
    SharedFileError,
    SliceMismatchError,
    StepMismatchError,
    StrategyNeededError,
)

__all__ = [
    "CheckpointChangedError",
    "CheckpointFormatError",
    "ChecksumError",
    "CounterMismatchError",
    "CoverageError",
    "DecryptionError",
    "DtypeMismatchError",
    "EncryptedCheckpointError",
    "FileChangedError",
    "IncompleteFileError",
    "LayoutError",
    "MisplacedParameterError",
    "MissingParametersError",
    "MissingPartError",
    "MissingRankError",
    "NoCheckpointError",
    "NoLayoutError",
    "NoMemoryError",
    "OverlapError",
    "RankCountError",
    "RankOrderError",
    "ReplicaMismatchError",
    "ReshardError",
    "SeveralFilesError",
    "ShapeMismatchError",
    "SharedFileError",
    "SliceMismatchError",
    "StepMismatchError",
    "StrategyFileError",
    "StrategyNeededError",
    "TargetFolderError",
    "TargetWriteError",
    "UnreadableFileError",
]
