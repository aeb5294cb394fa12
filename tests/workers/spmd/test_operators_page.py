"""docs/operators.md names the operators that the table knows, family by family."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "operators.md"


def test_the_page_lists_every_family_of_the_table_in_a_row_of_its_own():
    from workers.spmd.rules import RULES
    from workers.spmd.rules.mindspore import HAS_RULE

    families = {}
    for op, rule in RULES.items():
        families.setdefault(rule, set()).add(op if op in HAS_RULE else f"{op}°")
    rows = [line.split("|")[1] for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert sorted(map(sorted, families.values())) == sorted(sorted(r.split()) for r in rows[1:])


def test_the_page_lists_every_composition():
    from workers.spmd.compositions import COMPOSED

    text = PAGE.read_text()
    (paragraph,) = [p for p in text.split("\n\n") if p.startswith("Operators that only Ascend")]
    assert all(op in paragraph for op in COMPOSED)
