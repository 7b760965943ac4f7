"""One process per port, whatever happens to the process."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from espdl_hil.device.port_lock import PortLock, lock_directory
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


PORT = "/dev/ttyUSB0"
OTHER_USER = 12345
root_only = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives a folder to another user"
)
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="modes and links of POSIX")


@pytest.fixture
def shared(tmp_path, monkeypatch):
    """Where locks go when the system gives this user no runtime directory; not made yet."""
    for name in ("ESPDL_HIL_RUNTIME_DIR", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    if Path(f"/run/user/{os.getuid()}").is_dir():
        pytest.skip("this user has a runtime directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return lock_directory_below(tmp_path / "espdl-hil")


def lock_directory_below(cache):
    return cache / f"run-{platform.node()}"


def refused(*expected):
    with pytest.raises(ConfigError) as caught:
        PortLock(PORT).acquire()
    for text in (*expected, "hint: remove it, or set ESPDL_HIL_RUNTIME_DIR"):
        assert text in str(caught.value)


@posix_only
def test_only_its_user_can_write_the_folder(shared):
    with PortLock(PORT).acquire():
        for folder in (shared, shared / "ports"):
            assert folder.stat().st_mode & 0o777 == 0o700


@posix_only
@pytest.mark.parametrize("name", [".", "ports"])
def test_a_folder_of_another_kind_is_refused(shared, tmp_path, name):
    folder = shared / name
    folder.mkdir(parents=True, mode=0o700)
    PortLock(PORT).acquire().release()
    folder.chmod(0o777)
    refused(str(folder), "others may write there (mode 777)")
    folder.chmod(0o700)
    PortLock(PORT).acquire().release()
    folder.rename(tmp_path / "elsewhere")
    folder.symlink_to(tmp_path / "elsewhere")
    refused(str(folder), "it is a link")
    folder.unlink()
    folder.write_text("")
    refused(str(folder), "File exists")


@posix_only
@root_only
@pytest.mark.parametrize("name", [".", "ports"])
def test_a_folder_that_another_user_made_is_refused(shared, name):
    (shared / name).mkdir(parents=True, mode=0o700)
    os.chown(shared / name, OTHER_USER, OTHER_USER)
    refused(str(shared / name), f"it belongs to user {OTHER_USER}")
    assert not list(shared.rglob("*.lock"))


@posix_only
@root_only
def test_a_user_takes_the_administrators_folder_when_it_is_named(tmp_path, monkeypatch):
    ports = tmp_path / "lab" / "ports"
    ports.mkdir(parents=True)
    ports.chmod(0o1777)
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "lab"))
    monkeypatch.setattr(os, "getuid", lambda: OTHER_USER)
    assert lock_directory() == ports
    os.chown(ports, OTHER_USER + 1, 0)
    refused(str(ports), f"it belongs to user {OTHER_USER + 1}")


@posix_only
@pytest.mark.parametrize("suffix", ["lock", "owner"])
def test_a_planted_link_never_has_a_file_overwritten(tmp_path, suffix):
    """Planted before the folder was made safe, or in an administrator's folder."""
    with PortLock(PORT).acquire():
        (name,) = (path.stem for path in lock_directory().glob("*.lock"))
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link = lock_directory() / f"{name}.{suffix}"
    link.symlink_to(victim)
    if suffix == "lock":
        refused(str(link))
    else:
        with PortLock(PORT).acquire() as lock:
            assert lock.owner() == f"pid {os.getpid()}"
    assert victim.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "file" / "below"))
    refused("port locks cannot be kept in", "Not a directory")


def test_a_full_disk_costs_the_owners_name_and_not_the_lock(monkeypatch):
    def full(*_, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with PortLock(PORT).acquire() as lock:
        assert lock.owner() == "pid unknown"
        assert not PortLock(PORT).try_acquire()


def test_locks_of_released_and_of_killed_processes_leave_no_file():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "/dev/ttyUSB1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with PortLock(PORT).acquire():
            assert len(list(lock_directory().glob("*.lock"))) == 2  # the other's stays
        holder.kill()
        holder.wait(10)
    PortLock(PORT).acquire().release()
    assert [path.name for path in lock_directory().iterdir()] == ["guard"]


def test_many_that_want_one_port_have_it_one_at_a_time(tmp_path):
    """Lock files appear and go while others try for them."""
    code = """
import sys
from espdl_hil.device.port_lock import PortLock
for _ in range(60):
    with PortLock("/dev/ttyUSB0").acquire(30):
        with open(sys.argv[1], "x"): pass
        import os; os.unlink(sys.argv[1])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "mine")]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for process in started:
        assert process.wait(60) == 0, process.stderr.read().decode()
        process.stderr.close()
