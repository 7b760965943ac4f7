"""The ROM loader under esptool, stub and ROM alike; and under bytes that are no esptool."""

from __future__ import annotations

import os
import random
import re
import struct

import esptool
import pytest
from esptool.util import FatalError

from espdl_hil.device import rfc2217_handler
from espdl_hil.simulator import Devkit
from espdl_hil.simulator import devkit as devkit_module
from espdl_hil.targets import DEVKIT_TARGETS

TITLES = {"esp32s3": "ESP32-S3 (QFN56) (revision v0.2)", "esp32p4": "ESP32-P4 (revision v3.1)"}


@pytest.fixture(scope="module", params=DEVKIT_TARGETS)
def devkit(request):
    rfc2217_handler.register()
    with Devkit(request.param) as devkit:
        yield devkit


@pytest.fixture
def run_esptool(devkit, capsys):
    """Runs esptool in this process over the port handler that does not poll; returns its output."""

    def run(*arguments, options=()):
        url = rfc2217_handler.event_url(devkit.url)
        esptool.main(["--port", url, *options, *map(str, arguments)])
        return capsys.readouterr().out

    return run


@pytest.fixture
def random_file(tmp_path):
    file = tmp_path / "random.bin"
    file.write_bytes(random.Random(7).randbytes(50_000))
    return file


def test_flash_id_detects_the_chip(devkit, run_esptool):
    output = run_esptool("flash-id")
    assert f"Chip type:          {TITLES[devkit.target]}\n" in output
    assert re.search(r"^MAC: +24:0a:c4:[0-9a-f:]{8}$", output, re.MULTILINE)
    assert "Stub flasher running." in output
    assert "Manufacturer: 20\nDevice: 4018\nDetected flash size: 16MB\n" in output


def test_without_the_stub_it_is_the_rom_that_answers(run_esptool):
    output = run_esptool("flash-id", options=["--no-stub"])
    assert "Stub flasher" not in output
    assert "Detected flash size: 16MB" in output


def test_security_info_names_the_chip(devkit, run_esptool):
    chip_id = {"esp32s3": 9, "esp32p4": 18}[devkit.target]
    assert re.search(rf"Chip ID: *{chip_id}\b", run_esptool("get-security-info"))


def test_the_wrong_chip_is_noticed(devkit, run_esptool):
    wrong = {"esp32s3": "ESP32-P4", "esp32p4": "ESP32-S3"}[devkit.target]
    right = {"esp32s3": "ESP32-S3", "esp32p4": "ESP32-P4"}[devkit.target]
    with pytest.raises(FatalError) as error:
        run_esptool("flash-id", options=["--chip", wrong.lower().replace("-", "")])
    assert str(error.value) == f"This chip is {right}, not {wrong}. Wrong chip argument?"


def test_write_verify_read_erase(devkit, run_esptool, random_file, tmp_path):
    text = tmp_path / "text.bin"
    text.write_bytes(b"compressible " * 5000)
    output = run_esptool(
        "write-flash", "0x100000", random_file, "0x120000", text, options=["--baud", "921600"]
    )
    assert "Changing baud rate to 921600..." in output
    assert output.count("Hash of data verified.") == 2
    assert devkit.flash.read(0x100000, 50_000) == random_file.read_bytes()
    assert devkit.flash.read(0x120000, 65_000) == text.read_bytes()
    assert "Verification successful" in run_esptool("verify-flash", "0x100000", random_file)
    copy = tmp_path / "copy.bin"
    run_esptool("read-flash", "0x100000", "50000", copy)
    assert copy.read_bytes() == random_file.read_bytes()
    run_esptool("erase-region", "0x100000", "0x1000")
    assert devkit.flash.read(0x100000, 0x1000) == b"\xff" * 0x1000
    assert devkit.flash.read(0x101000, 16) == random_file.read_bytes()[0x1000:0x1010]
    with pytest.raises(FatalError, match=r"^Verification failed"):
        run_esptool("verify-flash", "0x100000", random_file)
    run_esptool("erase-flash")
    assert devkit.flash.read(0, devkit.flash.size) == b"\xff" * devkit.flash.size


def test_the_rom_writes_and_reads_too(devkit, run_esptool, random_file, tmp_path):
    options = ["--no-stub"]
    output = run_esptool("write-flash", "0x200000", random_file, options=options)
    assert "Hash of data verified." in output
    assert devkit.flash.read(0x200000, 50_000) == random_file.read_bytes()
    copy = tmp_path / "copy.bin"
    run_esptool("read-flash", "0x200000", "256", copy, options=options)
    assert copy.read_bytes() == random_file.read_bytes()[:256]


def test_writing_again_erases_first(devkit, run_esptool, random_file, tmp_path):
    other = tmp_path / "other.bin"
    other.write_bytes(bytes(255 - byte for byte in random_file.read_bytes()))
    run_esptool("write-flash", "0x300000", random_file)
    run_esptool("write-flash", "0x300000", other)
    assert devkit.flash.read(0x300000, 50_000) == other.read_bytes()


def test_a_watchdog_reset_starts_the_flash(devkit, run_esptool, connect, monkeypatch):
    monkeypatch.setattr(devkit_module, "RETRY_S", 0.1)
    run_esptool("flash-id", options=["--after", "watchdog-reset"])
    port = connect(devkit)
    assert b"invalid header: 0xffffffff" in port.read(500)  # erased, so the chip keeps trying


def test_flash_survives_resets_and_clients(devkit, run_esptool, random_file, connect, reset):
    run_esptool("write-flash", "0x400000", random_file)
    reset(connect(devkit))
    assert devkit.flash.read(0x400000, 50_000) == random_file.read_bytes()


@pytest.mark.parametrize(("revision", "title"), [(103, "v1.3"), (400, "v4.0")])
def test_the_revision_of_a_p4(revision, title, capsys):
    with Devkit("esp32p4", revision=revision) as devkit:
        url = rfc2217_handler.event_url(devkit.url)
        esptool.main(["--port", url, "chip-id"])
        assert f"ESP32-P4 (revision {title})" in capsys.readouterr().out


@pytest.mark.parametrize(("revision", "title"), [(11, "v0.11"), (102, "v1.2")])
def test_the_revision_of_an_s3(revision, title, capsys):
    with Devkit("esp32s3", revision=revision) as devkit:
        url = rfc2217_handler.event_url(devkit.url)
        esptool.main(["--port", url, "chip-id"])
        assert f"ESP32-S3 (QFN56) (revision {title})" in capsys.readouterr().out


# -- without esptool ---------------------------------------------------------


def download(port):
    """Enter the download mode and swallow its banner."""
    port.rts = True
    port.dtr = True
    port.rts = False
    port.dtr = False
    assert port.read_until(b"waiting for download\r\n").endswith(b"waiting for download\r\n")


def slip(command, body=b"", checksum=0):
    packet = struct.pack("<BBHI", 0, command, len(body), checksum) + body
    escaped = packet.replace(b"\xdb", b"\xdb\xdd").replace(b"\xc0", b"\xdb\xdc")
    return b"\xc0" + escaped + b"\xc0"


def answer(port):
    """Read one frame and return its command, status and error."""
    assert port.read(1) == b"\xc0"
    frame = port.read_until(b"\xc0")[:-1]
    return frame[1], frame[8], frame[9]


SYNC = slip(0x08, b"\x07\x07\x12\x20" + b"\x55" * 32)


def is_alive(port):
    port.write(SYNC)
    return [answer(port) for _ in range(8)] == [(0x08, 0, 0)] * 8


def test_the_banner_of_the_download_mode(devkit, connect):
    port = connect(devkit)
    download(port)
    assert is_alive(port)


def test_blocks_with_a_wrong_checksum_are_refused(devkit, connect):
    port = connect(devkit)
    download(port)
    port.write(slip(0x02, struct.pack("<IIIII", 4096, 1, 4096, 0x500000, 0)))
    assert answer(port) == (0x02, 0, 0)
    port.write(slip(0x03, struct.pack("<IIII", 4, 0, 0, 0) + b"abcd", checksum=1))
    assert answer(port) == (0x03, 1, 7)
    assert devkit.flash.read(0x500000, 4) == b"\xff" * 4
    port.write(slip(0x03, struct.pack("<IIII", 4, 0, 0, 0) + b"abcd", checksum=0xEB))
    assert answer(port) == (0x03, 0, 0)
    assert devkit.flash.read(0x500000, 4) == b"abcd"


def test_writing_beyond_the_end_is_refused(devkit, connect):
    port = connect(devkit)
    download(port)
    port.write(slip(0x02, struct.pack("<IIIII", 4096, 1, 4096, devkit.flash.size, 0)))
    assert answer(port) == (0x02, 1, 0xC4)


def test_a_damaged_deflate_stream_is_refused(devkit, connect):
    port = connect(devkit)
    download(port)
    port.write(slip(0x10, struct.pack("<IIIII", 4096, 1, 4096, 0x600000, 0)))
    assert answer(port) == (0x10, 0, 0)
    port.write(slip(0x11, struct.pack("<IIII", 4, 0, 0, 0) + b"abcd", checksum=0xEB))
    assert answer(port) == (0x11, 1, 0xC8)


def test_the_roms_flash_end_runs_the_flash(devkit, connect):
    port = connect(devkit)
    download(port)
    devkit.flash.erase(0, devkit.flash.size)
    port.write(slip(0x04, struct.pack("<I", 1)))
    assert answer(port) == (0x04, 0, 0)
    assert b"(SPI_FAST_FLASH_BOOT)\r\n" in port.read_until(b"invalid header")


def test_garbage_does_not_end_the_loader(devkit, connect):
    port = connect(devkit)
    download(port)
    dice = random.Random(3)
    for _ in range(200):
        command = dice.choice([0x02, 0x03, 0x09, 0x0A, 0x10, 0x11, 0x13, 0x14, 0xD1, 0xD2, 0x77])
        port.write(slip(command, dice.randbytes(dice.randrange(16))))
        port.write(dice.randbytes(dice.randrange(40)))
    port.write(b"\xc0")
    port.timeout = 0.2
    while port.read(4096):
        pass
    port.timeout = 3
    assert is_alive(port)


@pytest.mark.parametrize(
    "frame",
    [
        b"\xc0\xdb" + slip(0x02, b"\x01")[1:],  # an escape of nothing before a short command
        slip(0x02, bytes(16)).replace(b"\x10", b"\x00", 1),  # a body that its header denies
    ],
)
def test_a_frame_that_can_be_read_in_two_ways_does_not_end_the_loader(devkit, connect, frame):
    port = connect(devkit)
    download(port)
    port.write(frame)
    port.timeout = 0.2
    port.read(4096)
    port.timeout = 3
    assert is_alive(port)


def test_a_client_that_dies_in_a_command_is_replaced(devkit, connect):
    port = connect(devkit)
    download(port)
    port.write(slip(0x03, bytes(1000))[:500])
    port.close()
    port = connect(devkit)
    download(port)
    assert is_alive(port)


def test_a_thousand_bytes_of_noise_at_boot(devkit, connect, reset):
    port = connect(devkit)
    reset(port)
    port.write(os.urandom(1000).replace(b"\xc0", b""))
    download(port)
    assert is_alive(port)
