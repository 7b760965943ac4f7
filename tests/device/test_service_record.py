"""What a board has gone through: counted across runs, out of service by rule, back by command."""

import subprocess
import sys
import time

import pytest

from espdl_hil.device import power, service_record
from espdl_hil.device.bench import BenchBoard, Power, Quarantine
from espdl_hil.device.claim import lock_directory
from espdl_hil.device.service_record import clear, note_ours, note_recovery, read_record
from espdl_hil.errors import DeviceError

BOARD = "mac:7c:df:a1:00:11:22"
RULE = Quarantine(recoveries=3, hours=1)


@pytest.fixture(autouse=True)
def own_records(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path))


def test_too_many_recoveries_take_a_board_out_until_it_is_cleared():
    note_ours(BOARD)
    assert note_recovery(BOARD, "panic", RULE, failed=False) == ""
    assert note_recovery(BOARD, "panic", RULE, failed=False) == ""
    out = note_recovery(BOARD, "brownout", RULE, failed=False)
    assert out == read_record(BOARD).out == "3 recoveries within 1 h, the last: brownout"
    assert clear(BOARD) == out
    assert read_record(BOARD).out == ""
    assert read_record(BOARD).is_ours
    assert note_recovery(BOARD, "panic", RULE, failed=False) == ""


def test_one_that_does_not_come_back_is_out_at_once():
    assert "did not come back: no reply" in note_recovery(BOARD, "no reply", RULE, failed=True)


def test_recoveries_of_long_ago_do_not_count(monkeypatch):
    now = time.time()
    for hours in (5, 4, 3, 2):
        monkeypatch.setattr(service_record.time, "time", lambda hours=hours: now - 3600 * hours)
        assert note_recovery(BOARD, "panic", RULE, failed=False) == ""
    assert len(read_record(BOARD).recoveries) == 4


def test_other_processes_see_it_and_other_boards_do_not():
    code = """
import sys
from espdl_hil.device.bench import Quarantine
from espdl_hil.device.service_record import note_recovery
note_recovery(sys.argv[1], "panic", Quarantine(1), failed=False)
"""
    subprocess.run([sys.executable, "-c", code, BOARD], check=True)
    assert read_record(BOARD).out
    assert not read_record("mac:other").out
    assert note_recovery("", "panic", Quarantine(1), failed=False) == ""  # no name, no record


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"recoveries": 3}', "\x1b"])
def test_a_damaged_record_is_an_empty_one(text):
    note_recovery(BOARD, "panic", Quarantine(1), failed=False)
    (path,) = lock_directory().glob("*.record")
    path.write_text(text)
    assert read_record(BOARD) == service_record.ServiceRecord()


def board(**commands):
    return BenchBoard("a", "esp32s3", "/dev/a", power=Power(**commands))


def test_power_is_switched_by_the_benchs_commands(tmp_path, monkeypatch):
    monkeypatch.setattr(power, "OFF_S", 0.0)
    log = tmp_path / "log"
    assert power.power_cycle(board(cycle=f"echo cycle >> {log}"))
    assert power.power_cycle(board(off=f"echo off >> {log}", on=f"echo on >> {log}"))
    assert log.read_text().split() == ["cycle", "off", "on"]
    assert not power.power_cycle(board())


def test_a_power_command_that_fails_is_told(monkeypatch):
    with pytest.raises(DeviceError, match="board a ended with 3: no such hub") as caught:
        power.power_cycle(board(cycle="echo no such hub >&2; exit 3"))
    assert "try it by hand: echo no such hub" in str(caught.value)
    monkeypatch.setattr(power, "COMMAND_S", 0.1)
    with pytest.raises(DeviceError, match="took more than"):
        power.power_cycle(board(cycle="sleep 5"))
