"""The operator table: complete, tested, and not stale."""

from __future__ import annotations

from espdl_hil.operators import coverage
from espdl_hil.operators.registry import BUILDERS
from espdl_hil.operators.table import OPERATORS, WIDTHS


def test_the_table_is_not_stale():
    assert coverage.TABLE.read_text() == coverage.table(), (
        "run python -m espdl_hil.operators.coverage"
    )


def test_a_changed_table_is_stale(monkeypatch):
    monkeypatch.setitem(coverage.OPERATORS, "New", OPERATORS["Add"])
    assert coverage.TABLE.read_text() != coverage.table()


def test_every_operator_has_a_builder_and_no_other_has():
    assert BUILDERS.keys() == OPERATORS.keys()


def test_every_supported_cell_is_tested():
    counts = coverage.kernel_counts()
    untested = {
        (name, width)
        for name, operator in OPERATORS.items()
        for width in operator.widths
        for target in coverage.TARGETS
        if not counts[name, width, target]
    }
    assert untested == {("ReverseSequence", "F32")}
    assert {width for _, width, _ in counts} == set(WIDTHS)
