"""The operator table: complete, tested, and not stale."""

from __future__ import annotations

import re
from pathlib import Path

from espdl_hil.operators import OPERATORS, registry
from espdl_hil.operators.signature import WIDTHS

from . import coverage


def test_the_table_is_not_stale():
    assert coverage.TABLE.read_text() == coverage.table(), "run python tests/operators/coverage.py"


def test_a_changed_table_is_stale(monkeypatch):
    monkeypatch.setitem(coverage.OPERATORS, "New", OPERATORS["Add"])
    assert coverage.TABLE.read_text() != coverage.table()


def test_every_family_is_registered_and_no_operator_twice():
    folder = Path(registry.__file__).parent
    families = {
        p.stem for p in folder.glob("*.py") if re.search("^OPERATORS = ", p.read_text(), re.M)
    }
    assert families == {family.__name__.rpartition(".")[2] for family in registry.FAMILIES}
    names = [name for family in registry.FAMILIES for name in family.OPERATORS]
    assert sorted(names) == sorted(OPERATORS)


def test_every_supported_cell_is_tested():
    counts = coverage.kernel_counts()
    untested = {
        (name, width)
        for name, operator in OPERATORS.items()
        for width in operator.widths
        for target in {chip.exporter for chip in coverage.TARGETS.values()}
        if not counts[name, width, target]
    }
    assert untested == {("ReverseSequence", "F32")}
    assert {width for _, width, _ in counts} == set(WIDTHS)
