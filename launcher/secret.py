"""Find the secret by which the hosts of a job know each other. It never is an argument."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from launcher.errors import JobError

SECRET_VARIABLE = "LAUNCHER_CLUSTER_KEY"
HEAD_VARIABLE = "LAUNCHER_HEAD"  # address and key of the head, in slots that it has started
SHORTEST = 16  # characters; a shorter one can be guessed
_FIX = "put the same one on every host: openssl rand -hex 32"


def read_secret(path: Path | None, environment: Mapping[str, str]) -> str:
    """Return the secret of a file, or that of the environment.

    Raises:
        JobError: there is none, or it is too short to be one.
    """
    if path is None:
        source, secret = SECRET_VARIABLE, environment.get(SECRET_VARIABLE)
        if secret is None:
            what = f"the hosts know each other by a key; name its file, or set {SECRET_VARIABLE}"
            raise JobError.about("cluster_key_file", what, _FIX)
    else:
        try:
            source, secret = str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise JobError.about("cluster_key_file", f"{path}: {reason}", _FIX) from error
    if len(secret.strip()) < SHORTEST:
        what = f"the key in {source} has less than {SHORTEST} characters"
        raise JobError.about("cluster_key_file", what, _FIX)
    return secret.strip()
