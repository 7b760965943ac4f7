"""Boards are claimed and asked who they are before anything is written to them."""

import os
import re
import time
from pathlib import Path

import pytest

from espdl_hil.device import ports as ports_module
from espdl_hil.device.bench import BenchBoard, Quarantine
from espdl_hil.device.claim import Claim
from espdl_hil.device.ports import UsbPort
from espdl_hil.device.rfc2217_handler import event_url, register
from espdl_hil.device.service_record import note_recovery, read_record
from espdl_hil.errors import BusyError, ConfigError, DeviceError
from espdl_hil.formats.esp_image import AppDescription, build_image
from espdl_hil.formats.partition_table import APP, FACTORY, Partition, build_table
from espdl_hil.proof.boards import Boards, identify
from espdl_hil.proof.settings import Settings
from espdl_hil.simulator import Devkit

MAC, OTHER_MAC = "7c:df:a1:00:11:22", "7c:df:a1:00:11:33"
NOBODY = 65534
CLOSED = "rfc2217://127.0.0.1:1"


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "locks"))


@pytest.fixture(scope="module")
def devkit():
    with Devkit("esp32s3", mac=MAC) as devkit:
        yield devkit


@pytest.fixture
def choose():
    """Chooses a board for the S3 as a run would; gives everything back at the end."""
    chosen = []

    def run(*boards, **options):
        told = []
        settings = Settings(device="serial", boards=boards, **options)
        chosen.append(Boards(settings, None, told.append))
        chosen[-1].choose(["esp32s3"])
        return chosen[-1], told

    yield run
    for boards in chosen:
        boards.release()


def board(port, name="s3-1", **options):
    return BenchBoard(name, "esp32s3", port, bench="bench.toml", **options)


def test_a_board_that_is_the_one_is_kept(choose, devkit):
    boards, told = choose(board(devkit.url, mac=MAC, min_revision=2, max_revision=2))
    assert boards.chosen["esp32s3"].port == devkit.url
    assert told == []
    with pytest.raises(BusyError, match=r"s3-1 is in use by another process .*held by pid"):
        choose(board(devkit.url, mac=MAC), wait_s=0.0)
    boards.release()
    choose(board(devkit.url, mac=MAC), wait_s=0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mac": OTHER_MAC}, rf"\(s3-1\) has the MAC {MAC}, the bench file says {OTHER_MAC}"),
        (
            {"min_revision": 100, "max_revision": 199},
            r"has revision 0\.2, the bench file says 1\.0 to 1\.99; nothing was written",
        ),
    ],
)
def test_another_board_than_the_bench_says_is_refused_before_any_write(
    choose, devkit, options, message
):
    before = devkit.flash.read(0, 1 << 16)
    with pytest.raises(ConfigError, match=message):
        choose(board(devkit.url, **options))
    assert devkit.flash.read(0, 1 << 16) == before
    choose(board(devkit.url))  # once the bench file is right


def test_a_silent_board_is_put_out_and_the_next_one_taken(choose, devkit):
    silent = board(CLOSED, "s3-0")
    boards, told = choose(silent, board(devkit.url))
    assert boards.chosen["esp32s3"].name == "s3-1"
    assert re.match(r"s3-0 is out of service: .*no ESP32-S3 answers", told[0])
    boards.release()
    started_s = time.monotonic()
    _, told = choose(silent, board(devkit.url))  # it costs its time once
    assert told == []
    assert time.monotonic() - started_s < 5
    with pytest.raises(BusyError, match="s3-0 is out of service: it did not come back"):
        choose(silent)


def test_the_only_board_that_is_silent_is_a_devices_error(choose, devkit):
    with pytest.raises(DeviceError, match="no ESP32-S3 answers"):
        choose(board(CLOSED))
    choose(board(devkit.url))  # it has kept no claim


@pytest.mark.parametrize(
    ("reason", "kind", "message"),
    [
        ("[Errno 13] could not open port: Permission denied", ConfigError, "add yourself to"),
        ("Could not exclusively lock port: resource busy", BusyError, "another program has it"),
    ],
)
def test_a_port_that_this_user_cannot_open_says_nothing_of_the_board(
    choose, devkit, monkeypatch, reason, kind, message
):
    def fail(*_, **_options):
        raise OSError(reason)

    shut = board(devkit.url, "s3-0")
    monkeypatch.setattr(ports_module, "identify_chip", fail)
    with pytest.raises(kind, match=message):
        choose(shut, board(CLOSED))
    assert read_record(shut.identity).out == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="takes a right away from itself, as root alone may")
def test_a_device_file_without_permission(choose, devkit):
    main, side = os.openpty()
    path = os.ttyname(side)
    Path(path).chmod(0)
    identify(devkit.url, "esp32s3")  # imports what another user may not read
    os.seteuid(NOBODY)
    try:
        with pytest.raises(ConfigError) as caught:
            identify(path, "esp32s3")
    finally:
        os.seteuid(0)
        os.close(main)
        os.close(side)
    assert f"port {path}: permission denied; add yourself to the group dialout" in str(caught.value)
    choose(board(devkit.url))


def test_a_board_that_is_not_attached_is_passed_over(choose, devkit):
    gone = board("/dev/ttyUSB99", "s3-0")
    boards, told = choose(gone, board(devkit.url))
    assert (boards.chosen["esp32s3"].name, told) == ("s3-1", [])
    boards.release()
    with pytest.raises(BusyError, match="board s3-0 is not attached: there is no /dev/ttyUSB99"):
        choose(gone)
    assert read_record(gone.identity).out == ""  # it is well once it is plugged in


def test_a_board_out_of_service_is_not_used(choose, devkit):
    bad = board(devkit.url, mac=MAC)
    note_recovery(bad.identity, "brownout", Quarantine(1), failed=False)
    with pytest.raises(BusyError) as caught:
        choose(bad)
    assert "s3-1 is out of service: 1 recoveries within 24 h, the last: brownout" in str(
        caught.value
    )
    assert "espdl-hil bench clear NAME" in str(caught.value)


def test_recoveries_count_against_the_board(choose, devkit):
    boards, _ = choose(board(devkit.url, mac=MAC, quarantine=Quarantine(2)))
    assert boards.note_recovery("esp32s3", "panic", failed=False) == ""
    assert boards.note_recovery("esp32s3", "panic", failed=False).startswith("2 recoveries")
    assert boards.note_recovery("esp32p4", "panic", failed=False) == ""  # has no board


# -- a board that was looked for -----------------------------------------------------


@pytest.fixture
def attached(devkit, monkeypatch):
    """The devkit as the one USB port of this machine, with a foreign app on it."""
    register()  # the search opens what the operating system lists as it is
    usb = UsbPort(event_url(devkit.url), 0x10C4, 0xEA60, "1", "CP2102N")
    monkeypatch.setattr(ports_module, "list_usb_ports", lambda comports=None: [usb])
    partition = Partition("factory", APP, FACTORY, 0x10000, 0x100000)
    devkit.flash.erase(0x8000, 0x1000)
    devkit.flash.program(0x8000, build_table((partition,)))
    description = AppDescription("1.0", "doorbell", bytes(32), "v5.3").pack()
    image = build_image("esp32s3", [(0x3C000020, description)])
    devkit.flash.erase(0x10000, 0x10000)
    devkit.flash.program(0x10000, image)
    yield devkit
    devkit.flash.erase(0, 1 << 20)


def test_a_foreign_app_is_overwritten_once_it_was_allowed(choose, attached):
    """By ``--hil-overwrite``, remembered for the MAC."""
    with pytest.raises(ConfigError) as caught:
        choose()
    for text in (f"(MAC {MAC}) holds another firmware, 'doorbell'", "--hil-overwrite, once"):
        assert text in str(caught.value)
    boards, _ = choose(overwrite=True)
    assert read_record(f"mac:{MAC}").is_ours
    boards.release()
    choose()


def test_a_board_with_nothing_on_it_needs_no_leave(choose, attached):
    attached.flash.erase(0, 1 << 20)
    boards, _ = choose()
    assert boards.chosen["esp32s3"].mac == MAC


def test_the_app_in_flash_is_named(attached):
    assert identify(attached.url, "esp32s3", read_app=True).app == "doorbell"
    attached.flash.erase(0x8000, 0x1000)
    attached.flash.program(0x8000, b"nonsense" * 8)
    assert identify(attached.url, "esp32s3", read_app=True).app == ports_module.UNKNOWN_APP


def test_two_targets_are_claimed_together(devkit):
    """Two runs that need both chips cannot hold one each."""
    with Devkit("esp32p4") as other:
        both = (board(devkit.url), BenchBoard("p4-1", "esp32p4", other.url, bench="bench.toml"))
        settings = Settings(device="serial", boards=both, wait_s=0.0)
        with Claim([[both[1].candidate(other.url)]]).acquire():
            boards = Boards(settings, None, print)
            with pytest.raises(BusyError):
                boards.choose(["esp32s3", "esp32p4"])
            Claim([[both[0].candidate(devkit.url)]]).acquire().release()
        boards.choose(["esp32s3", "esp32p4"])
        assert sorted(boards.chosen) == ["esp32p4", "esp32s3"]
        boards.release()
