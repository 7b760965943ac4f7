"""Stock esptool over stock pyserial against `espdl-hil simulate`.

pyserial's own client waits 50 ms for every acknowledgement, so a command takes
about twenty seconds; the quick tests of the loader use a port handler that
does not.
"""

from __future__ import annotations

import random
import subprocess
import sys

import pytest

from espdl_hil.targets import DEVKIT_TARGETS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=DEVKIT_TARGETS)
def run(request):
    served = subprocess.Popen(
        [sys.executable, "-m", "espdl_hil", "simulate", "--target", request.param],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    url = served.stdout.readline().strip()

    def run_esptool(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", "esptool", "--port", url, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run_esptool
    served.communicate(timeout=10)
    assert served.returncode == 0


def test_every_command(run, tmp_path):
    file, copy = tmp_path / "file.bin", tmp_path / "copy.bin"
    file.write_bytes(random.Random(5).randbytes(40_000))
    assert "Detected flash size: 16MB" in run("flash-id")
    written = run("--baud", "921600", "write-flash", "0x100000", file)
    assert "Hash of data verified." in written
    assert "Verification successful" in run("verify-flash", "0x100000", file)
    run("read-flash", "0x100000", "40000", copy)
    assert copy.read_bytes() == file.read_bytes()
    assert "Flash memory erased successfully" in run("erase-flash")
    run("read-flash", "0x100000", "4096", copy)
    assert copy.read_bytes() == b"\xff" * 4096
    assert "Hash of data verified." in run("--no-stub", "write-flash", "0x200000", file)
