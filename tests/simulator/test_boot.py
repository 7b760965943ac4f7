"""Boot from flash: every refusal in the chip's words, whole."""

from __future__ import annotations

import random
import re
import struct

from espdl_hil.formats.esp_image import build_image
from espdl_hil.formats.partition_table import read_table
from espdl_hil.simulator.boot import boot, download_banner
from espdl_hil.simulator.chips import CHIPS, ResetReason

APP_OFFSET = 0x10000


def program(flash, parts):
    for offset, data in parts.items():
        flash.erase(offset, len(data))
        flash.program(offset, data)


def start(flash, chip, reason=ResetReason.POWER_ON):
    return boot(flash, chip, chip.target.revision, reason)


def after(console, last_good_line):
    """The lines of *console* that follow one that is part of every boot."""
    lines = console.split("\r\n")
    return lines[lines.index(last_good_line) + 1 : -1]


END_OF_TABLE = "I (0) boot: End of partition table"
RNG = "I (0) boot: Enabling RNG early entropy source..."
NOT_BOOTABLE = [
    "E (0) boot: Factory app partition is not bootable",
    "E (0) boot: No bootable app partitions in the partition table",
]


def test_a_good_flash_boots(flash, chip, parts):
    program(flash, parts)
    result = start(flash, chip)
    assert result.app is not None
    assert result.app.description.project == "espdl_hil_sim"
    assert result.app.models is not None
    assert result.app.models.label == "models"
    lines = result.console.split("\r\n")
    assert lines[:3] == [*chip.rom, f"rst:0x1 (POWERON),{chip.flash_boot}"]
    assert f"entry 0x{chip.code_base:08x}" in lines
    assert lines[-3:] == [
        "I (0) boot: Loaded app from partition at offset 0x10000",
        "I (0) boot: Disabling RNG early entropy source...",
        "",
    ]


def test_the_bootloader_prints_no_time(flash, chip, parts):
    program(flash, parts)
    stamps = re.findall(r"^[IWE] \((\d+)\)", start(flash, chip).console, re.MULTILINE)
    assert set(stamps) == {"0"}


def test_the_whole_console_of_an_erased_s3(flash):
    result = start(flash, CHIPS["esp32s3"])
    assert result.app is None
    assert result.retry is ResetReason.WATCHDOG
    assert result.console == (
        "ESP-ROM:esp32s3-20210327\r\n"
        "Build:Mar 27 2021\r\n"
        "rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)\r\n"
        + "invalid header: 0xffffffff\r\n"
        * 8
    )


def test_the_whole_console_of_an_erased_p4(flash):
    result = start(flash, CHIPS["esp32p4"], ResetReason.WATCHDOG)
    assert result.console == (
        "ESP-ROM:esp32p4-eco5-20250430\r\n"
        "Build:Apr 30 2025\r\n"
        "rst:0x7 (HP_SYS_HP_WDT_RESET),boot:0x30f (SPI_FAST_FLASH_BOOT)\r\n"
        + "invalid header: 0xffffffff\r\n"
        * 8
    )


def test_garbage_instead_of_a_bootloader(flash, chip):
    flash.program(chip.target.bootloader_offset, b"\x12\x34\x56\x78")
    assert start(flash, chip).console.endswith("invalid header: 0x78563412\r\n" * 8)


def test_a_bootloader_of_another_chip(flash, chip, parts):
    other = next(c for c in CHIPS.values() if c is not chip)
    image = build_image(other.name, [(other.code_base, bytes(80))], entry=other.code_base)
    program(flash, {chip.target.bootloader_offset: image})
    result = start(flash, chip)
    assert result.retry is ResetReason.WATCHDOG
    assert result.console.endswith(f"load:0x{other.code_base:08x},len:0x50\r\nets_loader.c 78 \r\n")


def test_a_bootloader_with_a_wrong_checksum(flash, chip, parts):
    offset = chip.target.bootloader_offset
    letter, stored = parts[offset][40], parts[offset][-33]
    assert letter != 0
    program(flash, parts)
    flash.program(offset + 40, b"\x00")
    result = start(flash, chip)
    assert result.app is None
    assert result.retry is ResetReason.WATCHDOG
    assert result.console.endswith(
        f"Checksum failure. Calculated 0x{stored ^ letter:02x} stored 0x{stored:02x}\r\n"
        "ets_main.c 329 \r\n"
    )


def test_a_bootloader_with_a_wrong_hash_boots_anyway(flash, chip, parts):
    offset = chip.target.bootloader_offset
    bootloader = parts[offset]
    program(flash, parts)
    flash.program(offset + len(bootloader) - 1, b"\x00")
    result = start(flash, chip)
    expected = bootloader[-32:-1].hex() + "00"
    assert (
        "SHA-256 comparison failed:\r\n"
        f"Calculated: {bootloader[-32:].hex()}\r\n"
        f"Expected: {expected}\r\n"
        "Attempting to boot anyway...\r\n"
    ) in result.console
    assert result.app is not None


def test_no_partition_table(flash, chip, parts):
    program(flash, {offset: data for offset, data in parts.items() if offset != 0x8000})
    result = start(flash, chip)
    assert result.retry is ResetReason.SOFTWARE
    assert after(result.console, RNG) == [
        "E (0) flash_parts: partition 0 invalid magic number 0xffff",
        "E (0) boot: Failed to verify partition table",
        "E (0) boot: load partition table error!",
    ]


def test_a_partition_table_with_a_flipped_bit(flash, chip, parts):
    program(flash, parts)
    flash.program(0x8000 + 12, b"\x00")  # in the first label
    assert after(start(flash, chip).console, RNG)[0] == (
        "E (0) flash_parts: Incorrect MD5 checksum"
    )


def refusal(flash, chip, parts, app):
    program(flash, parts | {APP_OFFSET: app})
    result = start(flash, chip)
    assert result.app is None
    assert result.retry is ResetReason.SOFTWARE
    lines = [
        line
        for line in after(result.console, END_OF_TABLE)
        if not line.startswith("I (0) esp_image: segment")
    ]
    assert lines[1:] == NOT_BOOTABLE
    return lines[0]


def test_no_app(flash, chip, parts):
    assert refusal(flash, chip, parts, b"\xff" * 4096) == (
        "E (0) esp_image: image at 0x10000 has invalid magic byte (nothing flashed here?)"
    )


def test_an_app_for_another_chip(flash, chip, parts):
    app = bytearray(parts[APP_OFFSET])
    app[12] = 99
    assert refusal(flash, chip, parts, bytes(app)) == (
        f"E (0) boot_comm: mismatch chip ID, expected {chip.target.chip_id}, found 99"
    )


def test_an_app_for_a_newer_revision(flash, chip, parts):
    app = bytearray(parts[APP_OFFSET])
    struct.pack_into("<H", app, 15, 912)
    found = f"v{chip.target.revision // 100}.{chip.target.revision % 100}"
    assert refusal(flash, chip, parts, bytes(app)) == (
        f"E (0) boot_comm: chip revision check failed. Required >= v9.12, found {found}."
    )


def test_an_app_for_an_older_revision(flash, chip, parts):
    app = bytearray(parts[APP_OFFSET])
    struct.pack_into("<H", app, 17, 1)
    found = f"v{chip.target.revision // 100}.{chip.target.revision % 100}"
    assert refusal(flash, chip, parts, bytes(app)) == (
        f"E (0) boot_comm: chip revision check failed. Required <= v0.1, found {found}."
    )


def test_an_app_with_too_many_segments(flash, chip, parts):
    app = bytearray(parts[APP_OFFSET])
    app[1] = 17
    assert refusal(flash, chip, parts, bytes(app)) == (
        "E (0) esp_image: image at 0x10000 segment count 17 exceeds max 16"
    )


def test_an_app_whose_segment_has_no_end(flash, chip, parts):
    app = bytearray(parts[APP_OFFSET])
    struct.pack_into("<I", app, 28, 0x2000003)  # of the first segment
    assert refusal(flash, chip, parts, bytes(app)) == (
        "E (0) esp_image: invalid segment length 0x2000003"
    )


def test_an_app_that_is_longer_than_its_partition(flash, chip, parts):
    table = read_table(parts[0x8000], flash_bytes=flash.size)
    room = next(entry.size for entry in table if entry.label == "factory")
    app = build_image(chip.name, [(chip.mapped[0].start + 0x20, bytes(room))])
    assert refusal(flash, chip, parts, app) == (
        f"E (0) esp_image: Image length {len(app)} doesn't fit in partition length {room}"
    )


def test_an_app_with_a_flipped_bit(flash, chip, parts):
    app = bytearray(parts[APP_OFFSET])
    stored = app[-33]
    app[600] ^= 0x10
    assert refusal(flash, chip, parts, bytes(app)) == (
        f"E (0) esp_image: Checksum failed. Calculated 0x{stored ^ 0x10:x} read 0x{stored:x}"
    )


def test_an_app_with_two_flipped_bits_that_the_checksum_misses(flash, chip, parts):
    app = bytearray(parts[APP_OFFSET])
    app[600] ^= 0x10
    app[601] ^= 0x10
    assert refusal(flash, chip, parts, bytes(app)) == (
        "E (0) esp_image: Image hash failed - image is corrupt"
    )


def test_an_app_without_description(flash, chip, parts):
    app = build_image(chip.name, [(chip.mapped[0].start + 0x20, bytes(256))])
    assert refusal(flash, chip, parts, app) == (
        "E (0) esp_image: Failed to fetch app description header!"
    )


def test_damage_anywhere_gives_an_app_or_words(flash, chip, parts):
    dice = random.Random(11)
    outcomes = set()
    for _ in range(300):
        program(flash, parts)
        offset = dice.choice(list(parts))
        at = dice.randrange(min(len(parts[offset]), dice.choice([32, 400, 4000])))
        junk = bytes(dice.choice([0x00, dice.randrange(256)]) for _ in range(dice.randint(1, 9)))
        flash.program(offset + at, junk)
        result = start(flash, chip)
        outcomes.add(result.app is None)
        assert result.console.endswith("\r\n")
    assert outcomes == {False, True}


def test_the_download_banner():
    assert download_banner(CHIPS["esp32s3"], ResetReason.POWER_ON) == (
        "ESP-ROM:esp32s3-20210327\r\nBuild:Mar 27 2021\r\n"
        "rst:0x1 (POWERON),boot:0x0 (DOWNLOAD(USB/UART0))\r\nwaiting for download\r\n"
    )
