"""What is sent again on a damaged line, and what is not."""

from __future__ import annotations

import pytest
from esptool.loader import ESPLoader, StubMixin
from esptool.util import FatalError

from espdl_hil.device.patient_esptool import BLOCK_BYTES, MAX_LOSSES, MAX_REFUSALS, patient

BEGIN, BLOCK, OTHER = (
    ESPLoader.ESP_CMDS[name] for name in ("FLASH_DEFL_BEGIN", "FLASH_DEFL_DATA", "FLASH_DEFL_END")
)
REFUSED = FatalError("Failed to write (result was 01C1: Unknown result)")
LOST = FatalError("No serial data received.")


class Esp:
    """A loader whose commands end as scripted, and well when the script is over."""

    def __init__(self, *script):
        self.script, self.sent, self.flushed = list(script), [], 0

    def flush_input(self):
        self.flushed += 1

    def send(self, what, op=None, data=b"", **_):
        self.sent.append(what)
        error = self.script.pop(0) if self.script else None
        if error is not None:
            raise error
        return what


@pytest.fixture
def send(monkeypatch):
    monkeypatch.setattr(ESPLoader, "check_command", Esp.send)
    with patient():
        yield ESPLoader.check_command


def flash(send, esp):
    return [
        send(esp, what, op, b"data")
        for what, op in (("begin", BEGIN), ("0", BLOCK), ("1", BLOCK), ("end", OTHER))
    ]


def test_a_block_that_was_refused_is_sent_again_alone(send):
    esp = Esp(None, None, REFUSED, REFUSED)
    assert flash(send, esp) == ["begin", "0", "1", "end"]
    assert esp.sent == ["begin", "0", "1", "1", "1", "end"]


def test_after_a_lost_answer_all_since_the_begin_is_sent_again(send):
    esp = Esp(None, None, LOST, None, REFUSED)
    assert flash(send, esp) == ["begin", "0", "1", "end"]
    assert esp.sent == ["begin", "0", "1", "begin", "0", "0", "1", "end"]
    assert esp.flushed == 2


def test_another_file_does_not_bring_back_the_one_before(send):
    esp = Esp(None, None, None, None, None, LOST)
    flash(send, esp)
    flash(send, esp)
    assert esp.sent == ["begin", "0", "1", "end", "begin", "0", "begin", "0", "1", "end"]


def test_other_commands_are_sent_once(send):
    esp = Esp(None, None, None, REFUSED)
    with pytest.raises(FatalError, match="01C1"):
        flash(send, esp)
    assert esp.sent == ["begin", "0", "1", "end"]


@pytest.mark.parametrize(("error", "most"), [(REFUSED, MAX_REFUSALS), (LOST, MAX_LOSSES)])
def test_a_dead_line_is_given_up(error, most, send):
    esp = Esp(*[error] * 1000)
    with pytest.raises(FatalError):
        flash(send, esp)
    assert esp.sent == ["begin"] * (most + 1)


def test_a_port_that_is_gone_is_no_loss(send):
    esp = Esp(None, OSError("gone"))
    with pytest.raises(OSError, match="gone"):
        flash(send, esp)
    assert esp.sent == ["begin", "0"]


def test_esptool_is_its_old_self_afterwards():
    usual = ESPLoader.check_command, StubMixin.FLASH_WRITE_SIZE
    with patient():
        assert StubMixin.FLASH_WRITE_SIZE == BLOCK_BYTES
    assert (ESPLoader.check_command, StubMixin.FLASH_WRITE_SIZE) == usual
