"""The rate of the line: agreed on upwards, given back when it does not work, lost in a restart."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import serial

from espdl_hil.device import rfc2217_handler
from espdl_hil.device.console import Console
from espdl_hil.device.dut import Dut, DutConfig
from espdl_hil.device.timing import Timing
from espdl_hil.device.transport import Transport
from espdl_hil.errors import DeviceError
from espdl_hil.simulator import Devkit
from espdl_hil.simulator.faults import SlowBridge
from espdl_hil.wire.messages import (
    QueryMemory,
    QueryMemoryReply,
    Reboot,
    RebootReply,
    SetBaud,
    SetBaudReply,
)

BOOT_BAUD = 115200
REPOSITORY = Path(__file__).parents[2]
TIMING = Timing(repeat_s=0.1)


@pytest.fixture
def kit(tmp_path, flashed):
    file = shutil.copy(flashed, tmp_path / "paced.bin")  # that of `devkit` is in use
    with Devkit("esp32s3", flash_file=file, paced=True) as kit:
        yield kit


@pytest.fixture
def opened(kit):
    rfc2217_handler.register()
    url = rfc2217_handler.event_url(kit.url)
    port = serial.serial_for_url(url, do_not_open=True, baudrate=BOOT_BAUD)
    port.dtr = port.rts = False
    with port:
        yield port


@pytest.fixture
def transport(opened):
    transport = Transport(opened, "line", Console(), baud=BOOT_BAUD, timing=TIMING)
    yield transport
    transport.stop()


def ask(transport):
    return transport.expect(transport.submit(QueryMemory(), 8.0), QueryMemoryReply)


def test_both_ends_go_on_at_the_new_rate(transport, opened):
    assert transport.greet(10).max_baud == 5_000_000
    assert transport.change_baud(2_000_000)
    assert (transport.baud, opened.baudrate) == (2_000_000, 2_000_000)
    time.sleep(0.6)  # the trial would be over
    assert ask(transport)
    opened.baudrate = BOOT_BAUD  # the twin: there the device is not heard any more
    transport.timing = Timing(repeat_s=0.1, reply_s=0.3)
    with pytest.raises(DeviceError, match="no reply to QueryMemory"):
        transport.expect(transport.submit(QueryMemory(), 0.3), QueryMemoryReply)


def test_both_ends_go_back_where_the_new_rate_does_not_work(kit, transport, opened):
    kit.inject(SlowBridge(1_000_000))
    transport.greet(10)
    assert not transport.change_baud(2_000_000)
    assert (transport.baud, opened.baudrate) == (BOOT_BAUD, BOOT_BAUD)
    assert ask(transport)
    assert transport.change_baud(921_600)
    assert ask(transport)


def test_a_rate_that_the_port_does_not_have(transport, opened, monkeypatch):
    transport.greet(10)
    kept = type(opened).baudrate

    def refuse(self, baud):
        if baud == 2_000_000:
            raise ValueError("no such rate")
        kept.fset(self, baud)

    monkeypatch.setattr(type(opened), "baudrate", property(kept.fget, refuse))
    assert not transport.change_baud(2_000_000)
    assert ask(transport)


def test_a_device_that_nobody_answered_at_the_new_rate_is_back_by_itself(transport):
    transport.greet(10)
    reply = transport.expect(transport.submit(SetBaud(baud=921_600), 8.0), SetBaudReply)
    assert reply.trial_ms == 500
    assert ask(transport)  # repeated at the old rate until the device is there again


def test_a_restart_at_a_high_rate_is_noticed_soon(transport):
    """The device says so at the rate of its boot, which is noise at the other one."""
    transport.greet(10)
    assert transport.change_baud(921_600)
    transport.expect(transport.submit(Reboot(), 8.0), RebootReply)
    started = time.monotonic()
    with pytest.raises(DeviceError, match="restarted"):
        ask(transport)
    assert time.monotonic() - started < 6


def test_one_message_tells_of_a_slower_line_and_recovery_does_not_try_it_again(
    kit, build_dir, tmp_path
):
    kit.inject(SlowBridge(1_000_000))
    log = tmp_path / "dut.log"
    with Dut(DutConfig("esp32s3", build_dir, port=kit.url, log_path=log)) as dut:
        assert dut.baud == 921_600
        dut.recover("on purpose")
        assert dut.incidents[-1].action == "soft reset"
        assert dut.baud == 921_600
        dut.reset()
        assert dut.baud == 921_600
    lines = log.read_text(errors="replace").splitlines()
    told = [line for line in lines if "does not answer at" in line]
    assert told == [
        "espdl-hil: the line does not answer at 2,000,000 baud; it goes on at 921,600. A bridge "
        "that cannot be faster: max_baud in the bench file, or --hil-max-baud"
    ]


def test_a_rate_has_a_second_trial(kit, build_dir, monkeypatch):
    """A host that is held up for half a second misses the first; a run would be slow for that."""
    change, tried = Transport.change_baud, []

    def held_up(self, baud):
        tried.append(baud)
        return len(tried) > 1 and change(self, baud)

    monkeypatch.setattr(Transport, "change_baud", held_up)
    with Dut(DutConfig("esp32s3", build_dir, port=kit.url)) as dut:
        assert dut.baud == 2_000_000
    assert tried == [2_000_000] * 2


@pytest.mark.slow
def test_a_paced_line_is_used_to_nine_tenths_by_chunks_of_256_bytes_and_more():
    run = subprocess.run(
        [sys.executable, REPOSITORY / "benchmarks" / "wire.py"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "reaches 90% from 256 bytes on" in run.stdout


def test_a_limit_is_kept_and_a_port_without_a_rate_has_none(devkit, kit, build_dir):
    with Dut(DutConfig("esp32s3", build_dir, port=kit.url, max_baud=BOOT_BAUD)) as dut:
        assert dut.baud == BOOT_BAUD
    with Dut(DutConfig("esp32s3", build_dir, port=devkit.url)) as dut:
        assert dut.baud == 0
