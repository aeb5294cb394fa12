"""M:F names: what they find, and what the error says when they find nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.entry_point import EntryPointError, FactoryError, blaming, load_entry_point


@pytest.fixture(autouse=True)
def own_imports() -> Iterator[None]:
    """Forget what a test has imported, and from where."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "net_a.py").write_text(
        "import helper_a\nnumber = 3\ndef make(): return helper_a.VALUE\nclass Net: pass\n"
    )
    (tmp_path / "helper_a.py").write_text("VALUE = 42\n")
    (tmp_path / "package_a").mkdir()
    (tmp_path / "package_a" / "inner.py").write_text("def make(): return 43\n")
    return tmp_path


def test_a_module_is_found_on_the_search_path(folder: Path) -> None:
    assert load_entry_point("net_a:make", [str(folder)])() == 42


def test_a_module_inside_a_package_is_found(folder: Path) -> None:
    assert load_entry_point("package_a.inner:make", [str(folder)])() == 43


def test_a_class_can_be_named(folder: Path) -> None:
    assert isinstance(load_entry_point("net_a:Net", [str(folder)]), type)


def test_a_file_is_imported_with_the_modules_beside_it(folder: Path) -> None:
    assert load_entry_point(f"{folder}/net_a.py:make")() == 42


def test_a_relative_file_is_found_from_the_search_path(folder: Path) -> None:
    assert load_entry_point("package_a/inner.py:make", ["/nowhere", str(folder)])() == 43


def test_a_file_is_imported_once_and_is_the_module_that_others_import(folder: Path) -> None:
    net = load_entry_point(f"{folder}/net_a.py:Net")
    assert load_entry_point(f"{folder}/net_a.py:Net") is net
    assert load_entry_point("net_a:Net") is net


def test_a_file_may_have_the_name_of_a_known_module(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("def make(): return 'mine'\n")
    make = load_entry_point(f"{tmp_path}/json.py:make")
    assert make() == "mine"
    assert load_entry_point(f"{tmp_path}/json.py:make") is make
    assert hasattr(sys.modules["json"], "loads")


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("net_a", "names no callable; write pkg.module:name"),
        ("net_a:", "names no callable"),
        (":make", "names no callable"),
        ("net_a:mke", "net_a has no 'mke'; did you mean 'make'"),
        ("net_a:number", "it is of type int; name a function or a class"),
        ("net_aa:make", "there is no module 'net_aa'; did you mean 'net_a'"),
        ("package_a.iner:make", "there is no module 'package_a.iner'; did you mean 'inner'"),
        ("package_b.inner:make", "there is no module 'package_b'"),
        ("zzz/missing.py:make", "there is no file .*zzz/missing.py"),
    ],
)
def test_a_name_that_leads_nowhere_says_what_is_near(
    folder: Path, name: str, problem: str
) -> None:
    with pytest.raises(EntryPointError, match=problem) as caught:
        load_entry_point(name, [str(folder)])
    assert caught.value.exit_code == 2


def test_an_error_inside_the_users_module_is_the_users_own(folder: Path) -> None:
    (folder / "broken_a.py").write_text("import no_such_dependency\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        load_entry_point("broken_a:make", [str(folder)])


def test_a_file_that_failed_to_import_is_not_taken_for_imported(folder: Path) -> None:
    for _ in range(2):
        (folder / "broken_b.py").write_text("def make(): pass\n1 / 0\n")
        with pytest.raises(ZeroDivisionError):
            load_entry_point(f"{folder}/broken_b.py:make")


def test_a_factory_that_raises_is_bad_input_and_its_own_line_is_named(folder: Path) -> None:
    (folder / "net_b.py").write_text("import json\ndef make():\n    json.loads('no')\n")
    name = f"{folder}/net_b.py:make"
    with pytest.raises(FactoryError, match=r"net_b.py:make raised json.decoder.*line 3\)$") as e:
        with blaming(name):
            load_entry_point(name)()
    assert e.value.exit_code == 2
    assert "JSONDecodeError" in repr(e.value.__cause__)


def test_a_module_that_raises_is_bad_input_too(folder: Path) -> None:
    (folder / "net_c.py").write_text("raise OSError('no driver')\n")
    with pytest.raises(FactoryError, match=r"raised OSError: no driver \(.*net_c.py, line 1\)$"):
        with blaming("net_c:make"):
            load_entry_point("net_c:make", [str(folder)])


def test_what_says_itself_what_is_wrong_is_left_alone() -> None:
    with pytest.raises(EntryPointError), blaming("nowhere_a:make"):
        load_entry_point("nowhere_a:make")
