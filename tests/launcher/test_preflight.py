"""Preflight: what is found before a rank starts."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

import numpy as np
import pytest

from launcher import preflight
from launcher.errors import JobError
from launcher.job import Job
from workers.resharding.checkpoint_file import write_checkpoint
from workers.resharding.layout import Layout
from workers.resharding.strategy_file import write_strategy_file

MakeJob = Callable[..., Job]


@pytest.fixture(autouse=True)
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the working directory a project with a package and a module that must not run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "__init__.py").write_text("raise SystemExit('imported by the parent')")
    (tmp_path / "pkg" / "model.py").write_text("raise SystemExit('imported by the parent')")
    (tmp_path / "net.py").write_text("raise SystemExit('imported by the parent')")
    return tmp_path


@pytest.mark.parametrize("name", ["net:make", "pkg:make", "pkg.model:make", "net.py:make"])
def test_modules_are_found_but_not_imported(make_job: MakeJob, name: str, tmp_path: Path) -> None:
    assert preflight.check(make_job(network=name), tmp_path / "out") is None


@pytest.mark.parametrize("name", ["nets:make", "pkg.nothing:make", "net.more:make", "gone.py:make"])
def test_a_module_that_is_nowhere_is_an_error(
    make_job: MakeJob, name: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match="^network: there is no (module|file)"):
        preflight.check(make_job(network=name), tmp_path / "out")


def test_a_module_that_only_a_finder_knows_is_found(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finder:
        """What an editable install puts into sys.meta_path."""

        @staticmethod
        def find_spec(name: str, path: object, target: object = None) -> ModuleSpec | None:
            root = tmp_path / "elsewhere" / "src"
            places = {"editable": root / "__init__.py"}
            return spec_from_file_location(name, places[name]) if name in places else None

    source = tmp_path / "elsewhere" / "src"
    source.mkdir(parents=True)
    (source / "__init__.py").write_text("raise SystemExit('imported by the parent')")
    (source / "model.py").touch()
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    preflight.check(make_job(network="editable.model:make"), tmp_path / "out")
    with pytest.raises(JobError, match="there is no module editable.nothing"):
        preflight.check(make_job(network="editable.nothing:make"), tmp_path / "out")


def test_a_missing_module_of_the_data_is_named_as_such(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="^predict_data: there is no module"):
        preflight.check(make_job(predict_data="nodata:make"), tmp_path / "out")


def test_a_checkpoint_that_is_not_there_is_an_error(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="^checkpoint: .*missing.ckpt") as caught:
        preflight.check(make_job(checkpoint=str(tmp_path / "missing.ckpt")), tmp_path / "out")
    assert caught.value.exit_code == 2


def test_labels_that_are_not_there_are_an_error(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="^labels: "):
        preflight.check(make_job(labels="none.npy"), tmp_path / "out")


def test_an_output_folder_that_is_a_file_is_an_error(make_job: MakeJob, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="^output: .*net.py is a file"):
        preflight.check(make_job(), tmp_path / "net.py" / "out")


def test_nothing_is_written(make_job: MakeJob, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    preflight.check(make_job(), tmp_path / "a" / "b")
    assert sorted(tmp_path.rglob("*")) == before


def slices(folder: Path, other: float) -> dict[str, str]:
    """Write the slices of two ranks that should hold the same; return the keys of a job."""
    for rank, value in enumerate((1.0, other)):
        tensors = {"w": np.full(8, value, np.float32)}
        write_checkpoint(folder / f"rank_{rank}" / "net-1_1.ckpt", tensors)
    write_strategy_file(folder / "strategy.ckpt", {"w": Layout((2,), ((),))})
    return {"checkpoint": str(folder), "strategy": str(folder / "strategy.ckpt")}


def test_replicas_are_compared_when_the_job_asks(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(**slices(tmp_path, 1.0), verify=("crc", "replicas=full"))
    checked = preflight.verify_content(job, preflight.check_checkpoint(job))
    assert checked == {"crc": 0, "replicas=full": 1}


def test_replicas_that_differ_are_an_error_when_the_job_asks(
    make_job: MakeJob, tmp_path: Path
) -> None:
    job = make_job(**slices(tmp_path, 2.0))
    checkpoint = preflight.check_checkpoint(job)
    assert preflight.verify_content(job, checkpoint) == {}
    (warning,) = preflight.doubts(checkpoint)
    assert warning.startswith("w: ") and "should hold the same" in warning
    asking = job.model_copy(update={"verify": ("replicas",)})
    with pytest.raises(JobError, match="^checkpoint: w: .*should hold the same"):
        preflight.verify_content(asking, checkpoint)


def test_a_key_that_cannot_be_read_is_an_error(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(**slices(tmp_path, 1.0), key_file="no.key")
    with pytest.raises(JobError, match="no.key: the key cannot be read: No such file"):
        preflight.check_checkpoint(job)
