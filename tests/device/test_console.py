"""Console text: kept, logged, waited for."""

from __future__ import annotations

import threading
import time

from espdl_hil.device.console import LOG_IS_FULL, RING_BYTES, Console


def test_everything_reaches_the_log_and_the_sink(tmp_path):
    pieces = []
    console = Console(tmp_path / "logs" / "dut.log", pieces.append)
    console.feed(b"from the device\n")
    console.log("from esptool\n")
    console.close()
    console.close()
    assert (tmp_path / "logs" / "dut.log").read_bytes() == b"from the device\nfrom esptool\n"
    assert pieces == [b"from the device\n", b"from esptool\n"]


def test_the_tail_is_device_text_alone_without_colours():
    console = Console()
    console.feed(b"\x1b[0;32mI (1) main: one\x1b[0m\r\n\r\n")
    console.log("esptool\n")
    mark = console.mark()
    console.feed("zwei ü\n".encode() + b"\xf5\x01\x00three\nfour\n")
    assert console.tail() == "I (1) main: one\nzwei ü\nfour"
    assert console.tail(mark) == "zwei ü\nfour"
    assert console.since(mark) == "zwei ü\n�three\nfour\n"


def test_old_text_is_forgotten_but_marks_stay_right():
    console = Console()
    console.feed(b"x" * RING_BYTES)
    mark = console.mark()
    console.feed(b"y" * 10)
    assert console.since(mark) == "y" * 10
    assert len(console.since(0)) == RING_BYTES


def test_expect_waits_and_goes_on_behind_the_match():
    console = Console()
    console.feed(b"count 1\n")
    timer = threading.Timer(0.05, console.feed, [b"\x1b[31mcount 2\x1b[0m\n"])
    timer.start()
    assert console.expect(r"count (\d)", 1).group(1) == "1"
    assert console.expect(r"count (\d)", 1).group(1) == "2"
    timer.join()


def test_expect_gives_up_in_time():
    console = Console()
    console.feed(b"something else\n")
    started = time.monotonic()
    assert console.expect("never", 0.1) is None
    assert 0.08 < time.monotonic() - started < 5


def test_no_escape_sequence_leaves_the_console():
    console = Console()
    console.feed(b"a\x1b[2Jb \x1b]0;owned\x07 \x1b(Bc \xc2\x9b31m \xe2\x80\xae d\x08\x7f\n")
    for text in (console.since(0), console.tail(), console.expect("a.*\n", 1)[0]):
        assert "a" in text
        assert all(character.isprintable() or character in "\r\n\t" for character in text)


def test_a_log_does_not_fill_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr("espdl_hil.device.console.MAX_LOG_BYTES", 1000)
    console = Console(tmp_path / "dut.log")
    for _ in range(100):
        console.feed(b"x" * 64)
    console.close()
    assert (tmp_path / "dut.log").read_bytes() == b"x" * 1000 + LOG_IS_FULL
