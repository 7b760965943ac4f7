"""A killed pytest leaves no process, port or lock behind, and the next run is green."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")

MARK = "HARNESS_TEST_MARK"
GONE_S = 5.0
READY_S = 90.0


def processes(mark):
    """Command lines of the processes that carry *mark* in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if (
                entry.name.isdigit()
                and f"{MARK}={mark}".encode() in (entry / "environ").read_bytes()
            ):
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def wait_until(condition, timeout_s):
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        if condition():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def start(project):
    """Starts a pytest whose processes can be found again; kills what is left of it."""
    mark = uuid.uuid4().hex
    started = []

    def run(*arguments):
        with (project.folder / "output.txt").open("w") as output:
            process = subprocess.Popen(
                project.command("-s", *arguments),
                cwd=project.folder,
                env={**os.environ, MARK: mark},
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        started.append(process)
        return process, mark

    yield run
    for process in started:
        process.kill()
        process.wait()


def assert_clean_and_green(project, process, mark, count):
    """Kill a pytest of *count* processes or more."""
    assert len(processes(mark)) >= count, processes(mark)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_until(lambda: not processes(mark), GONE_S), processes(mark)
    project.write("test_mine.py", "def test_streams(hil):\n    hil.verify()\n")
    run = project.pytest("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
    assert run.returncode == 0, run.stdout + run.stderr


def test_killed_while_quantizing(project, tmp_path, start):
    project.store = tmp_path / "cold-store"
    process, mark = start("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
    assert wait_until(lambda: any("quantize" in line for line in processes(mark)), READY_S)
    assert_clean_and_green(project, process, mark, count=2)


@pytest.mark.parametrize(
    ("before", "count"),
    [("", 1), pytest.param("def test_other(): pass", 2, marks=pytest.mark.slow)],
    ids=["alone", "beside a test for which pytest-embedded forks its queue manager"],
)
def test_killed_while_streaming(project, start, before, count):
    project.write(
        "test_mine.py",
        f"""
        import time
        {before}
        def test_streams(hil):
            print("PORT", hil.dut.info.port, flush=True)
            time.sleep(120)
        """,
    )
    process, mark = start("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
    output = project.folder / "output.txt"
    assert wait_until(lambda: "PORT" in output.read_text(), READY_S), output.read_text()
    port = int(output.read_text().split("PORT ")[1].split()[0].rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)):
        pass  # it is open while the run lives
    assert_clean_and_green(project, process, mark, count)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
