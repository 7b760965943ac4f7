"""Boards are looked for before anything is made; a silent one ends the run."""

import contextlib
import errno
import io
import os
import socket
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from espdl_hil.device import build
from espdl_hil.device.bench import BenchBoard, Quarantine
from espdl_hil.device.service_record import clear, read_record
from espdl_hil.errors import BusyError, ConfigError, DeviceError, StreamingError
from espdl_hil.proof.ready import make_ready
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.settings import Settings
from espdl_hil.simulator import Devkit


@pytest.fixture
def case(rig):
    return rig.cases[0]


def board_rig(case, port, **hooks):
    ports = {} if port is None else {"esp32s3": port}
    return Rig(Settings(device="serial", ports=ports), [case], **hooks)


def test_a_board_that_answers_is_found(case):
    with Devkit("esp32s3") as devkit:
        rig = board_rig(case, devkit.url)
        rig.find_ports()
        assert rig.ports == {"esp32s3": devkit.url}


def test_another_chip_than_the_target(case):
    expected = r"--target esp32s3, but the chip at \S+ is an ESP32-P4"
    with Devkit("esp32p4") as devkit, pytest.raises(ConfigError, match=expected):
        board_rig(case, devkit.url).find_ports()


@pytest.fixture
def silent_port():
    """Accepts connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept = []
        threading.Thread(target=lambda: accept(server, kept), daemon=True).start()
        yield f"rfc2217://127.0.0.1:{server.getsockname()[1]}"
        for connection in kept:
            connection.close()


def accept(server, kept):
    try:
        while True:
            kept.append(server.accept()[0])
    except OSError:
        return


def test_a_silent_port_is_one_error_before_anything_is_built(case, silent_port):
    with pytest.raises(DeviceError, match="no ESP32-S3 answers") as error:
        board_rig(case, silent_port).find_ports()
    assert error.value.port == silent_port


def test_a_closed_port(case):
    with pytest.raises(DeviceError, match="no ESP32-S3 answers"):
        board_rig(case, "rfc2217://127.0.0.1:1").find_ports()


def test_a_lab_may_name_the_port(case):
    with Devkit("esp32s3") as devkit:
        rig = board_rig(case, None, find_port=lambda target: devkit.url)
        rig.find_ports()
        assert rig.ports == {"esp32s3": devkit.url}
        rig.close()  # it has kept the board until now
        other = board_rig(case, devkit.url, find_port=lambda target: "rfc2217://127.0.0.1:1")
        other.find_ports()  # a port that was named is not asked for
        assert other.ports == {"esp32s3": devkit.url}


def test_a_disk_that_is_full_before_the_build_is_said(case, monkeypatch):
    def fail(*_, **_options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "esp32s3.log")

    monkeypatch.setattr(build, "build_firmware", fail)
    full = r"no room to work in: No space left on device \(esp32s3\.log\)"
    with pytest.raises(ConfigError, match=full):
        board_rig(case, "rfc2217://127.0.0.1:1").build()


def test_simulated_devkits_need_no_port(case):
    Rig(Settings(), [case]).find_ports()


def test_a_board_that_does_not_come_up_ends_the_run(case, monkeypatch):
    def fail(rig, target):
        raise DeviceError("no reply", port="p")

    monkeypatch.setattr(Rig, "_bring_up", fail)
    with pytest.raises(DeviceError, match="no reply"):
        board_rig(case, "p").bring_up()
    simulated = Rig(Settings(), [case])
    simulated.bring_up()  # belongs to its cases
    with pytest.raises(DeviceError, match="not tried again, it did not come up: p: no reply"):
        simulated.dut("esp32s3")


def test_what_settings_have_done_is_said_once_a_recipe(case, monkeypatch):
    rig = Rig(Settings(), [case, case])
    notes = ["weights are coarser"]
    rig._results = {rig._recipe(case).key: SimpleNamespace(notes=lambda chunk_frames: notes)}
    monkeypatch.setattr(rig, "prepare", lambda progress: None)
    said = io.StringIO()

    make_ready(rig, said, devices=False)

    assert said.getvalue() == "quantization: residual int8 esp32s3: weights are coarser\n"
    notes.clear()
    assert rig.notes == ()


def refusal(text, *chunks):
    error = StreamingError(text, rule="S120", node="conv")
    error.chunk_frames = list(chunks)
    return error


def test_a_refused_chunk_size_fails_its_own_rows_only(case):
    model = replace(case.model, chunk_frames=(3, 4, 6))
    three, four, six = (replace(case, model=model, chunk_frames=n) for n in (3, 4, 6))
    rig = Rig(Settings(), [three, four, six])
    error = refusal("3 slips", 3)
    error.others = [vars(refusal("6 slips", 6))]
    recipe = rig._recipe(four)
    made = SimpleNamespace(lint={4: []})
    rig._results = {recipe.key: error, replace(recipe, chunk_frames=(4,)).key: made}

    assert rig.expected(four).artifacts is made
    for refused in (three, six):
        with pytest.raises(StreamingError) as raised:
            rig.expected(refused)
        assert str(raised.value) == f"[S120] conv: {refused.chunk_frames} slips"

    error.others.append(vars(refusal("all slip")))  # then nothing is left to be made
    rig._expected.clear()
    with pytest.raises(StreamingError, match="all slip"):
        rig.expected(four)


def test_a_board_that_needed_recovery_too_often_is_put_out_and_said(case, tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path))
    with Devkit("esp32s3") as devkit:
        board = BenchBoard(
            "s3-1", "esp32s3", devkit.url, quarantine=Quarantine(2), bench="bench.toml"
        )
        told = []
        rig = Rig(Settings(device="serial", boards=(board,)), [case], tell=told.append)
        with contextlib.closing(rig):
            rig.find_ports()
            rig._duts["esp32s3"] = SimpleNamespace(recover=lambda reason: None, incidents=())
            rig.recover("esp32s3", "panic\nand its console")
            assert told == []
            rig.recover("esp32s3", "brownout")
        (line,) = told
        assert line.startswith("s3-1 is out of service from now on: 2 recoveries within 24 h")
        with pytest.raises(BusyError, match="s3-1 is out of service: 2 recoveries"):
            Rig(Settings(device="serial", boards=(board,)), [case]).find_ports()
        clear(board.identity)
        with contextlib.closing(Rig(Settings(device="serial", boards=(board,)), [case])) as again:
            again.find_ports()
            again._duts["esp32s3"] = SimpleNamespace(recover=fail_to_recover, incidents=())
            again.recover("esp32s3", "no reply")
        assert "it did not come back: no reply" in read_record(board.identity).out


def fail_to_recover(reason):
    raise DeviceError("nothing helped", port="p")
