"""Kills at random moments of every phase; the next run is green and clears what is left.

The moments are seeded, so a failure can be had again: ``HIL_KILLS=200 HIL_KILL_SEED=1``.
"""

import os
import random
import signal
import subprocess
import sys
import time
import uuid

import pytest

from .test_killed import MARK, processes, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

SIM = ("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
GONE_S = 1.0
PHASES = ("flash", "report", "collect", "start", "quantize", "stream")
SMALL, LONG = 3, int(os.environ.get("HIL_KILLS", "200"))
# Says where the run is; a kill comes a random time after that.
CONFTEST = """
import os, pathlib, time
import pytest
from espdl_hil.proof.rig import Rig
from espdl_hil.plugin import summary

def at(phase):
    pathlib.Path("phase").open("a").write(phase + "\\n")

def before(owner, name, phase):
    plain = getattr(owner, name)
    def told(*arguments, **options):
        at(phase)
        return plain(*arguments, **options)
    setattr(owner, name, told)

at("start")
before(Rig, "prepare", "quantize")
before(Rig, "bring_up", "flash")
before(summary, "write_report", "report")

@pytest.hookimpl(tryfirst=True)
def pytest_collection(session):
    at("collect")

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item):
    at("stream")
"""
LASTS_S = {"start": 1, "collect": 1, "quantize": 12, "flash": 2, "stream": 0.5, "report": 0.02}


@pytest.fixture
def killed(project, tmp_path):
    """Kills one run in a phase and looks at what is left at once and after the next run."""
    temporary, runtime = tmp_path / "temporary", tmp_path / "runtime"
    for folder in (temporary, runtime):
        folder.mkdir(mode=0o700)
    places = {"TMPDIR": str(temporary), "ESPDL_HIL_RUNTIME_DIR": str(runtime)}
    project.environment.update(places)
    warm = tmp_path / "store"  # of this test alone: nobody else works in it

    def kill(phase, after_s):
        cold = phase == "quantize"
        project.store = tmp_path / f"store-{uuid.uuid4().hex}" if cold else warm
        project.write("conftest.py", CONFTEST)
        told = project.folder / "phase"
        told.unlink(missing_ok=True)
        mark = uuid.uuid4().hex
        with (project.folder / "output.txt").open("w") as output:
            run = subprocess.Popen(
                project.command(*SIM),
                cwd=project.folder,
                env={**os.environ, **places, MARK: mark},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            seen = wait_until(lambda: told.exists() and phase in told.read_text(), 120)
            assert seen, (project.folder / "output.txt").read_text()
            time.sleep(after_s)
        finally:
            run.send_signal(signal.SIGKILL)
            run.wait()
        assert wait_until(lambda: not processes(mark), GONE_S), processes(mark)
        # a report is of one run, or it is none
        report = project.folder / "hil-report"
        if (report / "results.json").exists():
            assert (report / "report.html").exists()
        (project.folder / "conftest.py").unlink()
        again = project.pytest(*SIM)
        assert again.returncode == 0, again.stdout + again.stderr
        assert list(temporary.iterdir()) == []
        assert [path.name for path in (runtime / "ports").iterdir()] == ["guard"]
        assert sorted(path.name for path in report.iterdir()) == [
            "logs",
            "report.html",
            "results.json",
        ]
        assert not any((project.store / "work").glob("*"))

    return kill


@pytest.mark.parametrize(
    "count", [SMALL, pytest.param(LONG, marks=pytest.mark.slow)], ids=["small", "long"]
)
def test_kills_at_random_moments_leave_nothing(killed, count, capsys):
    moments = random.Random(int(os.environ.get("HIL_KILL_SEED", "0")))
    for index in range(count):
        phase = PHASES[index % len(PHASES)]
        after_s = moments.uniform(0, LASTS_S[phase])
        killed(phase, after_s)
        if count > SMALL:
            with capsys.disabled():
                print(f"kill {index + 1} of {count}: {phase} + {after_s:.3f} s", flush=True)
