"""Text from elsewhere, as it is shown."""

from __future__ import annotations

import pytest

from espdl_hil.errors import ArtifactError, DeviceError, HarnessError, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, µs, 模型, \u00a0, e\u0301", "plain, µs, 模型, \u00a0, e\u0301"),
        ("line\n\tindented", "line\n\tindented"),
        ("line\r\nline\r", "line\nline\\r"),
        ("\x1b[0;32mI (1) main\x1b[0m", "I (1) main"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("\x1b]0;no end", "\\x1b]0;no end"),
        ("\x1b\x1b[mc", "\\x1bc"),
        ("\x1b[\x1b[31m31m", "\\x1b[31m"),  # what is left of two must not make one
        ("\x00\x07\x08\x7f\x9b", "\\x00\\x07\\x08\\x7f\\x9b"),
        ("\u202eab\u2028\u200b\ud800", "\\u202eab\\u2028\\u200b\\ud800"),
        ("\U000e0001", "\\U000e0001"),
    ],
)
def test_nothing_that_controls_is_shown_raw(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "error",
    [
        HarnessError("said \x1b[2Jno", hint="try \x1b[1A\x07"),
        ArtifactError("bad \x1b[2J", path="a\x1b[1Ab.zip"),
        DeviceError("silent", port="socket://\x1b[2J", console_tail="\x1b[31mpanic\x08"),
    ],
)
def test_an_error_is_shown_printable(error):
    assert printable(str(error)) == str(error)
    assert "\x1b" not in error.message
