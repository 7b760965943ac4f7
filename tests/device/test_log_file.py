"""A log on a full disk."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from espdl_hil.device.console import Console
from espdl_hil.errors import ConfigError


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_a_full_disk_ends_the_log_and_not_the_console():
    console = Console(Path("/dev/full"))
    assert console.log_failure == ""
    console.feed(b"one\n")
    console.feed(b"two\n")
    assert console.log_failure == "the log /dev/full cannot be written: No space left on device"
    assert console.since(0) == "one\ntwo\n"
    console.close()


def test_a_log_with_room_has_no_failure(tmp_path):
    console = Console(tmp_path / "logs" / "a.log")
    console.feed(b"one\n")
    console.close()
    assert console.log_failure == ""
    assert (tmp_path / "logs" / "a.log").read_bytes() == b"one\n"


def test_a_log_that_cannot_be_opened_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the log .* cannot be written: .*\n  hint: name anothe"):
        Console(tmp_path / "file" / "a.log")


def test_a_log_viewer_obeys_nothing_of_the_device(tmp_path):
    console = Console(tmp_path / "a.log")
    console.feed("\x1b]0;title\x07\x1b[31mred\x1b[0m\tgr\u00fcn\r\nhidden\rshown\u009b\n".encode())
    console.close()
    log = (tmp_path / "a.log").read_text()
    assert log == "^[]0;title^G^[[31mred^[[0m\tgr\u00fcn\nhiddenshown^[\n"
