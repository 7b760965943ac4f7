"""Faults of port and firmware: mended where possible, an error where not, never a failure."""

import json
import textwrap
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]

SETUP = """
import time
import pytest
from espdl_hil.simulator import faults

def observe(hil, *injected):
    hil.devkit.clear()
    for fault in injected:
        hil.devkit.inject(fault)
    hil.forget()
    hil.stream(), hil.offline()
"""


def run(project, body, *arguments, models="mine.py"):
    project.write("test_mine.py", SETUP + textwrap.dedent(body))
    options = (f"--hil-models={models}", "--target=esp32s3", "--hil-device=sim")
    result = project.pytest(*options, *arguments)
    report = json.loads((project.folder / "hil-report" / "results.json").read_text())
    return result, report["rows"]


def test_a_crash_is_mended_once_and_said(project):
    result, (row,) = run(
        project,
        """
        def test_panic(hil):
            observe(hil, faults.Panic(after_bytes=600))
            hil.verify()
        """,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert row["outcome"] == "passed"
    assert "recovery of esp32s3: " in result.stdout
    log = project.folder / "hil-report" / "logs" / "esp32s3.log"
    assert b"Guru Meditation" in log.read_bytes()


def test_damaged_bytes_are_sent_again(project):
    result, (row,) = run(
        project,
        """
        def test_noise(hil):
            observe(hil, faults.CorruptBytes(rate=0.0005, seed=1))
            hil.devkit.clear()
            hil.verify()
        """,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert row["outcome"] == "passed"


def test_a_port_that_goes_silent_is_an_error_and_no_hang(project):
    result, (row,) = run(
        project,
        """
        def test_silence(hil):
            observe(hil, faults.SilentPort(after_bytes=500))
            hil.verify()

        def test_afterwards(hil):
            hil.verify()
        """,
        "--hil-timeout-scale=0.2",
    )
    assert result.returncode == 1
    assert "2 errors" in result.stdout, result.stdout
    assert "failed" not in result.stdout.splitlines()[-1]
    assert "Traceback" not in result.stdout
    assert "not tried again, it did not come up" in result.stdout
    assert row["outcome"] == "error"
    assert not any(row["checks"].values())


def test_the_tutorials_verdict_takes_under_300_ms(project):
    """Offline and streaming run of the TCN on a running session, judged."""
    result, rows = run(
        project,
        """
        def test_speed(hil):
            hil.verify()
            took_s = []
            for _ in range(3):
                start_s = time.monotonic()
                hil.forget()
                assert hil.stream() == hil.offline()
                took_s.append(time.monotonic() - start_s)
            assert min(took_s) < 0.3, took_s
        """,
        "-k",
        "chunk3",
        models=REPOSITORY / "models" / "tcn.py",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert {row["chunks"] for row in rows} == {8}
