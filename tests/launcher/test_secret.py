"""The key by which hosts know each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.curve import Keys
from launcher.errors import JobError
from launcher.secret import read_secret

LONG = "0123456789abcdef"


def test_it_comes_from_a_file_or_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(f"{LONG} of the file\n")
    environment = {"LAUNCHER_CLUSTER_KEY": f"{LONG} of the environment"}
    assert read_secret(file, environment) == f"{LONG} of the file"
    assert read_secret(None, environment) == f"{LONG} of the environment"


def test_without_one_the_fix_is_a_command(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="set LAUNCHER_CLUSTER_KEY; .*openssl rand -hex 32"):
        read_secret(None, {})
    with pytest.raises(JobError, match="absent: No such file"):
        read_secret(tmp_path / "absent", {})


def test_one_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(JobError, match="less than 16 characters"):
        read_secret(None, {"LAUNCHER_CLUSTER_KEY": "secret"})


def test_who_knows_the_secret_has_the_same_keys_and_nobody_else() -> None:
    assert Keys.shared(LONG) == Keys.shared(LONG)
    assert Keys.shared(LONG) != Keys.shared(LONG + " ")
    keys = Keys.shared(LONG)
    assert keys.server_secret != keys.client_secret
