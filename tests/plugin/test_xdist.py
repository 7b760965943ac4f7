"""pytest-xdist: one table, one results.json, one page; the rows are those of one process."""

import json

import pytest

from espdl_hil.report import validate_results

SIM = ("--hil-models=mine.py", "--hil-device=sim")
TEST = """
import pytest

def test_streaming(hil):
    assert hil.stream() == hil.offline()

def test_interpreter(hil):
    assert hil.stream() == hil.interpreted()

def test_reference(hil):
    assert hil.offline() == hil.reference()

def test_accuracy(hil):
    assert hil.accuracy()

def test_fails_on_one(hil):
    assert hil.case.target != "esp32p4"
"""


@pytest.fixture
def project(project):
    project.write("test_mine.py", TEST)
    return project


def rows(project, *arguments):
    """Run, and return the rows without what differs from one boot or clock to the next."""
    run = project.pytest(*SIM, *arguments)
    assert run.returncode == 1, run.stdout + run.stderr
    content = json.loads((project.folder / "hil-report" / "results.json").read_text())
    validate_results(content)
    return run, content


def test_the_rows_are_those_of_one_process(project):
    _, alone = rows(project)
    assert [row["outcome"] for row in alone["rows"]] == ["passed", "failed"]
    assert all(check is not None for row in alone["rows"] for check in row["checks"].values())
    for arguments in (("-n2", "--dist=loadfile"), ("-n4",)):
        run, several = rows(project, *arguments)
        assert several["rows"] == alone["rows"], arguments
        assert several["command"] == " ".join(["pytest", *project.command(*SIM, *arguments)[3:]])
        for line in (
            "hil: 2 cases on SIMULATED devkits (esp32s3, esp32p4)",
            "2 rows: 1 passed, 1 failed",
            "Simulated devkits prove export",
            "report: hil-report/report.html  data: hil-report/results.json",
        ):
            assert run.stdout.count(line) == 1, (arguments, line, run.stdout)
        assert sorted(path.name for path in (project.folder / "hil-report").iterdir()) == [
            "logs",
            "report.html",
            "results.json",
        ]


@pytest.mark.slow
def test_what_could_not_be_compared_is_an_error_there_too(project):
    project.write("mine.py", (project.folder / "mine.py").read_text().replace("4, 12", "5, 12"))
    run, content = rows(project, "-n2", "-k", "esp32s3 and streaming")
    assert "1 error" in run.stdout.splitlines()[-1]
    assert "failed" not in run.stdout.splitlines()[-1]
    assert [row["outcome"] for row in content["rows"]] == ["error"]


def test_rows_that_came_home_outlive_their_worker(project):
    project.write(
        "test_mine.py",
        """
        import os
        def test_1(hil):
            assert hil.stream() == hil.offline()
        def test_2(hil):
            if hil.case.target == "esp32p4":
                os._exit(9)
        """,
    )
    run, content = rows(project, "-n1", "--max-worker-restart=0")
    assert "crashed while running" in run.stdout
    first, second = content["rows"]
    assert (first["target"], first["outcome"]) == ("esp32s3", "passed")
    assert (second["target"], second["outcome"]) == ("esp32p4", "error")
    assert second["checks"]["streaming"]["compared"] == 48
    assert "crashed while running" in second["details"]["error"]


def test_an_earlier_report_does_not_outlive_the_start(project):
    folder = project.folder / "hil-report"
    for name in ("results.json", "report.html", "repro/old.zip", "logs/old.log"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old")
    project.write("test_mine.py", "import os\ndef test_1(hil): os._exit(9)\n")
    project.pytest(*SIM, "-n1", "--max-worker-restart=0", "-k", "esp32s3")
    assert not (folder / "repro" / "old.zip").exists()
    assert not (folder / "logs" / "old.log").exists()
    (row,) = json.loads((folder / "results.json").read_text())["rows"]
    assert row["outcome"] == "error"


def test_a_report_is_left_alone_by_tests_that_use_no_device(project):
    (project.folder / "hil-report").mkdir()
    project.write("hil-report/results.json", "old")
    project.write("test_mine.py", "def test_nothing(): pass\n")
    assert project.pytest(*SIM, "-n1").returncode == 0
    assert (project.folder / "hil-report" / "results.json").read_text() == "old"
