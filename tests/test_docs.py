"""Every command of every page was run by a test, or says what it needs."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from doc_pages import Command, commands
from make_api_page import render

import espdl_hil
from espdl_hil import Hil
from espdl_hil.cli import COMMANDS, main
from espdl_hil.plugin.options import add_options

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "firmware/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
WITH_ACTIONS = ("baseline", "bench")
COVERED = tomllib.loads((ROOT / "tests" / "doc_commands.toml").read_text(encoding="utf-8"))
ITSELF = re.compile(
    r"pytest (?:-m slow )?(tests\S*(?: tests\S+)*)(?: -m slow)?(?: -k (\w+))?"
)  # a test


def uncovered(found: list[Command]) -> list[str]:
    """Commands that no entry covers, that run no test and that have no excuse."""
    return [
        f"{command.page}: {command.text}"
        for command in found
        if not command.excused
        and not ITSELF.fullmatch(command.text)
        and not any(re.fullmatch(pattern, command.text) for pattern in COVERED)
    ]


def missing(place: str) -> bool:
    """Whether the test, the file of tests or the CI file that a table names is not there."""
    path, _, test = place.partition("::")
    file = ROOT / path
    return not file.is_file() or (
        bool(test) and f"def {test}" not in file.read_text(encoding="utf-8")
    )


def every_command() -> list[Command]:
    return [command for page in PAGES for command in commands(page, ROOT)]


def test_every_command_is_run_by_a_test_or_says_what_it_needs():
    found = every_command()
    assert len(found) > 100
    assert uncovered(found) == []


def test_what_covers_a_command_is_there_and_every_entry_is_used():
    assert [place for place in COVERED.values() if missing(place)] == []
    texts = [command.text for command in every_command()]
    assert [p for p in COVERED if not any(re.fullmatch(p, text) for text in texts)] == []


def test_tests_that_a_page_names_are_there():
    for command in every_command():
        if found := ITSELF.fullmatch(command.text):
            for path in found[1].split():
                assert (ROOT / path).exists(), command
            if found[2]:
                files = [ROOT / path for path in found[1].split()]
                texts = [
                    file.read_text(encoding="utf-8")
                    for path in files
                    for file in ([path] if path.is_file() else path.rglob("*.py"))
                ]
                assert any(found[2] in text for text in texts), command


def test_what_nobody_runs_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Text with `pytest --nonsense` in it.\n\n"
        "```sh\nespdl-hil nonsense  # why\nmake test\n```\n\n"
        "```\n$ esptool nonsense\nprinted\n```\n\nThis needs a board:\n\n```sh\npytest --target x\n"
        "```\n\n`espdl-hil other` needs a board, too.\n\n```python\npytest --in-python\n```\n"
    )
    found = commands(page, tmp_path)
    assert uncovered(found) == [
        "page.md: espdl-hil nonsense",
        "page.md: esptool nonsense",
        "page.md: pytest --nonsense",
    ]
    assert [command.text for command in found if command.excused] == [
        "pytest --target x",
        "espdl-hil other",
    ]
    assert missing("tests/test_docs.py::test_that_there_is_not")
    assert missing("tests/nowhere.py")
    assert not missing("tests/test_docs.py::test_what_nobody_runs_is_noticed")


class Options(list):
    """Takes the plugin's options as pytest's parser does."""

    def getgroup(self, *_):
        return self

    def addoption(self, *names, **_):
        self.extend(names)


def test_every_option_that_a_page_names_exists(capsys):
    ours = Options()
    add_options(ours)
    for page in PAGES:
        named = set(re.findall(r"--hil-[a-z-]+[a-z]", page.read_text(encoding="utf-8")))
        assert named <= set(ours), page


@pytest.mark.parametrize("name", COMMANDS)
def test_options_of_our_commands_exist(name, capsys):
    for command in every_command():
        if command.text.startswith(f"espdl-hil {name} "):
            action = command.text.split()[2:3] if name in WITH_ACTIONS else []
            with pytest.raises(SystemExit):
                main([name, *action, "--help"])
            help_text = capsys.readouterr().out
            options = re.findall(r"(?<= )--?[a-z][a-z-]*", command.text)
            assert [option for option in options if option not in help_text] == [], command


def test_make_help_names_every_target(tmp_path):
    makefile = ROOT / "Makefile"
    (tmp_path / "Makefile").write_bytes(makefile.read_bytes())
    run = subprocess.run(
        ["make", "help"], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    named = {
        word
        for command in every_command()
        for word in re.findall(r"(?:^|&& )make ([a-z]+)", command.text)
    }
    assert named <= {line.split()[1] for line in run.stdout.splitlines()} | {"help"}


def test_the_api_page_is_not_stale():
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert page == render(), "python tests/make_api_page.py > docs/api.md"


def test_a_changed_docstring_makes_the_api_page_stale(monkeypatch):
    before = render()
    monkeypatch.setattr(Hil.forget, "__doc__", "Changed.")
    assert "Changed." in render() != before


def test_the_api_page_has_what_the_package_exports():
    page = render()
    for name in espdl_hil.__all__:
        assert f"## `{name}`" in page
