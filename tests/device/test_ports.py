"""Finding the board, without a board."""

from __future__ import annotations

import contextlib
import threading
import time
from types import SimpleNamespace

import pytest
from esptool.util import FatalError

from espdl_hil.device import rfc2217_handler
from espdl_hil.device.claim import Candidate, Claim
from espdl_hil.device.ports import find_port, list_usb_ports, probe_chip
from espdl_hil.errors import BusyError, ConfigError


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path))


def port(device, vid=0x10C4, pid=0xEA60, description="CP2102N", serial_number="1"):
    return SimpleNamespace(
        device=device, vid=vid, pid=pid, description=description, serial_number=serial_number
    )


S3_JTAG = port("/dev/ttyACM0", 0x303A, 0x1001, "USB JTAG/serial debug unit")
ON_BOARD = port("/dev/ttyS0", None, None, "ttyS0")


def take(device):
    return Claim([[Candidate.of_port(device)]]).acquire()


def answers(chips):
    def probe(device, deadline_s):
        answer = chips[device]
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return probe


def find(target, ports, chips, asked=None, **options):
    return find_port(target, asked, comports=lambda: ports, probe=answers(chips), **options)


def test_espressif_ports_come_first():
    ports = [port("/dev/ttyUSB0"), S3_JTAG]
    assert [found.device for found in list_usb_ports(lambda: ports)] == [
        "/dev/ttyACM0",
        "/dev/ttyUSB0",
    ]


def test_the_chip_decides():
    ports = [S3_JTAG, port("/dev/ttyUSB0"), port("/dev/ttyUSB1")]
    chips = {"/dev/ttyACM0": "esp32s3", "/dev/ttyUSB0": "esp32", "/dev/ttyUSB1": "esp32p4"}
    with find("esp32p4", ports, chips) as lock:
        assert lock.port == "/dev/ttyUSB1"


def test_the_first_of_several_boards_is_taken_and_the_others_are_free_again():
    ports = [port("/dev/ttyUSB1"), port("/dev/ttyUSB0")]
    chips = {"/dev/ttyUSB0": "esp32s3", "/dev/ttyUSB1": "esp32s3"}
    with find("esp32s3", ports, chips) as lock:
        assert lock.port == "/dev/ttyUSB0"
        with find("esp32s3", ports, chips) as second:
            assert second.port == "/dev/ttyUSB1"


def test_a_named_port_is_taken_without_a_look():
    with find("esp32s3", [], {}, asked="/dev/ttyUSB7") as lock:
        assert lock.port == "/dev/ttyUSB7"


def test_a_pattern_limits_the_search():
    ports = [port("/dev/ttyUSB0"), S3_JTAG]
    chips = {"/dev/ttyACM0": "esp32s3", "/dev/ttyUSB0": "esp32s3"}
    with find("esp32s3", ports, chips, asked="/dev/ttyUSB*") as lock:
        assert lock.port == "/dev/ttyUSB0"


def test_no_port_at_all_is_told_at_once_and_whole():
    started = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        find("esp32s3", [], {})
    assert time.monotonic() - started < 3
    text = str(caught.value)
    assert text.startswith("no ESP32-S3 port was found\n  looked for: ")
    assert "Espressif USB (303A)" in text
    assert "seen: no serial port at all" in text
    assert "pytest --target esp32s3 --hil-device sim" in text


def test_every_port_that_was_seen_is_told():
    ports = [ON_BOARD, S3_JTAG, port("/dev/ttyUSB0"), port("/dev/ttyUSB1"), port("/dev/ttyUSB2")]
    chips = {
        "/dev/ttyACM0": "esp32s3",
        "/dev/ttyUSB0": RuntimeError("Failed to connect: no serial data\nsee the guide"),
        "/dev/ttyUSB1": OSError("[Errno 13] could not open port: Permission denied"),
        "/dev/ttyUSB2": OSError("Could not exclusively lock port: resource busy"),
    }
    with pytest.raises(ConfigError) as caught:
        find("esp32p4", ports, chips)
    lines = str(caught.value).splitlines()
    assert lines[0] == "no ESP32-P4 port was found"
    assert lines[2:-1] == [
        "  seen: /dev/ttyACM0 (303A:1001 USB JTAG/serial debug unit): ESP32-S3",
        "  seen: /dev/ttyS0 (no USB id): not examined, it is none of these",
        "  seen: /dev/ttyUSB0 (10C4:EA60 CP2102N): no answer (Failed to connect: no serial data)",
        "  seen: /dev/ttyUSB1 (10C4:EA60 CP2102N): permission denied; "
        "add yourself to the group dialout (or uucp) and log in again",
        "  seen: /dev/ttyUSB2 (10C4:EA60 CP2102N): busy, another program has it open",
    ]


def test_a_port_that_hangs_does_not_hang_the_search():
    answered = threading.Event()

    def probe(device, deadline_s):
        assert answered.wait(30)
        return "esp32s3"

    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"no answer within 0\.2 s"):
        find_port("esp32s3", comports=lambda: [S3_JTAG], probe=probe, deadline_s=0.2)
    assert time.monotonic() - started < 20
    answered.set()
    # The late answer must not keep the port.
    Claim([[Candidate.of_port("/dev/ttyACM0")]]).acquire(20).release()


def test_a_port_in_use_by_another_session_is_named():
    with (
        take("/dev/ttyACM0"),
        pytest.raises(BusyError, match=r"in use by another process of this harness \(held by pid"),
    ):
        find("esp32s3", [S3_JTAG], {"/dev/ttyACM0": "esp32s3"}, deadline_s=0.1, wait_s=0.1)


def test_one_port_is_held_at_a_time_and_none_is_looked_at_once_the_board_is_found():
    """USB bridges behind the board that was found are not reset: others may be at work there."""
    ports = [port(f"/dev/ttyUSB{number}") for number in range(4)]
    looked_at = []

    def probe(device, deadline_s):
        others = [found.device for found in ports if found.device != device]
        for other in others:
            take(other).release()  # every other port is free meanwhile
        looked_at.append(device)
        return "esp32s3" if device == "/dev/ttyUSB1" else "esp32p4"

    with find_port("esp32s3", comports=lambda: ports, probe=probe) as claim:
        assert claim.port == "/dev/ttyUSB1"
    assert looked_at == ["/dev/ttyUSB0", "/dev/ttyUSB1"]


def test_three_jobs_on_eight_ports_with_one_silent_get_a_board_each():
    """Started 0.3 s apart; a search that held all its candidates would leave two without one."""
    ports = [port(f"/dev/ttyUSB{number}") for number in range(8)]
    found, errors = [], []

    def probe(device, deadline_s):
        if device == "/dev/ttyUSB0":
            time.sleep(deadline_s + 0.2)
        time.sleep(0.05)
        return "esp32s3"

    def job():
        try:
            found.append(find_port("esp32s3", comports=lambda: ports, probe=probe, deadline_s=1.0))
        except ConfigError as error:
            errors.append(error)

    jobs = [threading.Thread(target=job) for _ in range(3)]
    for thread in jobs:
        thread.start()
        time.sleep(0.3)
    for thread in jobs:
        thread.join(10)
    assert errors == []
    assert len({claim.port for claim in found} - {"/dev/ttyUSB0"}) == 3
    for claim in found:
        claim.release()


def test_a_port_that_another_only_looks_at_is_waited_for():
    held = take("/dev/ttyACM0")
    threading.Timer(0.3, held.release).start()
    told = []
    with find("esp32s3", [S3_JTAG], {"/dev/ttyACM0": "esp32s3"}, on_wait=told.append) as claim:
        assert claim.port == "/dev/ttyACM0"
    assert told[0].startswith("waiting for /dev/ttyACM0: held by pid")


def test_an_unknown_target_has_no_board():
    with pytest.raises(ConfigError, match="there is no board of target 'c'"):
        find_port("c")


def test_the_probe_names_the_chip(devkit):
    rfc2217_handler.register()
    assert probe_chip(rfc2217_handler.event_url(devkit.url), 3.5) == "esp32s3"


def test_the_probe_gives_up_on_what_is_no_chip(loopback, start_server):
    server = start_server(loopback.serve)
    started = time.monotonic()
    with pytest.raises(FatalError, match="Failed to connect"):
        probe_chip(server.url, 1.5)
    assert time.monotonic() - started < 5


def test_this_machine_is_searched_in_time():
    started = time.monotonic()
    with contextlib.suppress(ConfigError):  # there may be a board
        find_port("esp32p4").release()
    assert time.monotonic() - started < 5
