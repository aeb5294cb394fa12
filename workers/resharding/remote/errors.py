"""Name what can go wrong with remote files. None of it shows a password, token or signature."""

from __future__ import annotations

from workers.resharding.errors import ReshardError


class RemoteError(ReshardError):
    """A remote file cannot be had."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url, self.reason = url, reason

    def __str__(self) -> str:
        return f"{self.url}: {self.reason}"


class NoSuchFileError(RemoteError):
    """A URL leads to nothing."""


class PassingError(RemoteError):
    """A remote file cannot be had at the moment; it is worth another attempt."""


class RangesIgnoredError(RemoteError):
    """A server was asked for some bytes of a file, and answers with all of them."""


class MissingPackageError(ReshardError):
    """Remote files need packages that are not installed."""

    def __init__(self, scheme: str, reason: str) -> None:
        super().__init__(scheme, reason)
        self.scheme, self.reason = scheme, reason

    def __str__(self) -> str:
        return (
            f"{self.scheme}:// needs packages that are not installed ({self.reason}):"
            " pip install 'ascend-slice-launcher[remote]'"
        )


class DigestError(ReshardError):
    """The content of a remote file is not what its SHA-256 says."""

    def __init__(self, url: str, expected: str, found: str) -> None:
        super().__init__(url, expected, found)
        self.url, self.expected, self.found = url, expected, found

    def __str__(self) -> str:
        return (
            f"{self.url}: the content has the SHA-256 {self.found}, {self.expected} is wanted; it"
            " was damaged on its way, or is another file"
        )


class CacheError(ReshardError):
    """The cache of remote files cannot be used."""

    def __init__(self, folder: str, reason: str) -> None:
        super().__init__(folder, reason)
        self.folder, self.reason = folder, reason

    def __str__(self) -> str:
        return f"cache {self.folder}: {self.reason}"
