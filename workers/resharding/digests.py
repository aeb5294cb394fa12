"""Compare files with the SHA-256 that lies beside them, in NAME.sha256 as sha256sum writes it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from workers.resharding.remote.address import Location, RemoteFile
from workers.resharding.remote.errors import DigestError, NoSuchFileError, RemoteError
from workers.resharding.remote.mirror import open_mirror
from workers.resharding.remote.store import read_text
from workers.resharding.saved import SlicedCheckpoint

SUFFIX = ".sha256"
_DIGEST = re.compile(r"\s*\\?([0-9a-f]{64})\b", re.IGNORECASE)


def verify_sha256(checkpoint: SlicedCheckpoint) -> int:
    """Read every file to its end, remote ones into the cache; return how many there are.

    Raises:
        DigestError: the content of a file is not what the file beside it says.
        RemoteError: there is no such file beside it.
    """
    paths = {index.path for index in checkpoint.files.values()}
    for path in sorted(paths, key=str):
        expected = _expected(path)
        if isinstance(path, RemoteFile):
            with open_mirror(path) as mirror:
                mirror.check_whole(expected)
        else:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != expected:
                raise DigestError(str(path), expected, found)
    return len(paths)


def _expected(path: Location) -> str:
    beside = f"{path}{SUFFIX}"
    try:
        if isinstance(path, RemoteFile):
            text = read_text(path.beside(SUFFIX))
        else:
            text = Path(beside).read_text(encoding="ascii", errors="replace")
    except (NoSuchFileError, FileNotFoundError):
        problem = "no such file to compare with; make it with sha256sum, or leave sha256 out"
        raise RemoteError(beside, problem) from None
    match = _DIGEST.match(text)
    if match is None:
        raise RemoteError(beside, "it does not begin with a SHA-256")
    return match[1].lower()
