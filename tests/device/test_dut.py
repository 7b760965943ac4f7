"""The life of a DUT on a simulated devkit: flash, boot, faults, recovery, and leaving no trace."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import serial

from espdl_hil.device.claim import Candidate, Claim
from espdl_hil.device.dut import Dut, DutConfig
from espdl_hil.device.errors import (
    BootError,
    CrashError,
    HandshakeError,
    StaleArtifactError,
    TransportError,
)
from espdl_hil.device.recovery import MAX_RECOVERIES
from espdl_hil.device.rfc2217_handler import event_url
from espdl_hil.errors import ArtifactError, ConfigError, DeviceError
from espdl_hil.espdl import write_package
from espdl_hil.simulator.devkit import Devkit
from espdl_hil.simulator.faults import BrownoutLoop, Panic, SilentPort, StuckBoot
from espdl_hil.simulator.image import build_app

from .conftest import QUICK


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture(autouse=True)
def no_trace():
    """Every test gives back what it took."""
    before = set(threading.enumerate())
    yield
    names = [thread.name for thread in threading.enumerate() if thread not in before]
    assert not [name for name in names if name.startswith(("dut ", "rfc2217 "))]


def works(dut, golden):
    model = dut.session.load("streaming")
    results = model.stream(golden.chunks, reset=True)
    return all(
        (result.outputs[name] == golden.tensor(step, "out", name)).all()
        for step, result in enumerate(results)
        for name in golden.outputs
    )


def edl(data):
    return b"EDL2" + bytes(4) + len(data).to_bytes(4, "little") + bytes(4) + data


# -- flash and boot --------------------------------------------------------------


def test_connect_flash_a_mebibyte_verify_and_boot_within_four_seconds(build_dir):
    package = write_package([("noise", edl(random.Random(1).randbytes(1 << 20)))])
    with Devkit("esp32s3") as kit:
        started = time.monotonic()
        with Dut(DutConfig("esp32s3", build_dir, port=kit.url), models=package) as dut:
            assert time.monotonic() - started < 4
            assert max(dut._board.flashed) == len(package) > 1 << 20
            assert kit.flash.read(dut._firmware.models.offset, len(package)) == package


def test_a_p4_boots_as_well(tmp_path):
    with (
        Devkit("esp32p4") as kit,
        Dut(DutConfig("esp32p4", build_app("esp32p4", tmp_path), port=kit.url)) as dut,
    ):
        assert (dut.info.target, dut.info.revision) == ("esp32p4", 301)
        assert dut.session.models() == ()


def test_what_is_in_flash_already_is_not_written_again(config, package, streaming):
    with Dut(config, models=package) as dut:
        assert dut._board.flashed == []
        assert not dut.flash(package)
        assert works(dut, streaming)


def test_the_spelling_of_older_esp_idf_is_understood(config, build_dir, devkit, tmp_path):
    build = shutil.copytree(build_dir, tmp_path / "build")
    file = build / "flasher_args.json"
    arguments = json.loads(file.read_text())
    settings = {"--flash_mode": "dio", "--flash_size": "16MB", "--flash_freq": "80m"}
    arguments["write_flash_args"] = [text for pair in settings.items() for text in pair]
    arguments["extra_esptool_args"] |= {"after": "hard_reset", "before": "default_reset"}
    file.write_text(json.dumps(arguments))
    devkit.flash.erase(0x10000, 4096)
    with Dut(replace(config, build_dir=build)) as dut:
        assert len(dut._board.flashed) == 1


def test_only_the_changed_models_partition_is_written(config, package, streaming, offline):
    with Dut(config, models=package) as dut:
        nonce = dut.info.boot_nonce
        changed = write_package([("streaming", streaming.model), ("new", offline.model)])
        assert dut.flash(changed)
        assert len(dut._board.flashed) == 1
        assert dut.info.boot_nonce != nonce
        assert [model.name for model in dut.session.models()] == ["streaming", "new"]
        assert works(dut, streaming)


def test_a_changed_app_is_written_and_the_models_stay(config, devkit, package, streaming):
    devkit.flash.erase(0x10000, 4096)
    with Dut(config, models=package) as dut:
        assert len(dut._board.flashed) == 1
        assert works(dut, streaming)


def test_a_package_must_fit_the_partition(config):
    with Dut(config) as dut:
        size = dut._firmware.models.size
        too_large = write_package([("large", edl(bytes(size)))])
        with pytest.raises(ConfigError, match=rf"the partition 'models' {size}"):
            dut.flash(too_large)
        assert dut.session.memory().psram_total > 0  # nothing has happened


def test_what_is_no_package_is_not_flashed(config, streaming, package):
    with Dut(config, models=package) as dut:
        with pytest.raises(ArtifactError):
            dut.flash(b"PDL3 and then nothing")
        assert works(dut, streaming)


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_device_session_starts_no_process(config, devkit, package):
    def children():
        tasks = Path(f"/proc/{os.getpid()}/task").iterdir()
        return {pid for task in tasks for pid in (task / "children").read_text().split()}

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as one:
        assert str(one.pid) in children()  # it would be seen
        one.communicate(b"\n")
    before = children()
    with Dut(config, models=package) as dut:
        dut.flash(write_package([("noise", edl(bytes(1000)))]))
        dut.recover("a reason")
        assert children() <= before


def test_esptool_and_console_share_a_log(config, capfd):
    with Dut(config) as dut:
        assert dut.expect(r"Calling (\w+)\(\)", 2).group(1) == "app_main"
        with pytest.raises(
            DeviceError, match=r"'never' did not appear on the console within 0\.1 s"
        ):
            dut.expect("never", 0.1)
        log = dut.log_path.read_text(errors="replace")
    assert "Connecting" in log
    assert "ELF file SHA256" in log
    assert capfd.readouterr() == ("", "")


def test_console_text_is_passed_on(config):
    pieces = []
    with Dut(config, sink=pieces.append):
        pass
    assert b"app_main" in b"".join(pieces)


# -- the wrong thing on the port -------------------------------------------------


def test_another_chip_is_the_users_mistake(config, tmp_path):
    other = replace(config, target="esp32p4", build_dir=build_app("esp32p4", tmp_path / "p4"))
    with pytest.raises(ConfigError) as caught, Dut(other):
        pass
    assert "This chip is ESP32-S3, not ESP32-P4" in str(caught.value)
    assert config.port in str(caught.value)
    with Dut(config):
        pass  # nothing holds the port


def test_nobody_behind_the_port_is_the_users_mistake(config):
    nobody = replace(config, port="rfc2217://127.0.0.1:9")
    with (
        pytest.raises(ConfigError, match=r"port rfc2217://127\.0\.0\.1:9 cannot be opened"),
        Dut(nobody),
    ):
        pass


def test_a_build_for_another_target_is_refused(config, tmp_path):
    other = replace(config, build_dir=build_app("esp32p4", tmp_path / "p4"))
    with (
        pytest.raises(ConfigError, match="was built for esp32p4, the device is an esp32s3"),
        Dut(other),
    ):
        pass


def test_a_folder_without_a_build_is_refused(config, tmp_path):
    with (
        pytest.raises(ConfigError, match="is no finished ESP-IDF build"),
        Dut(replace(config, build_dir=tmp_path)),
    ):
        pass


def test_a_port_serves_one_session_at_a_time(config):
    taken = r"in use .*\(held by pid \d+, user \S+, since \d+ s, 0 ahead\)"
    with Dut(config), pytest.raises(ConfigError, match=taken), Dut(config):
        pass


def test_an_app_that_is_not_the_built_one_is_refused(config, monkeypatch):
    with Dut(config) as dut:
        dut._firmware = replace(dut._firmware, app_sha256="0" * 64)
        with pytest.raises(HandshakeError) as caught:
            dut.reset()
        assert "has 0000000000000000…" in str(caught.value)
        with pytest.raises(HandshakeError):
            dut.recover("wrong app")
        assert [incident.action for incident in dut.incidents] == ["soft reset"]  # no retry helps
    with Dut(config) as dut:  # a run after it flashes what is meant
        dut.session.memory()


def test_a_stale_model_in_flash_never_passes(config, devkit, package):
    with Dut(config, models=package) as dut:
        offset = dut._firmware.models.offset
        content = devkit.flash.read(offset, len(package))
        at = content.index(b"EDL2") + 2000
        bit = next(b for b in range(8) if content[at] >> b & 1)
        devkit.flash.program(offset + at, bytes([content[at] & ~(1 << bit)]))
        dut.reset()
        with pytest.raises((StaleArtifactError, DeviceError)) as caught:
            dut.session.load("streaming")
        assert "BAD_PACKAGE" in str(caught.value) or isinstance(caught.value, StaleArtifactError)


# -- faults and recovery -----------------------------------------------------------


def test_a_silent_port_ends_in_time(config, devkit, package, streaming):
    with Dut(config, models=package) as dut:
        model = dut.session.load("streaming")
        model.describe()
        devkit.inject(SilentPort())
        started = time.monotonic()
        with pytest.raises(TransportError, match="no reply to Start within 1 s"):
            model.stream(streaming.chunks)
        assert time.monotonic() - started < 5
        with pytest.raises(TransportError, match="no reply to Start"):
            dut.session.memory()  # the first failure stands
        devkit.clear()
        dut.recover("silent")
        assert works(dut, streaming)
        assert [(i.reason, i.action, i.outcome) for i in dut.incidents] == [
            ("silent", "soft reset", "recovered")
        ]


def test_a_crash_is_told_as_the_console_tells_it(config, devkit, package, streaming):
    with Dut(config, models=package) as dut:
        devkit.inject(Panic(after_bytes=2500))
        dut.reset()
        model = dut.session.load("streaming")
        started = time.monotonic()
        with pytest.raises(CrashError) as caught:
            model.stream(streaming.chunks * 4, reset=True)
        assert time.monotonic() - started < 5
        assert caught.value.kind == "panic"
        assert "the device crashed: core 0 panicked: LoadProhibited" in str(caught.value)
        assert "Guru Meditation Error" in caught.value.console_tail
        dut.recover(caught.value.message)
        assert works(dut, streaming)


def test_a_reset_takes_no_time_but_its_own(config):
    with Dut(config) as dut:
        took_s = []
        for _ in range(3):
            nonce = dut.info.boot_nonce
            started = time.monotonic()
            dut.reset()
            took_s.append(time.monotonic() - started)
            assert dut.info.boot_nonce != nonce
        assert min(took_s) < 1, took_s


def test_a_device_that_restarts_by_itself_is_noticed(config, package, streaming):
    with Dut(config, models=package) as dut:
        model = dut.session.load("streaming")
        model.describe()
        dut._board.reset()  # behind the session's back
        with pytest.raises(TransportError, match="the device restarted"):
            model.stream(streaming.chunks)


def test_a_boot_loop_is_named(config, devkit):
    devkit.inject(BrownoutLoop())
    started = time.monotonic()
    with pytest.raises(BootError) as caught, Dut(config):
        pass
    assert time.monotonic() - started < 15
    text = str(caught.value)
    assert re.search(
        r"restarts again and again \(\d+ resets\): supply voltage dropped \(brownout\)", text
    )
    assert "USB cable" in text


def test_a_boot_that_hangs_is_mended_by_a_reset(config, devkit, package, streaming):
    with Dut(config):
        pass  # so the boot at power-on is over
    devkit.inject(StuckBoot(boots=1))
    with Dut(replace(config, timing=replace(QUICK, boot_s=1.0)), models=package) as dut:
        assert works(dut, streaming)
        assert [(i.action, i.outcome == "recovered") for i in dut.incidents] == [
            ("soft reset", False),
            ("EN reset", True),
        ]
        assert "no answer to HELLO within 1 s" in dut.incidents[0].reason


def test_a_damaged_flash_is_mended_by_flashing(config, devkit, package, streaming):
    with Dut(config, models=package) as dut:
        devkit.flash.erase(0x10000, 4096)
        with pytest.raises(BootError, match="the app image is damaged"):
            dut.reset()
        dut.recover("app erased")
        assert [i.action for i in dut.incidents] == ["soft reset", "EN reset", "reflash"]
        assert dut.incidents[-1].outcome == "recovered"
        assert works(dut, streaming)


def with_power_switch(config, switch):
    """A device whose boot hangs; only cutting its power, or flashing, would help."""
    return replace(config, power_cycle=switch, timing=replace(QUICK, boot_s=0.5))


def test_cutting_the_power_is_tried_before_flashing(config, devkit, package, streaming):
    cut = []

    def switch():
        cut.append(True)
        devkit.clear()
        dut._board.reset()  # power that comes back starts the chip
        return True

    with Dut(with_power_switch(config, switch), models=package) as dut:
        devkit.inject(StuckBoot())
        dut.recover("hangs")
        assert [(i.action, i.recovered) for i in dut.incidents] == [
            ("soft reset", False),
            ("EN reset", False),
            ("power cycle", True),
        ]
        assert cut == [True]
        assert works(dut, streaming)


def test_power_that_was_cut_in_vain_is_no_recovery(config, devkit, package):
    with Dut(with_power_switch(config, lambda: True), models=package) as dut:
        devkit.inject(StuckBoot())
        with pytest.raises(BootError, match="no answer to HELLO"):
            dut.recover("hangs")
        assert [(i.action, i.recovered) for i in dut.incidents] == [
            ("soft reset", False),
            ("EN reset", False),
            ("power cycle", False),
            ("reflash", False),
        ]
        assert all("no answer to HELLO" in incident.outcome for incident in dut.incidents)


def test_a_board_whose_power_cannot_be_switched_is_flashed(config, devkit, package):
    with Dut(with_power_switch(config, lambda: False), models=package) as dut:
        devkit.inject(StuckBoot(boots=2))
        dut.recover("hangs")
        assert [(i.action, i.recovered) for i in dut.incidents] == [
            ("soft reset", False),
            ("EN reset", False),
            ("reflash", True),
        ]


def test_a_power_switch_that_breaks_is_told_and_does_not_end_the_recovery(config, devkit, package):
    def broken():
        raise OSError("relay board not found")

    with Dut(with_power_switch(config, broken), models=package) as dut:
        devkit.inject(StuckBoot(boots=2))
        dut.recover("hangs")
        assert [incident.action for incident in dut.incidents][2:] == ["power cycle", "reflash"]
        assert dut.incidents[2].outcome == (
            f"{config.port}: the power switch failed: OSError: relay board not found"
        )


def test_a_board_that_fails_for_ever_is_given_up(config, package):
    with Dut(config, models=package) as dut:
        for _ in range(MAX_RECOVERIES):
            dut.recover("again")
        with pytest.raises(TransportError, match=f"brought back {MAX_RECOVERIES} times already"):
            dut.recover("again")


def test_a_devkit_that_vanishes_is_a_transport_fault(build_dir, monkeypatch):
    with Devkit("esp32s3") as kit:
        dut = Dut(DutConfig("esp32s3", build_dir, port=kit.url, timing=QUICK))
        dut.__enter__()
    with pytest.raises(TransportError, match=r"the port failed: .*connection lost"):
        dut.session.memory()
    monkeypatch.setattr("espdl_hil.device.board.REAPPEAR_S", 0.2)
    with pytest.raises(TransportError, match=r"the port did not come back within 0\.2 s"):
        dut.recover("unplugged")
    assert [incident.action for incident in dut.incidents] == ["soft reset", "EN reset", "reflash"]
    dut.close()
    dut.close()


def test_a_dropped_connection_is_opened_again(config, devkit, package, streaming, start_server):
    clients = []

    def forward(client):
        clients.append(client)
        with socket.create_connection(("127.0.0.1", devkit.port)) as upstream:
            back = threading.Thread(target=pump, args=(upstream, client))
            back.start()
            pump(client, upstream)
            back.join()

    server = start_server(forward)
    with Dut(replace(config, port=f"rfc2217://{server.address}"), models=package) as dut:
        clients[-1].shutdown(socket.SHUT_RDWR)
        with pytest.raises(TransportError, match="the port failed"):
            dut.session.memory()
        dut.recover("cut")
        assert works(dut, streaming)
        assert dut.incidents[0].outcome == "recovered"


# -- emulators ---------------------------------------------------------------------


@pytest.fixture
def emulator(config, start_server):
    """A socket with a running app behind it, as emulators offer."""
    with Dut(config):
        pass
    serve = bridge(config.port)
    return f"socket://{start_server(serve).address}"


def bridge(url):
    def serve(client):
        port = serial.serial_for_url(event_url(url), do_not_open=True, timeout=0.1)
        port.rts = port.dtr = False
        with port:
            stopped = threading.Event()

            def back():
                with contextlib.suppress(OSError):
                    while not stopped.is_set():
                        client.sendall(port.read(max(1, port.in_waiting)))

            thread = threading.Thread(target=back)
            thread.start()
            with contextlib.suppress(OSError):
                while data := client.recv(65536):
                    port.write(data)
            stopped.set()
            thread.join()

    return serve


def test_an_emulator_is_attached_to_and_takes_uploads(config, emulator, package, streaming):
    with Dut(replace(config, port=emulator), models=package) as dut:
        assert dut.info.port == emulator
        model = dut.session.upload(streaming.model)
        outputs = model.stream(streaming.chunks, reset=True)
        name = streaming.outputs[0]
        assert (outputs[-1].outputs[name] == streaming.tensor(15, "out", name)).all()
        with pytest.raises(ConfigError, match="cannot be flashed through a socket"):
            dut.flash(write_package([("other", streaming.model)]))
        assert works(dut, streaming)  # the flash holds it from before
        with pytest.raises(TransportError, match="behind a socket cannot be reset"):
            dut.reset()
        dut.recover("reset refused")
        assert works(dut, streaming)
        assert dut.incidents[0].action == "soft reset"


def test_an_emulator_that_is_not_there_is_the_users_mistake(config):
    absent = replace(config, port="socket://127.0.0.1:9")
    with pytest.raises(ConfigError, match="start the emulator"), Dut(absent):
        pass


def pump(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def test_leaving_closes_everything_even_after_a_failure(config, devkit):
    with pytest.raises(RuntimeError, match="from the test"), Dut(config):
        raise RuntimeError("from the test")
    Claim([[Candidate.of_port(config.port)]]).acquire().release()
    with Dut(config):
        pass


# -- no trace ------------------------------------------------------------------------

KILLED = """
import sys
from pathlib import Path
from espdl_hil.device.dut import Dut, DutConfig
with Dut(DutConfig("esp32s3", Path(sys.argv[1]), port=sys.argv[2])) as dut:
    print(dut.info.boot_nonce, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="counts processes in /proc")
def test_a_killed_session_leaves_no_process_port_or_lock(config, devkit, build_dir):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(build_dir), devkit.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as session:
        assert len(session.stdout.readline().strip()) == 16
        children = Path(f"/proc/{session.pid}/task/{session.pid}/children").read_text()
        assert children == ""
        with pytest.raises(ConfigError, match=f"pid {session.pid}"), Dut(config):
            pass
        session.send_signal(signal.SIGKILL)
        session.wait(10)
    with Dut(config) as dut:
        assert dut.session.memory().psram_total > 0
