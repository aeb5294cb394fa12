"""Name what can be wrong with one file, or with the folder where files should go."""

from __future__ import annotations

from workers.resharding.errors.base import ReshardError


class UnreadableFileError(ReshardError):
    """The system does not let a file be read."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: cannot be read: {self.reason}"


class CheckpointFormatError(ReshardError):
    """A checkpoint file is torn, or is none."""

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(path, offset, reason)
        self.path, self.offset, self.reason = path, offset, reason

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.reason} (byte {self.offset}); if the file is a checkpoint, it was"
            " not written or copied to its end: copy it again, or take an earlier step"
        )


class EncryptedCheckpointError(ReshardError):
    """A checkpoint file is encrypted, and there is no key."""

    def __init__(self, path: str, cipher: str) -> None:
        super().__init__(path, cipher)
        self.path, self.cipher = path, cipher

    def __str__(self) -> str:
        return (
            f"{self.path}: the file is encrypted ({self.cipher}); give its key with --key-file"
            " FILE, or in hexadecimal in the environment variable LAUNCHER_CHECKPOINT_KEY"
        )


class DecryptionError(ReshardError):
    """A key cannot be used, or an encrypted file cannot be opened with it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; give the key that was enc_key when the file was saved"


class ChecksumError(ReshardError):
    """The content of a checkpoint file is not what its checksum says."""

    def __init__(self, path: str, expected: int, found: int) -> None:
        super().__init__(path, expected, found)
        self.path, self.expected, self.found = path, expected, found

    def __str__(self) -> str:
        return (
            f"{self.path}: the content has the CRC-32 {self.found:08x}, the file says"
            f" {self.expected:08x}; it was damaged after it was saved: copy it again"
        )


class FileChangedError(ReshardError):
    """A checkpoint file was written, or removed, after its index was read."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path} has changed since its index was read; wait until its writer is done"


class StrategyFileError(ReshardError):
    """A strategy file, or a folder of them, cannot be used."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"strategy {self.path}: {self.reason}"


class TargetFolderError(ReshardError):
    """The folder that a conversion should make cannot be made."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class TargetWriteError(ReshardError):
    """The files of a conversion cannot be written; what was given is all right."""

    exit_code = 1

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}; the same command, given again, goes on from there"
