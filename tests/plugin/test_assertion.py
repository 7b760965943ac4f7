"""A failed comparison explains itself: in pytest's own words, in the row, and as a section."""

import json

import pytest

SIM = ("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
BEGIN = """
from espdl_hil.simulator import faults

"""
DROPPED = (
    BEGIN
    + """
def test_streams(hil):
    hil.devkit.inject(faults.StateDropped(step=2))
    assert hil.stream() == hil.offline()
"""
)


@pytest.mark.parametrize("mode", ["rewrite", "plain"])
@pytest.mark.parametrize(
    "processes",
    [(), pytest.param(("-n1",), marks=pytest.mark.slow)],
    ids=["alone", "worker"],
)
def test_the_diagnosis_is_printed_whole_and_once(project, mode, processes):
    project.write("test_mine.py", DROPPED)
    run = project.pytest(*SIM, f"--assert={mode}", *processes)
    assert run.returncode == 1
    for line in (
        "esp32s3-mine-int8-chunk3: the stream differs from the offline run\n",
        "state dropped",
        "\nnext      ",
        "\nreplay    espdl-hil replay hil-report/repro/esp32s3-mine-int8-chunk3.zip\n",
    ):
        assert line in run.stdout, run.stdout
    assert run.stdout.count("\nnext      ") == 1
    assert "truncated" not in run.stdout
    if mode == "rewrite":
        assert "E       assert esp32s3-mine-int8-chunk3: the stream differs" in (run.stdout)
    (row,) = json.loads((project.folder / "hil-report" / "results.json").read_text())["rows"]
    assert row["outcome"] == "failed"
    assert row["diagnosis"]["cause"] == "state dropped"
    assert row["checks"]["streaming"]["differing"] > 0


def test_a_control_that_notices_nothing_says_what_was_equal(project):
    project.write(
        "test_mine.py",
        "def test_streams(hil):\n    assert hil.stream(after=1) != hil.offline()\n",
    )
    run = project.pytest(*SIM)
    assert run.returncode == 1
    assert "E       assert all that was compared is equal: " in run.stdout
    assert "replay " not in run.stdout


def test_verify_shows_no_traceback(project):
    project.write(
        "test_mine.py", DROPPED.replace("assert hil.stream() == hil.offline()", "hil.verify()")
    )
    run = project.pytest(*SIM)
    assert run.returncode == 1
    assert "def test_streams" not in run.stdout
    assert run.stdout.count("\nnext      ") == 1


def test_other_assertions_are_pytests_own(project):
    project.write(
        "test_mine.py",
        "def test_streams(hil):\n    hil.verify()\n    assert [hil.case.bits] == [16]\n",
    )
    run = project.pytest(*SIM)
    assert "E       assert [8] == [16]" in run.stdout
    assert "At index 0 diff: 8 != 16" in run.stdout
    (row,) = json.loads((project.folder / "hil-report" / "results.json").read_text())["rows"]
    assert row["outcome"] == "failed"
    assert row["diagnosis"] is None


@pytest.mark.parametrize(
    ("body", "outcome", "error"),
    [
        ("raise AssertionError", "failed", "AssertionError"),
        ("raise KeyError", "error", "KeyError"),
        ("raise KeyError('y')", "error", "'y'"),
    ],
)
def test_a_row_says_why_even_where_an_exception_does_not(project, body, outcome, error):
    project.write("test_mine.py", f"def test_streams(hil):\n    {body}\n")
    run = project.pytest(*SIM)
    assert run.returncode == 1, run.stdout + run.stderr
    (row,) = json.loads((project.folder / "hil-report" / "results.json").read_text())["rows"]
    assert (row["outcome"], row["details"]["error"]) == (outcome, error)
