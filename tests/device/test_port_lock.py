"""One process per port, whatever happens to the process."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from espdl_hil.device.port_lock import PortLock
from espdl_hil.errors import ConfigError

HOLDER = """
import sys
from espdl_hil.device.port_lock import PortLock
lock = PortLock(sys.argv[1]).acquire()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "runtime"))


def test_a_port_is_taken_once():
    with PortLock("/dev/ttyUSB0").acquire():
        assert not PortLock("/dev/ttyUSB0").try_acquire()
        assert PortLock("/dev/ttyUSB1").try_acquire()
    assert PortLock("/dev/ttyUSB0").try_acquire()


def test_links_and_url_spellings_are_one_port(tmp_path):
    device = tmp_path / "ttyUSB0"
    device.touch()
    link = tmp_path / "by-id"
    link.symlink_to(device)
    with PortLock(str(device)).acquire():
        assert not PortLock(str(link)).try_acquire()
    with PortLock("rfc2217://Board:4000?ign_set_control").acquire():
        assert not PortLock("RFC2217://board:4000/").try_acquire()


def test_a_killed_process_leaves_no_lock():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "/dev/ttyUSB0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"\(pid {holder.pid}\)"):
            PortLock("/dev/ttyUSB0").acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    PortLock("/dev/ttyUSB0").acquire().release()


def test_releasing_twice_is_harmless():
    lock = PortLock("/dev/ttyUSB0").acquire()
    lock.release()
    with PortLock("/dev/ttyUSB0").acquire() as other:
        lock.release()
        assert other.owner().startswith("pid ")
        assert not PortLock("/dev/ttyUSB0").try_acquire()
