"""``espdl-hil docs``: every page and rule, and what is said when there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from espdl_hil.__main__ import main
from espdl_hil.streaming import RULES

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("models", "docs/models.md"),
        ("docs/Models.md", "docs/models.md"),
        ("decisions/03-the-file-is-tested", "docs/decisions/03-the-file-is-tested.md"),
        ("README", "README.md"),
    ],
)
def test_a_page_goes_into_a_pipe_as_it_is(name, page, capsys):
    assert main(["docs", name]) == 0
    assert capsys.readouterr().out == (ROOT / page).read_text(encoding="utf-8")


def test_without_a_name_it_says_what_there_is_to_read(capsys):
    assert main(["docs"]) == 0
    assert capsys.readouterr().out.startswith("# Where to read\n")


@pytest.mark.parametrize("name", ["S105", "s105"])
def test_a_rule_is_what_lint_explains(name, capsys):
    assert main(["docs", name]) == 0
    said = capsys.readouterr().out
    assert main(["lint", "--explain", "S105"]) == 0
    assert said == capsys.readouterr().out
    assert RULES["S105"].explanation in said


def test_on_a_terminal_markdown_is_laid_out(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(["docs", "faq"]) == 0
    said = capsys.readouterr().out
    assert "\x1b[" in said
    assert "## " not in said


def test_what_there_is_not_is_one_message(capsys):
    assert main(["docs", "nonsense"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: there is no page or rule 'nonsense'\n  hint: pages: ")
    assert error.endswith("; rules: espdl-hil docs rules\n")
