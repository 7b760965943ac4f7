"""Pages that say "do this" are done: their commands, edits and printed output, from a wheel."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from doc_pages import Block, blocks, lines_of

from espdl_hil.model import load_models

ROOT = Path(__file__).parents[2]
BY_CI = ("make setup", ". .venv/bin/activate")  # a clone's own environment; see ci.yml
CHECKER = doctest.OutputChecker()
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Reader:
    """Someone who follows a page: types its commands, makes its edits, looks at what it shows.

    Args:
        folder: Where they begin.
        package: An unpacked wheel, instead of the checkout.
    """

    def __init__(self, folder: Path, package: Path) -> None:
        self.folder = folder
        self.printed = ""
        self.exit_codes: list[int] = []
        dropped = ("IDF_PATH", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
        self._environment = {k: v for k, v in os.environ.items() if k not in dropped} | {
            "PYTHONPATH": str(package),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "COLUMNS": "120",
        }

    def follow(self, page: str) -> None:
        """Do what a page says, in its order."""
        for block in blocks(page):
            if block.language == "sh":
                for line in lines_of(block):
                    if line not in BY_CI:
                        self.type(line)
            elif block.language == "diff":
                self.edit(block)
            elif block.language == "":
                assert CHECKER.check_output(block.text, self.printed, FLAGS), (
                    f"the page shows\n{block.text}\nbut this was printed\n{self.printed}"
                )

    def type(self, line: str) -> None:
        """Run a command of the shell; a ``cd`` stays."""
        where = self.folder / ".where"
        run = subprocess.run(
            ["bash", "-c", f'{line}\ncode=$?; pwd > "{where}"; exit $code'],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.folder = Path(where.read_text().strip())
        where.unlink()
        self.printed = run.stdout
        self.exit_codes.append(run.returncode)
        assert "Traceback" not in run.stdout + run.stderr, run.stdout + run.stderr
        assert run.returncode in (0, 1), f"{line}\n{run.stdout}{run.stderr}"

    def edit(self, block: Block) -> None:
        """Make the edit of a ``diff`` block: lines that stay or go are found, as they are."""
        head, *lines = block.text.splitlines()
        path = self.folder / head.removeprefix("--- ")
        before = "\n".join(line[1:] for line in lines if line[0] in " -")
        after = "\n".join(line[1:] for line in lines if line[0] in " +")
        text = path.read_text()
        assert text.count(before) == 1, f"{path} has {text.count(before)} times\n{before}"
        path.write_text(text.replace(before, after))


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The wheel of this checkout, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
    run = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder / "unpacked")
    return folder / "unpacked"


@pytest.fixture
def reader(tmp_path, package):
    """A reader in an empty folder, who has installed the wheel."""
    return Reader(tmp_path, package)


@pytest.mark.slow  # builds a wheel
def test_first_steps_lead_where_the_page_says(reader):
    reader.follow((ROOT / "docs" / "first-steps.md").read_text(encoding="utf-8"))

    # mkdir, init, lint, pytest, then a model that cannot stream, its rule, and the mended one
    assert reader.exit_codes == [0, 0, 0, 0, 1, 0, 0]
    assert not (ROOT / "models" / "mine.py").exists()


def test_the_wheel_holds_every_page_as_it_is(reader, package):
    reader.type("espdl-hil docs concepts")
    assert reader.printed == (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    shipped = package / "espdl_hil" / "_docs"
    for page in (ROOT / "docs").rglob("*.md"):
        assert (shipped / page.relative_to(ROOT / "docs")).read_bytes() == page.read_bytes()
    assert (shipped / "README.md").read_bytes() == (ROOT / "README.md").read_bytes()


@pytest.mark.slow  # tests/proof/test_foreign.py has the tutorial's own script
def test_of_the_tutorials_models_the_exporter_converts_the_tcn_wrongly():
    """The command of the page, from a checkout; `-m slow` lints all four."""
    page = (ROOT / "docs" / "from-the-tutorial.md").read_text(encoding="utf-8")
    command, shown, *_ = [block for block in blocks(page) if block.language in ("sh", "")]
    reader = Reader(ROOT, ROOT / "harness")
    reader.type(lines_of(command)[0])
    assert CHECKER.check_output(shown.text, reader.printed, FLAGS), reader.printed


def test_the_readme_shows_what_lint_and_the_demo_print(tmp_path):
    """Of the demo one model, which the zoo's own tests quantize too; the count is the zoo's."""
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    lint, demo, *_ = [block for block in blocks(page) if block.language == ""]
    reader = Reader(ROOT, ROOT / "harness")
    command, _, shown = lint.text.partition("\n")
    reader.type(command.removeprefix("$ "))
    assert CHECKER.check_output(shown, reader.printed, FLAGS), reader.printed

    zoo = load_models([ROOT / "models"]).values()
    cases = sum(len(m.targets) * len(m.bits) * len(m.chunk_frames) for m in zoo)
    first, _, shown = demo.text.partition("\n")
    assert first.startswith(f"hil: {cases} cases on SIMULATED devkits")
    makefile = (ROOT / "Makefile").read_text()
    assert "pytest test_cases/test_streaming.py --hil-report=hil-report" in makefile
    some = "'[esp32s3-tcn- or [esp32p4-tcn-'"
    reader.type(f"pytest test_cases/test_streaming.py --hil-report={tmp_path} -k {some}")
    said = reader.printed.replace("hil: 8 cases", f"hil: {cases} cases")
    said = said.replace("8 rows: 8 passed", f"{cases} rows: {cases} passed")
    said = said.replace(str(tmp_path), "hil-report")
    said = said[said.index("hil: ") : said.index("\n=", said.index("report: "))]  # not pytest's own
    assert CHECKER.check_output(demo.text, said, FLAGS), said


@pytest.mark.slow
def test_the_other_three_are_right():
    reader = Reader(ROOT, ROOT / "harness")
    reader.type("espdl-hil lint --target esp32s3 examples/tutorial/[ip]*.py")
    assert reader.exit_codes == [0]
    assert reader.printed.count("nothing found") == 3


class TestAPageThatIsWrong:
    def test_other_output_is_noticed(self, tmp_path, package):
        with pytest.raises(AssertionError, match="the page shows"):
            Reader(tmp_path, package).follow("```sh\necho one\n```\n\n```\ntwo\n```\n")

    def test_an_edit_of_what_is_not_there_is_noticed(self, tmp_path, package):
        (tmp_path / "mine.py").write_text("a\nb\n")
        with pytest.raises(AssertionError, match="has 0 times"):
            Reader(tmp_path, package).follow("```diff\n--- mine.py\n c\n+d\n```\n")

    def test_a_command_that_there_is_not_is_noticed(self, tmp_path, package):
        with pytest.raises(AssertionError, match="espdl-hil nonsense"):
            Reader(tmp_path, package).follow("```sh\nespdl-hil nonsense\n```\n")
