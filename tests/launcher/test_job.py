"""Jobs: a file, flags on top of it, and what is said about what is wrong."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.errors import JobError
from launcher.job import Job
from launcher.job_file import load_job, parse_settings
from workers.resharding.rank_files import find_rank_files, whole_files

GOOD = "network: net.py:make\npredict_data: pkg.data:make\nranks: 8\n"


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    path = tmp_path / "jobs" / "job.yaml"
    path.parent.mkdir()
    path.write_text(GOOD)
    return path


def refuse(path: Path | None, **flags: Any) -> str:
    with pytest.raises(JobError) as caught:
        load_job(path, flags)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_flags_win_over_the_file(job_file: Path) -> None:
    job = load_job(job_file, {"ranks": 2, "device": "cpu"})
    assert (job.ranks, job.device, job.predict_data) == (2, "cpu", "pkg.data:make")


def test_paths_in_the_file_are_relative_to_the_file(job_file: Path) -> None:
    job_file.write_text(
        GOOD + "checkpoint: slices/rank_{rank}\nstrategy: s.ckpt\noutput: ../out\n"
        "rank_table: hccl.json\nlabels: y.npz:labels\n"
    )
    job, folder = load_job(job_file, {}), job_file.parent
    assert job.network == f"{folder}/net.py:make"
    assert job.checkpoint == f"{folder}/slices/rank_{{rank}}"
    assert (job.strategy, job.rank_table) == (str(folder / "s.ckpt"), folder / "hccl.json")
    assert job.output == folder / "../out"
    assert job.labels == f"{folder}/y.npz:labels"


def test_paths_in_flags_are_relative_to_the_working_directory(
    job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    job = load_job(job_file, {"output": "out", "network": "other.py:make"})
    assert (job.output, job.network) == (tmp_path / "out", f"{tmp_path}/other.py:make")


@pytest.fixture(params=["exp[1]", "exp*", "exp?", "of {rank}", "rank_3_{rank}", "ck[{rank}]"])
def oddly_named(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a folder of slices with a name like a pattern, beside one that the pattern finds."""
    for name in (request.param, "exp1", "of 0", "rank_3_0", "ck0"):
        for rank in (0, 1):
            slices = tmp_path / name / "slices" / f"rank_{rank}"
            slices.mkdir(parents=True)
            (slices / "net-1_1.ckpt").touch()
        (tmp_path / name / "whole.ckpt").touch()
    return tmp_path / request.param


@pytest.mark.parametrize("given", ["slices/rank_{rank}/net-*.ckpt", "slices"])
def test_the_name_of_the_folder_that_a_job_is_in_is_no_pattern(
    oddly_named: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = oddly_named / "job.yaml"
    path.write_text(GOOD + f"checkpoint: {given}\n")
    monkeypatch.chdir(oddly_named)
    flags = {"network": "net:make", "predict_data": "net:data", "checkpoint": given}
    for job in (load_job(path, {}), load_job(None, flags)):
        assert find_rank_files(str(job.checkpoint), 2) == {
            rank: oddly_named / "slices" / f"rank_{rank}" / "net-1_1.ckpt" for rank in (0, 1)
        }


def test_a_whole_checkpoint_may_lie_in_a_folder_that_looks_like_a_pattern(
    oddly_named: Path,
) -> None:
    path = oddly_named / "job.yaml"
    path.write_text(GOOD + "checkpoint: whole.ckpt\nlabels: y.npz:test\n")
    job = load_job(path, {})
    assert whole_files(str(job.checkpoint)) == [oddly_named / "whole.ckpt"]
    assert job.labels == f"{oddly_named}/y.npz:test"


def test_a_tilde_is_the_home_directory_in_files_and_flags(
    job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    paths = {"checkpoint": "~/ck/rank_{rank}", "output": "~/out", "network": "~/net.py:make"}
    in_file = {"predict_data": "net:data"} | paths
    job_file.write_text("".join(f"{key}: {path}\n" for key, path in in_file.items()))
    expected = ("/home/me/ck/rank_{rank}", Path("/home/me/out"), "/home/me/net.py:make")
    for job in (load_job(job_file, {}), load_job(None, {"predict_data": "net:data"} | paths)):
        assert (job.checkpoint, job.output, job.network) == expected


def test_modules_are_looked_for_beside_the_file_and_in_the_working_directory(
    job_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_job(job_file, {}).search_path == (job_file.parent, tmp_path)

    job_file.write_text(GOOD + "search_path: [src]\n")
    assert load_job(job_file, {}).search_path[0] == job_file.parent / "src"


def test_a_job_needs_no_file() -> None:
    job = load_job(None, {"network": "net:make", "predict_data": "net:data"})
    assert job == Job(network="net:make", predict_data="net:data")
    assert (job.device, job.engine, job.ranks) == ("auto", "auto", None)


def test_an_unknown_key_gets_a_suggestion(job_file: Path) -> None:
    job_file.write_text(GOOD + "checkpiont: x\n")
    said = refuse(job_file)
    assert said == f"{job_file}: checkpiont: unknown key; did you mean checkpoint?"


def test_a_key_written_as_a_flag_gets_a_suggestion(job_file: Path) -> None:
    job_file.write_text(GOOD + "rank-table: x\n")
    assert "did you mean rank_table?" in refuse(job_file)


def test_every_problem_of_a_file_is_told_at_once(job_file: Path) -> None:
    job_file.write_text("network: net\nranks: true\ndevice: tpu\ntimeout: 0\n")
    lines = refuse(job_file).splitlines()
    keys = {line.removeprefix(f"{job_file}: ").partition(":")[0] for line in lines}
    assert keys == {"network", "predict_data", "ranks", "device", "timeout"}


def test_a_bad_flag_is_named_as_a_flag(job_file: Path) -> None:
    assert refuse(job_file, phase_timeout=-1.0).startswith("command line: --phase-timeout: -1.0")


def test_a_bad_flag_with_several_values_is_named_as_a_flag(job_file: Path) -> None:
    assert refuse(job_file, metrics="mse,:x").startswith("command line: --metrics[1]: ")


@pytest.mark.parametrize("name", ["net", "net:", ":make", "net:make-it", "net.py"])
def test_an_entry_point_names_a_module_and_a_callable(name: str) -> None:
    assert "write pkg.module:name or path/file.py:name" in refuse(
        None, network=name, predict_data="net:data"
    )


def test_an_engine_that_does_not_exist_is_refused(job_file: Path) -> None:
    assert "'auto', 'local', 'hosts', 'mpi' or 'slurm'" in refuse(job_file, engine="pbs")


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    assert "No such file" in refuse(tmp_path / "none.yaml")


def test_broken_yaml_is_refused_with_its_line(job_file: Path) -> None:
    job_file.write_text("network: [net\npredict_data: x\n")
    assert "line 2" in refuse(job_file)


def test_a_key_that_stands_twice_is_refused(job_file: Path) -> None:
    job_file.write_text("network: a:b\npredict_data: x:y\nnetwork: c:d\n")
    assert "the key 'network' stands there twice" in (said := refuse(job_file))
    assert "line 3" in said


@pytest.mark.parametrize(
    ("value", "said"),
    [("", "no value; write one behind it"), ("[a:b]", "['a:b'] is not a string; write one value")],
)
def test_what_is_no_text_is_refused(job_file: Path, value: str, said: str) -> None:
    job_file.write_text(f"network: {value}\npredict_data: x:y\n")
    assert f"network: {said}" in refuse(job_file)


@pytest.mark.parametrize("text", ["", "- network", "just words", "1: 2"])
def test_yaml_that_is_no_mapping_of_names_is_refused(job_file: Path, text: str) -> None:
    job_file.write_text(text)
    assert "not a list of 'key: value'" in refuse(job_file)


def test_yaml_never_makes_objects(job_file: Path) -> None:
    job_file.write_text("network: !!python/object/apply:os.getcwd []\n")
    assert "python/object/apply" in refuse(job_file)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("2001-13-45", "month must be in 1..12"),
        ("1" * 5000, "Exceeds the limit"),
        ("0x" + "f" * 5000, "int of endless length is not a string"),
    ],
)
def test_yaml_that_python_cannot_read_is_refused(job_file: Path, value: str, said: str) -> None:
    job_file.write_text(f"network: {value}\npredict_data: x:y\n")
    assert said in refuse(job_file)


@pytest.fixture
def usual_recursion_limit() -> Iterator[None]:
    """Set the limit that Python starts with; libraries that other tests import raise it."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(1000)
    yield
    sys.setrecursionlimit(before)


@pytest.mark.usefixtures("usual_recursion_limit")
def test_yaml_that_is_nested_too_deeply_is_refused(job_file: Path) -> None:
    job_file.write_text(f"network: {'[' * 1500}")
    assert "nested too deeply" in refuse(job_file)


@pytest.mark.parametrize("key", ["network", "ranks", "search_path", "dataset_strategy"])
def test_aliases_that_multiply_are_refused_in_a_few_words(job_file: Path, key: str) -> None:
    # ten lists of ten lists of ... : 10 ** 9 words, were they written out
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for depth in range(1, 9):
        lines.append(f"a{depth}: &a{depth} [{', '.join([f'*a{depth - 1}'] * 10)}]")
    job_file.write_text("\n".join([*lines, f"{key}: *a8\n"]))
    assert all(len(line) < 1000 for line in refuse(job_file).splitlines())  # all keys are named


@pytest.mark.parametrize("key", ["ranks", "threads"])
def test_absurd_counts_are_refused(job_file: Path, key: str) -> None:
    assert "less than or equal to 65536" in refuse(job_file, **{key: 10**9})


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_every_run_has_an_end(job_file: Path, value: float) -> None:
    assert "--timeout" in refuse(job_file, timeout=value)


@pytest.mark.parametrize("key", ["network", "checkpoint", "output", "labels", "search_path"])
def test_no_path_holds_a_nul(job_file: Path, key: str) -> None:
    value = '["~\\0"]' if key == "search_path" else '"~\\0.py:x"'
    job_file.write_text(f"predict_data: x:y\n{key}: {value}\n")
    assert "holds a NUL character" in refuse(job_file)


@pytest.mark.parametrize(
    "key", ["checkpoint", "strategy", "output", "labels", "predict_data", "rank_table", "key_file"]
)
def test_an_empty_path_is_not_the_working_directory(job_file: Path, key: str) -> None:
    said = "it is empty; give it a value, or leave it out"  # "$STRATEGY", which nobody has set
    flag = "--" + key.replace("_", "-")
    assert refuse(job_file, **{key: ""}) == f"command line: {flag}: {said}"
    job_file.write_text(f"network: net.py:make\n{key}: ''\n")
    assert f"{key}: {said}" in refuse(job_file)


def test_an_error_survives_the_way_to_another_process(job_file: Path) -> None:
    job_file.write_text("ranks: 0\n")
    with pytest.raises(JobError) as caught:
        load_job(job_file, {})
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.problems) == (str(caught.value), caught.value.problems)


@pytest.mark.parametrize("given", ["crc,replicas=full", ["crc", "replicas=full", "crc"]])
def test_checks_come_as_a_list_or_with_commas(job_file: Path, given: Any) -> None:
    assert load_job(job_file, {"verify": given}).verify == ("crc", "replicas=full")


def test_a_check_that_nobody_knows_is_named_with_those_that_are_known(job_file: Path) -> None:
    with pytest.raises(JobError, match="--verify: 'md5' is no check; known are crc, sha256, "):
        load_job(job_file, {"verify": ["crc,md5"]})


def test_one_pattern_needs_no_list_and_a_key_is_a_file(job_file: Path) -> None:
    job_file.write_text(job_file.read_text() + "allow_missing: head.*,tail\nkey_file: secret.key\n")
    job = load_job(job_file, {})
    assert job.allow_missing == ("head.*", "tail")
    assert job.key_file == job_file.parent / "secret.key"


def test_an_evaluation_needs_a_dataset_and_no_predict_data(job_file: Path) -> None:
    job_file.write_text("task: eval\nnetwork: net.py:make\ndataset: data.py:create\n")
    job = load_job(job_file, {})
    assert (job.data, job.metrics) == (f"{job_file.parent}/data.py:create", ("accuracy",))
    assert refuse(job_file, task="predict").endswith("predict_data: missing; add it")
    job_file.write_text(GOOD)
    assert refuse(job_file, task="eval").endswith("dataset: missing; add it")


def test_metrics_are_names_and_callables(job_file: Path) -> None:
    job_file.write_text(GOOD + "metrics: [loss, metrics.py:make]\n")
    assert load_job(job_file, {}).metrics == ("loss", f"{job_file.parent}/metrics.py:make")
    assert load_job(job_file, {"metrics": "accuracy, loss"}).metrics == ("accuracy", "loss")
    assert "write pkg.module:name" in refuse(job_file, metrics="net:")
    assert "it is empty; name one" in refuse(job_file, metrics=[])


@pytest.mark.parametrize("given", ["x.npy", "x.npz:images", "x.safetensors", "shards"])
def test_predict_data_may_be_files(job_file: Path, given: str) -> None:
    (job_file.parent / "shards").mkdir()
    job_file.write_text(f"network: net:make\npredict_data: {given}\n")
    assert load_job(job_file, {}).predict_data == f"{job_file.parent}/{given}"


def test_predict_data_that_are_neither_a_callable_nor_files_are_refused(job_file: Path) -> None:
    assert "name a callable, pkg.module:name, a .npy, " in refuse(job_file, predict_data="net")


def test_a_run_can_only_be_resumed_in_a_folder_with_a_name(job_file: Path) -> None:
    assert "--resume: nobody knows which run to resume; name its output" in refuse(
        job_file, resume=True
    )
    assert load_job(job_file, {"resume": True, "output": "out"}).resume


def test_settings_are_written_as_in_a_job_file() -> None:
    settings = ["ranks=8", "phase-timeout=1.5", "metrics=[loss]", "output=a=b", "strategy="]
    assert parse_settings(settings) == {
        "ranks": 8,
        "phase_timeout": 1.5,
        "metrics": ["loss"],
        "output": "a=b",
        "strategy": None,
    }


@pytest.mark.parametrize("setting", ["ranks", "=8", "metrics=[loss", "timeout=2001-13-45"])
def test_a_setting_that_is_none_is_refused(setting: str) -> None:
    with pytest.raises(JobError, match="is no key=value; write --set ranks=8"):
        parse_settings([setting])
