"""What the tree says of itself is true: reasons, named files, links, contracts, CI files."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "harness" / "espdl_hil"
LONGEST_REASON = 120
MAX_CONTRACT_LINES = 60
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
NAMED = re.compile(
    r"`((?:harness|tests|firmware|benchmarks|docs|models|test_cases|examples|\.ci|\.github)/[^`*\s]*"
    r"|\.importlinter|[A-Z]+\.md)`"
)
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|root|work|Users|opt|mnt)/[\w.-]+")
SCHEMA = "check-jsonschema"


def reason_problem(module: Path) -> str | None:
    """Why the first line of *module*'s docstring is no one-line reason; None if it is one."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8")))
    if not docstring:
        return "no docstring"
    first, *rest = docstring.splitlines()
    if rest and rest[0]:
        return "the first sentence takes more than one line"
    if not first.endswith((".", ":", "?")) or len(first) > LONGEST_REASON:
        return f"not one sentence of at most {LONGEST_REASON} characters: {first}"
    return None


def dead_links(page: Path) -> list[str]:
    """Relative links of *page* that lead to no file, or to no heading of their file."""
    dead = []
    for link in LINK.findall(_prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            dead.append(link)
    return dead


def missing_names(page: Path) -> list[str]:
    """Files and folders that *page* names in code style and that this repository lacks."""
    return [name for name in NAMED.findall(_prose(page)) if not (ROOT / name).exists()]


def unnamed(page: Path, form: str, names: Iterable[str]) -> list[str]:
    """Of *names*, those that *page* does not hold in this *form*, which has ``{}`` for the name."""
    text = page.read_text(encoding="utf-8")
    return sorted(name for name in names if form.format(name) not in text)


def absent(folder: Path, patterns: Iterable[str]) -> list[str]:
    """Of *patterns*, those that match nothing below *folder*."""
    return sorted(pattern for pattern in patterns if not any(folder.rglob(pattern)))


def shared_names(sources: Iterable[str]) -> list[str]:
    """Names that two classes at the top of modules share: one word, one meaning."""
    names = Counter(
        node.name
        for source in sources
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
    )
    return sorted(name for name, count in names.items() if count > 1)


def machine_paths(text: str) -> list[str]:
    """Absolute paths of one person's machine."""
    return MACHINE_PATH.findall(text)


def contract_lines(text: str) -> int:
    """Lines of an import-linter configuration that say something."""
    return sum(1 for line in text.splitlines() if line.strip() and not line.startswith("#"))


def schema_problem(schema: str, *files: Path) -> str:
    """What the schema's checker says against *files*; empty if nothing."""
    checker = Path(sys.executable).with_name(SCHEMA)
    command = [str(checker), "--builtin-schema", schema, *map(str, files)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return "" if run.returncode == 0 else run.stdout + run.stderr


def _prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def _anchors(page: Path) -> set[str]:
    """Headings as GitHub spells them in a link."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tracked(*patterns: str) -> list[Path]:
    """Files of the repository, as git knows them."""
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a git checkout")
    run = subprocess.run(
        ["git", "-c", f"safe.directory={ROOT}", "ls-files", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    files = [ROOT / name for name in run.stdout.splitlines() if (ROOT / name).is_file()]
    assert files, patterns
    return files


ROOMS = sorted(path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists())


def test_every_room_is_in_the_table_of_the_house():
    assert len(ROOMS) >= 15
    assert unnamed(ROOT / "CONTRIBUTING.md", "| `harness/espdl_hil/{}/` |", ROOMS) == []


def test_every_room_has_a_folder_of_tests():
    assert absent(ROOT / "tests", [f"{room}/test_*.py" for room in ROOMS]) == []


def test_every_page_is_in_the_index():
    pages = [path.name for path in (ROOT / "docs").iterdir() if path.is_file()]
    pages.remove("index.md")
    assert unnamed(ROOT / "docs" / "index.md", "({})", pages) == []


def test_what_make_quick_leaves_out_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rooms, files = (
        re.search(rf"^{name} := (.+)$", makefile, flags=re.M)[1].split()
        for name in ("SLOW_ROOMS", "SLOW_FILES")
    )
    assert absent(ROOT / "tests", [*(f"{room}/test_*.py" for room in rooms), *files]) == []


def test_what_is_not_named_or_not_there_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("[a](a.md) b.md\n")
    assert unnamed(page, "({})", ["a.md", "b.md"]) == ["b.md"]
    assert absent(tmp_path, ["p*.md", "room/test_*.py"]) == ["room/test_*.py"]


def test_every_module_says_its_one_reason_first():
    problems = {
        str(module.relative_to(PACKAGE)): problem
        for module in sorted(PACKAGE.rglob("*.py"))
        if (problem := reason_problem(module))
    }
    assert problems == {}


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("x = 1\n", "no docstring"),
        ('"""This one\ngoes on."""\n', "more than one line"),
        ('"""Half a sentence"""\n', "not one sentence"),
        (f'"""{"long " * 40}."""\n', "not one sentence"),
    ],
)
def test_a_module_without_a_reason_is_noticed(tmp_path, source, problem):
    module = tmp_path / "module.py"
    module.write_text(source)
    assert problem in reason_problem(module)


def test_links_of_all_pages_lead_somewhere():
    dead = {str(page.relative_to(ROOT)): dead_links(page) for page in tracked("*.md")}
    assert {page: links for page, links in dead.items() if links} == {}


def test_a_dead_link_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A Page\n[a](page.md) [b](#a-page) [c](https://a.b/c) [d](gone.md) [e](#gone)\n"
        "```\n[f](code.md)\n```\n"
    )
    assert dead_links(page) == ["gone.md", "#gone"]


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "README.md", "docs/device.md"])
def test_files_that_a_page_names_exist(page):
    assert missing_names(ROOT / page) == []


def test_a_file_that_is_not_there_is_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "`harness/espdl_hil/errors.py`, `harness/gone.py`, `models/*.py`, `.npz`, `GONE.md`\n"
    )
    assert missing_names(page) == ["harness/gone.py", "GONE.md"]


def test_no_file_names_a_path_of_one_machine():
    own = Path(__file__).resolve()
    found = {
        str(path.relative_to(ROOT)): paths
        for path in tracked()
        if path != own and path.suffix != ".npz"
        if (paths := machine_paths(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_a_path_of_one_machine_is_noticed():
    assert machine_paths("see /home/me/x, `/opt/tool`") == ["/home/me", "/opt/tool"]
    assert machine_paths("rfc2217://lab/work/x harness/opt/y /dev/ttyUSB0 /Conv_1") == []


def test_a_class_has_a_name_of_its_own():
    sources = (path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py"))
    assert shared_names(sources) == []


def test_a_shared_name_is_noticed():
    assert shared_names(["class A:\n    class B: ...\n", "class A(B): ...\nclass C: ..."]) == ["A"]


def test_contracts_stay_few():
    assert (
        contract_lines((ROOT / ".importlinter").read_text(encoding="utf-8")) <= MAX_CONTRACT_LINES
    )


def test_lines_of_contracts_are_counted():
    assert contract_lines("# why\n\n[importlinter]\nroot_package = x\n") == 2


def test_the_command_says_its_version():
    for command in (
        [str(Path(sys.executable).with_name("espdl-hil"))],
        [sys.executable, "-m", "espdl_hil"],
    ):
        run = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=True, timeout=60
        )
        assert re.fullmatch(r"espdl-hil \d+\.\d+\.\d+\n", run.stdout)


class TestGithubFiles:
    FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))
    WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

    def test_workflows(self):
        assert self.WORKFLOWS
        assert schema_problem("vendor.github-workflows", *self.WORKFLOWS) == ""
        assert schema_problem("custom.github-workflows-require-timeout", *self.WORKFLOWS) == ""

    def test_examples_to_copy(self):
        examples = ROOT / "examples"
        assert schema_problem("vendor.github-workflows", examples / "github" / "hil.yml") == ""
        assert schema_problem("vendor.gitlab-ci", examples / "gitlab" / "hil.yml") == ""

    def test_issue_forms(self):
        assert len(self.FORMS) == 3
        assert schema_problem("vendor.github-issue-forms", *self.FORMS) == ""

    @pytest.mark.parametrize(
        ("schema", "good", "bad"),
        [
            ("vendor.github-workflows", "runs-on: ubuntu-latest", "runs-in: ubuntu-latest"),
            ("vendor.github-issue-forms", "type: textarea", "type: text"),
        ],
    )
    def test_a_slip_is_noticed(self, tmp_path, schema, good, bad):
        source = (self.WORKFLOWS if "workflows" in schema else self.FORMS)[0].read_text()
        assert good in source
        slip = tmp_path / "slip.yml"
        slip.write_text(source.replace(good, bad))
        assert schema_problem(schema, slip)
