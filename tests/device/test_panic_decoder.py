"""Crash reports and boot failures, as chips print them."""

from __future__ import annotations

import pytest

from espdl_hil.device.panic_decoder import decode_boot_failure, decode_crash

PANIC = """\
Guru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception was unhandled.
Core  0 register dump:
PC      : 0x42008f2d  PS      : 0x00060330
Backtrace: 0x42008f2a:0x3fc98c20 0x42008ee5:0x3fc98c40
Rebooting...
"""
BOOT = "ESP-ROM:esp32s3-20210327\nrst:0x{:x} (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)\n"


@pytest.mark.parametrize(
    ("console", "kind", "text"),
    [
        (PANIC, "panic", "core 0 panicked: LoadProhibited"),
        (
            "Guru Meditation Error: Core  1 panic'ed (Interrupt wdt timeout on CPU1).\n",
            "watchdog",
            "watchdog on core 1: Interrupt wdt timeout on CPU1",
        ),
        (
            "abort() was called at PC 0x4200abcd on core 0\n",
            "abort",
            "abort() was called at PC 0x4200abcd",
        ),
        (
            "assert failed: run model.cpp:12 (x > 0)\nabort() was called at PC 0x1 on core 0\n",
            "assert",
            "assertion failed: run model.cpp:12 (x > 0)",
        ),
        ("\nE BOD: Brownout detector was triggered\n", "brownout", "supply voltage dropped"),
        (
            "E (5000) task_wdt: Task watchdog got triggered. The following tasks\n",
            "watchdog",
            "task watchdog got triggered",
        ),
        ("CORRUPT HEAP: Bad head at 0x3fc9. Expected\n", "heap", "CORRUPT HEAP: Bad head"),
        (
            "***ERROR*** A stack overflow in task main has been detected.\n",
            "stack",
            "stack overflow in task main",
        ),
        ("rst:0x7 (TG0WDT_SYS_RST),boot:0x8\n", "watchdog", "reset by watchdog TG0WDT_SYS_RST"),
    ],
)
def test_crashes_are_decoded(console, kind, text):
    failure = decode_crash("I (10) main: fine\n" + console)
    assert failure.kind == kind
    assert failure.text.startswith(text)
    assert not failure.is_final


def test_only_the_task_watchdog_lets_the_app_live():
    assert decode_crash(PANIC).ends_app
    assert not decode_crash("Task watchdog got triggered.\n").ends_app


@pytest.mark.parametrize(
    "console", ["", "I (31) boot: chip revision: v0.2\n", "hello world\n", BOOT.format(1)]
)
def test_ordinary_text_is_no_fault(console):
    assert decode_crash(console) is None
    assert decode_boot_failure(console) is None


@pytest.mark.parametrize(
    ("console", "kind", "text"),
    [
        ("waiting for download\n", "download", "the chip is in its ROM loader"),
        ("invalid header: 0xffffffff\n" * 8, "flash", "no bootloader in flash"),
        ("E (0) flash_parts: partition 0 invalid magic number 0xffff\n", None, None),
        (
            "E (0) boot: Failed to verify partition table\n",
            "image",
            "the partition table is damaged",
        ),
        (
            "E (0) esp_image: Image hash failed - image is corrupt\n",
            "image",
            "the app image is damaged (Image hash failed)",
        ),
        (
            "E (0) boot_comm: mismatch chip ID, expected 9, found 18\n",
            "image",
            "the image was built for another chip or revision "
            "(mismatch chip ID, expected 9, found 18)",
        ),
        (
            "E (0) boot: No bootable app partitions in the partition table\n",
            "image",
            "no bootable app in flash",
        ),
    ],
)
def test_boot_failures_are_decoded(console, kind, text):
    failure = decode_boot_failure(BOOT.format(1) + console)
    if kind is None:
        assert failure is None
        return
    assert failure.kind == kind
    assert failure.text.startswith(text)
    assert failure.is_final
    assert failure.hint


def test_three_resets_are_a_loop_and_its_cause_is_named():
    once = BOOT.format(3) + PANIC
    assert decode_boot_failure(once * 2).kind == "panic"
    loop = decode_boot_failure(once * 3)
    assert loop.kind == "loop"
    assert loop.text == (
        "the chip restarts again and again (3 resets): core 0 panicked: LoadProhibited"
    )
