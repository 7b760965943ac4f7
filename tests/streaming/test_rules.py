"""The registry: complete, stable, documented, and every rule provoked by some test."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from espdl_hil.streaming import RULES, Severity
from espdl_hil.streaming.rules_doc import render

ROOT = Path(__file__).parents[2]


def test_the_documentation_is_that_of_the_registry():
    written = (ROOT / "docs" / "rules.md").read_text()

    assert written == render(), "run: python -m espdl_hil.streaming.rules_doc > docs/rules.md"


def test_every_rule_is_documented():
    headings = re.findall(r"^### (S\d{3}) ", render(), flags=re.MULTILINE)

    assert headings == list(RULES)


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_a_rule_says_why_and_what_to_do(rule):
    assert re.fullmatch(r"S\d{3}", rule.id)
    assert rule.explanation.endswith(".")
    assert len(rule.explanation) > 30
    assert len(rule.edit) > 10
    assert rule.title == rule.title.strip(".")


def test_what_cannot_stream_is_an_error():
    assert all(RULES[name].severity is Severity.ERROR for name in RULES if name.startswith("S1"))


def test_every_rule_is_provoked_by_a_test():
    rooms = (ROOT / "tests").glob("*/test_*.py")
    tests = "".join(
        path.read_text() for path in rooms if path.parent.name in ("streaming", "quantize")
    )

    assert [name for name in RULES if f'"{name}"' not in tests] == []
