"""One process per board, whatever happens to the process; in order of arrival."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from espdl_hil.device import claim
from espdl_hil.device.claim import Candidate, Claim, lock_directory
from espdl_hil.errors import BusyError, ConfigError

HOLDER = """
import sys
from espdl_hil.device.claim import Candidate, Claim
lock = Claim([[Candidate.of_port(sys.argv[1])]]).acquire()
print("held", flush=True)
sys.stdin.read()
"""


def at(*ports):
    """A claim of any one of some ports."""
    return Claim([[Candidate.of_port(port) for port in ports]])


def is_free(port):
    try:
        at(port).acquire().release()
    except BusyError:
        return False
    return True


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "runtime"))


def test_a_port_is_taken_once():
    with at("/dev/ttyUSB0").acquire():
        assert not is_free("/dev/ttyUSB0")
        assert is_free("/dev/ttyUSB1")
    assert is_free("/dev/ttyUSB0")


def test_links_and_url_spellings_are_one_port(tmp_path):
    device = tmp_path / "ttyUSB0"
    device.touch()
    link = tmp_path / "by-id"
    link.symlink_to(device)
    with at(str(device)).acquire():
        assert not is_free(str(link))
    with at("rfc2217://Board:4000?ign_set_control").acquire():
        assert not is_free("RFC2217://board:4000/")


def test_a_killed_process_leaves_no_lock():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "/dev/ttyUSB0"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=rf"\(held by pid {holder.pid}, user "):
            at("/dev/ttyUSB0").acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
    at("/dev/ttyUSB0").acquire().release()


def test_releasing_twice_is_harmless():
    lock = at("/dev/ttyUSB0").acquire()
    lock.release()
    with at("/dev/ttyUSB0").acquire() as other:
        lock.release()
        assert other.port == "/dev/ttyUSB0"
        assert not is_free("/dev/ttyUSB0")


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
        at(PORT).acquire()
    for text in (*expected, "hint: remove it, or set ESPDL_HIL_RUNTIME_DIR"):
        assert text in str(caught.value)


@posix_only
def test_only_its_user_can_write_the_folder(shared):
    with at(PORT).acquire():
        for folder in (shared, shared / "ports"):
            assert folder.stat().st_mode & 0o777 == 0o700


@posix_only
@pytest.mark.parametrize("name", [".", "ports"])
def test_a_folder_of_another_kind_is_refused(shared, tmp_path, name):
    folder = shared / name
    folder.mkdir(parents=True, mode=0o700)
    at(PORT).acquire().release()
    folder.chmod(0o777)
    refused(str(folder), "others may write there (mode 777)")
    folder.chmod(0o700)
    at(PORT).acquire().release()
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
@pytest.mark.parametrize("name", ["0000000001.claim", "guard"])
def test_a_planted_link_never_has_a_file_overwritten(tmp_path, name):
    """Planted before the folder was made safe, or in an administrator's folder."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    link = lock_directory() / name
    link.symlink_to(victim)
    if name == "guard":
        refused(str(link))
    else:
        with at(PORT).acquire():
            assert not is_free(PORT)
    assert victim.read_text() == "precious"


def test_a_folder_that_cannot_be_made_is_said(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "file" / "below"))
    refused("port locks cannot be kept in", "Not a directory")


def test_on_a_full_disk_nothing_is_claimed(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    refused("No space left on device")
    monkeypatch.undo()
    assert is_free(PORT)


def test_claims_of_released_and_of_killed_processes_leave_no_file():
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, "/dev/ttyUSB1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with at(PORT).acquire():
            assert len(list(lock_directory().glob("*.claim"))) == 2  # the other's stays
        holder.kill()
        holder.wait(10)
    at(PORT).acquire().release()
    assert [path.name for path in lock_directory().iterdir()] == ["guard"]


def test_many_that_want_one_port_have_it_one_at_a_time(tmp_path):
    """Lock files appear and go while others try for them."""
    code = """
import sys
from espdl_hil.device.claim import Candidate, Claim
for _ in range(15):
    with Claim([[Candidate.of_port("/dev/ttyUSB0")]]).acquire(30):
        with open(sys.argv[1], "x"): pass
        import os; os.unlink(sys.argv[1])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "mine")]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    for process in started:
        assert process.wait(60) == 0, process.stderr.read().decode()
        process.stderr.close()


# -- the queue -----------------------------------------------------------------------

BOARDS = ("/dev/s3-1", "/dev/s3-2", "/dev/s3-3")
JOB = """
import os, sys, time
from espdl_hil.device.claim import Candidate, Claim
log, *ports = sys.argv[1:]
claim = Claim([[Candidate.of_port(port) for port in ports]])
sys.stdin.readline()
claim.acquire(60, lambda text: print(text, file=sys.stderr, flush=True))
busy = os.path.join(log, os.path.basename(claim.port))
open(busy, "x").close()  # fails if the board is shared
print("held", claim.port, flush=True)
sys.stdin.readline()
os.unlink(busy)
claim.release()
"""


@pytest.fixture
def jobs(tmp_path):
    """Starts processes that claim one board each when they are told to."""
    started = []
    (tmp_path / "busy").mkdir()

    def start(count):
        for _ in range(count):
            command = [sys.executable, "-c", JOB, str(tmp_path / "busy"), *BOARDS]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            started.append(subprocess.Popen(command, text=True, **pipes))
        return started

    yield start
    for job in started:
        job.kill()
        job.communicate()


def tell(job):
    job.stdin.write("\n")
    job.stdin.flush()


def wait_for_claims(count):
    end_s = time.monotonic() + 30
    while len(list(lock_directory().glob("*.claim"))) != count:
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_eight_jobs_have_three_boards_in_the_order_in_which_they_came(jobs):
    started = jobs(8)
    for number, job in enumerate(started):
        tell(job)
        wait_for_claims(number + 1)
    for done, job in enumerate(started):
        assert job.stdout.readline().startswith("held /dev/s3-")
        later = started[done + 3 :]
        ready, _, _ = select.select([other.stdout for other in later], [], [], 0.05)
        assert not ready  # nobody has overtaken
        tell(job)
        assert job.wait(10) == 0, job.stderr.read()
    assert "held by pid" in started[3].stderr.read()
    assert re.search(r"waiting for .*, user \S+, since \d+ s, 4 ahead", started[7].stderr.read())


def forked_holder(*, with_child):
    """Process id of a fork that holds PORT, and perhaps has a fork of its own that lives on."""
    ready, told = os.pipe()
    if pid := os.fork():
        os.close(told)
        child = int(os.read(ready, 20))
        os.close(ready)
        return pid, child
    try:
        held = at(PORT).acquire(10)
        child = os.fork() if with_child else os.getpid()
        if child:
            os.write(told, str(child).encode())
        while held:
            time.sleep(60)
    finally:
        os._exit(1)


@posix_only
@pytest.mark.parametrize("with_child", [False, True], ids=["alone", "forked"])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # threads and fork
def test_a_killed_holder_frees_its_board_within_a_second_twenty_times(with_child):
    took_s = []
    for _ in range(20):
        holder, child = forked_holder(with_child=with_child)
        try:
            assert not is_free(PORT)
            killed_s = []

            def kill(holder=holder, killed_s=killed_s):
                killed_s.append(time.monotonic())
                os.kill(holder, signal.SIGKILL)

            threading.Timer(0.03, kill).start()
            at(PORT).acquire(5).release()
            took_s.append(time.monotonic() - killed_s[0])
            os.waitpid(holder, 0)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    assert sorted(took_s)[-3] < 1.0, took_s  # of two, others may have held this host


def test_boards_are_claimed_all_at_once_or_not_at_all():
    """Two jobs that need two boards each cannot hold one each and wait for ever."""
    pair = [[Candidate.of_port(port) for port in BOARDS[:2]]] * 2
    with at(BOARDS[1]).acquire():
        both = Claim(pair)
        with pytest.raises(BusyError, match="/dev/s3-1 or /dev/s3-2 and /dev/s3-1 or /dev/s3-2"):
            both.acquire(0.05)
        assert is_free(BOARDS[0])
    with both.acquire():
        assert {held.label for held in both.held} == set(BOARDS[:2])
        assert not is_free(BOARDS[0])
        assert is_free(BOARDS[2])


def test_who_came_first_is_not_overtaken_while_it_waits_for_more():
    """A board that an earlier claim could use is kept for it; one that it cannot is not."""
    held = at(BOARDS[0]).acquire()
    two = Claim([[Candidate.of_port(port) for port in BOARDS[:2]]] * 2)
    waiting = threading.Thread(target=lambda: two.acquire(10))
    waiting.start()
    wait_for_claims(2)
    assert not is_free(BOARDS[1])
    assert is_free(BOARDS[2])
    held.release()
    waiting.join(10)
    assert len(two.held) == 2
    two.release()


def test_a_board_is_one_by_any_of_its_names():
    by_mac = Candidate("s3-1", frozenset({"/dev/ttyUSB0", "mac:7c:df:a1:00:11:22"}))
    with Claim([[by_mac]]).acquire():
        assert not is_free("/dev/ttyUSB0")
        with pytest.raises(BusyError):
            Claim([[Candidate("other", frozenset({"mac:7c:df:a1:00:11:22"}))]]).acquire()


@pytest.mark.parametrize("text", ["", "null", "[]", '{"pid": "x"}', '{"pid": 1}', "\xff"])
def test_what_no_claim_would_say_counts_for_nothing(text):
    path = lock_directory() / "0000000007.claim"
    path.write_text(text)
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with at(PORT).acquire():
            assert not is_free(PORT)


def test_a_guard_that_a_stopped_process_keeps_is_said(monkeypatch):
    monkeypatch.setattr(claim, "GUARD_S", 0.1)
    at(PORT).acquire().release()
    with (lock_directory() / "guard").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match=r"another process has kept .*guard locked"):
            at(PORT).acquire()
    assert is_free(PORT)


@posix_only
@root_only
def test_users_of_a_host_share_the_administrators_folder(monkeypatch):
    """Each can see that the other's claim is alive, whatever its umask."""
    monkeypatch.delenv("ESPDL_HIL_RUNTIME_DIR")
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        lab = Path(name)
        lab.chmod(0o755)
        (lab / "ports").mkdir()
        (lab / "ports").chmod(0o1777)
        monkeypatch.setattr(claim, "LAB_FOLDER", lab)
        share_with_another_user(lab)


def share_with_another_user(lab):
    before = os.umask(0o077)
    try:
        held = at(PORT).acquire()
    finally:
        os.umask(before)
    code = """
import os, sys
from pathlib import Path
from espdl_hil.device import claim
from espdl_hil.errors import BusyError
os.setgid(12345); os.setuid(12345)  # the checkout may be closed to others
claim.LAB_FOLDER = Path(sys.argv[1])
board = claim.Candidate.of_port("/dev/ttyUSB0")
try:
    claim.Claim([[board]]).acquire()
except BusyError as error:
    print(error, flush=True)  # a pipe: read before the end
claim.Claim([[board]]).acquire(10)
print("held")
"""
    command = [sys.executable, "-c", code, str(lab)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "LOGNAME": "x"}
    ) as other:
        assert f"held by pid {os.getpid()}, user " in other.stdout.readline()
        other.stdout.readline()
        held.release()
        assert other.stdout.readline() == "held\n"
        other.wait(10)
