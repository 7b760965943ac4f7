"""The whole devkit over its port: boots, resets, faults, and what it leaves behind."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import threading
import time
from pathlib import Path

import pytest

from espdl_hil.errors import ConfigError, DeviceError
from espdl_hil.espdl import load_graph
from espdl_hil.simulator import Devkit, application, rom
from espdl_hil.simulator import devkit as devkit_module
from espdl_hil.simulator.faults import (
    BrownoutLoop,
    CorruptBytes,
    DropBytes,
    Panic,
    SilentPort,
    SlowPort,
    StuckBoot,
    WrongShift,
)
from espdl_hil.simulator.port import SerialPort
from espdl_hil.wire import framing, messages

CASE = "stream_residual.streaming.esp32s3.int8"
MAIN = b"I (0) main_task: Calling app_main()\r\n"
BOOTED_BYTES = 32  # of the event's frame, at least


@pytest.fixture
def case(golden):
    return golden(CASE)


@pytest.fixture
def flash_file(make_flash, case):
    return make_flash("esp32s3", {"model": case.model})


@pytest.fixture
def devkit(flash_file):
    with Devkit("esp32s3", flash_file=flash_file) as devkit:
        yield devkit


@pytest.fixture
def booted(devkit, connect, reset):
    """An open port behind which the application has just started."""
    port = connect(devkit)
    reset(port)
    port.read_until(MAIN)
    return port


def console_until(port, text, timeout_s=3.0):
    """Everything up to *text*; fails when it does not come."""
    port.timeout = timeout_s
    received = port.read_until(text)
    assert received.endswith(text), received.decode("utf-8", "replace")
    return received.decode("utf-8", "replace")


def streams_rightly(wire, case):
    loaded = wire.load("model")
    replies = wire.stream(loaded.handle, [case.chunk(step) for step in case.steps])
    return [reply.data for reply in replies] == [case.result(step) for step in case.steps]


# -- boots -------------------------------------------------------------------


@pytest.mark.parametrize("target", ["esp32s3", "esp32p4"])
def test_the_console_of_an_application(target, make_flash, builds, connect, reset):
    sha = (builds[target] / "espdl_hil_sim.bin").read_bytes()[0xB0:0xD0].hex()
    with Devkit(target, flash_file=make_flash(target, {})) as devkit:
        port = connect(devkit)
        reset(port)
        console = console_until(port, MAIN)
    assert console.split("\r\n")[-9:] == [
        "I (0) boot: Disabling RNG early entropy source...",
        "I (0) cpu_start: Multicore app",
        "I (0) app_init: Application information:",
        "I (0) app_init: Project name:     espdl_hil_sim",
        f"I (0) app_init: App version:      {sha[:12]}",
        f"I (0) app_init: ELF file SHA256:  {sha[:9]}...",
        "I (0) app_init: ESP-IDF:          none (simulated)",
        "I (0) main_task: Calling app_main()",
        "",
    ]


def test_models_stream_from_flash(booted, talk, case):
    assert streams_rightly(talk(booted), case)


@pytest.mark.parametrize("target", ["esp32s3", "esp32p4"])
def test_hello_describes_the_flashed_application(target, make_flash, builds, connect, talk):
    sha = (builds[target] / "espdl_hil_sim.bin").read_bytes()[0xB0:0xD0]
    with Devkit(target, flash_file=make_flash(target, {})) as devkit:
        hello = talk(connect(devkit)).ask(messages.Hello())
    assert hello.target == target
    assert hello.app_sha256 == sha
    assert hello.idf_version == "none (simulated)"
    assert hello.espdl_version == "3.3.9 (simulated)"
    assert hello.chip_revision == {"esp32s3": 2, "esp32p4": 301}[target]
    assert hello.flags == messages.DeviceFlag.SIMULATED | messages.DeviceFlag.PULSES


def test_every_boot_draws_a_nonce(devkit, connect, talk, reset):
    nonces = []
    for restart in ("none", "en", "client"):
        port = connect(devkit)
        wire = talk(port)
        if restart == "en":
            reset(port)
            console_until(port, MAIN)
        elif restart == "client":
            wire.ask(messages.Hello())
            assert wire.ask(messages.Reboot()) == messages.RebootReply()
            console = wire.console  # what came with the reply
            if MAIN not in console:
                console += console_until(port, MAIN).encode()
            assert b"rst:0x3 (RTC_SW_SYS_RST)" in console
        nonces.append(wire.ask(messages.Hello()).boot_nonce)
        port.close()
    assert len(set(nonces)) == 3


def test_a_reset_kills_a_running_core_and_its_state(booted, talk, case, reset):
    wire = talk(booted)
    handle = wire.load("model").handle
    wire.stream(handle, [case.chunk(0)])
    reset(booted)
    assert "rst:0x1 (POWERON)" in console_until(booted, MAIN)
    assert wire.ask(messages.Reset(handle)).code == messages.ErrorCode.NO_SESSION
    assert streams_rightly(talk(booted), case)


def test_a_chip_held_in_reset_is_silent(devkit, connect):
    port = connect(devkit)
    port.rts = True
    port.write(messages.encode(messages.Hello(), session=1, seq=0))
    port.timeout = 0.2
    assert port.read(1) == b""
    port.rts = False
    console_until(port, MAIN)


def test_what_was_flashed_is_what_boots(devkit, connect, reset):
    port = connect(devkit)
    devkit.flash.erase(0x10000, 4096)
    reset(port)
    console = console_until(port, b"No bootable app partitions in the partition table\r\n")
    assert "image at 0x10000 has invalid magic byte (nothing flashed here?)" in console


def test_a_chip_that_cannot_boot_keeps_trying(connect, monkeypatch):
    monkeypatch.setattr(devkit_module, "RETRY_S", 0.1)
    with Devkit("esp32s3") as devkit:
        port = connect(devkit)
        for _ in range(2):
            assert "rst:0x7 (TG0WDT_SYS_RST)" in console_until(
                port, b"invalid header: 0xffffffff\r\n" * 8
            )


def test_a_stale_application_is_told_on_the_console(devkit, connect, reset, monkeypatch):
    monkeypatch.setattr(devkit, "_core_sha256", bytes(32))
    port = connect(devkit)
    reset(port)
    console_until(
        port,
        b"W (0) simulator: the flashed application was built from other firmware sources than "
        b"those that run here; flash it again\r\n" + MAIN,
    )


def test_an_application_for_a_real_chip_does_not_run(devkit, connect, reset, monkeypatch):
    monkeypatch.setattr(application, "PROJECT", "something_else")
    port = connect(devkit)
    reset(port)
    console_until(
        port,
        b"E (0) simulator: this application was built for a real chip; a simulated devkit runs "
        b"something_else\r\n",
    )
    port.timeout = 0.2
    assert port.read(1) == b""


def test_a_damaged_models_partition_is_told_on_the_console(devkit, connect, reset):
    devkit.flash.program(0x310000 + 64, bytes(64))
    port = connect(devkit)
    reset(port)
    console_until(port, MAIN)
    assert re.fullmatch(
        r"W \(0\) hil: models partition: .+\r\n", console_until(port, b"\r\n").lstrip("\x00")
    )


# -- clients -----------------------------------------------------------------


def test_clients_come_and_go(devkit, connect, talk, case):
    for _ in range(5):
        port = connect(devkit)
        assert streams_rightly(talk(port), case)
        port.close()


def test_a_client_that_is_killed_is_replaced(devkit, connect, talk, case):
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", devkit.port)) as client:
            client.sendall(b"\x00half a packet")
            linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"  # closing resets the connection
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    port = connect(devkit)
    assert streams_rightly(talk(port), case)


def test_a_client_that_leaves_in_reset_lets_the_chip_boot(devkit, connect, talk):
    port = connect(devkit)
    before = talk(port).ask(messages.Hello()).boot_nonce
    port.rts = True
    port.close()
    assert talk(connect(devkit)).ask(messages.Hello()).boot_nonce != before


# -- what it leaves behind ---------------------------------------------------


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_nothing_is_left(flash_file, connect, reset):
    with Devkit("esp32s3", flash_file=flash_file):
        pass  # everything that is made once has been made
    threads, files = set(threading.enumerate()), open_files()
    with Devkit("esp32s3", flash_file=flash_file) as devkit:
        number = devkit.port
        port = connect(devkit)
        reset(port)
        console_until(port, MAIN)
        port.close()
    assert set(threading.enumerate()) == threads
    assert open_files() == files
    SerialPort(number).close()  # the port is free


def is_dropped(port):
    """Whether a client notices that its devkit is gone."""
    port.timeout = 0.05
    deadline = time.monotonic() + 3
    try:
        while time.monotonic() < deadline:
            port.read(4096)
            port.write(b"x")
    except OSError:
        return True
    return False


def test_it_closes_under_a_connected_client(flash_file, connect):
    with Devkit("esp32s3", flash_file=flash_file) as devkit:
        port = connect(devkit)
        started = time.monotonic()
    assert time.monotonic() - started < 5
    assert is_dropped(port)


def test_two_at_once(make_flash, case, golden, connect, talk):
    p4 = golden("stream_residual.streaming.esp32p4.int8")
    with (
        Devkit("esp32s3", flash_file=make_flash("esp32s3", {"model": case.model})) as one,
        Devkit("esp32p4", flash_file=make_flash("esp32p4", {"model": p4.model})) as two,
    ):
        assert one.url != two.url
        wires = [talk(connect(one)), talk(connect(two))]
        assert streams_rightly(wires[0], case)
        assert streams_rightly(wires[1], p4)


def test_flash_without_a_file_is_forgotten(flash_file):
    with Devkit("esp32s3") as devkit:
        devkit.flash.program(0, b"gone")
    with Devkit("esp32s3") as devkit:
        assert devkit.flash.read(0, 4) == b"\xff" * 4


def test_a_crash_of_the_simulator_is_told(flash_file, monkeypatch, connect):
    def broken(*_):
        raise ZeroDivisionError("on purpose")

    monkeypatch.setattr(rom.LoaderLink, "recv", broken)
    devkit = Devkit("esp32s3", flash_file=flash_file).__enter__()
    url = devkit.url
    port = connect(devkit)
    port.rts = True
    port.dtr = True
    with contextlib.suppress(OSError):  # the answer may be lost with the connection
        port.rts = False
    assert is_dropped(port)
    with pytest.raises(DeviceError) as error:
        devkit.__exit__(None, None, None)
    assert str(error.value) == (
        f"{url}: the simulated devkit crashed: ZeroDivisionError: on purpose\n"
        "  hint: this is a defect of the harness, not of your model"
    )


def test_an_impossible_revision():
    with pytest.raises(ConfigError) as error:
        Devkit("esp32s3", revision=999)
    assert str(error.value) == (
        "ESP32-S3 cannot have revision 999\n  hint: major * 100 + minor, for example 2"
    )


def test_a_taken_port(devkit):
    with pytest.raises(ConfigError, match="cannot serve a simulated devkit"):
        Devkit("esp32s3", port=devkit.port).__enter__()


# -- faults ------------------------------------------------------------------


def test_a_panic_in_a_stream(booted, devkit, talk, case):
    wire = talk(booted)
    handle = wire.load("model").handle
    devkit.inject(Panic(after_bytes=100))
    started = wire.ask(messages.Start(handle, messages.StartFlag.RESET))
    for index in range(3):
        chunk = messages.Chunk(started.stream, index, 0, case.chunk(index))
        booted.write(messages.encode(chunk, session=1, seq=index))
    console = console_until(booted, b"Rebooting...\r\n")
    sha = devkit._core_sha256.hex()[:9]
    assert console.endswith(
        "\r\nGuru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception was unhandled."
        "\r\n\r\nCore  0 register dump:\r\nPC      : 0x40375234\r\n\r\n"
        f"ELF file SHA256: {sha}\r\n\r\nRebooting...\r\n"
    )
    assert "rst:0xc (RTC_SW_CPU_RST)" in console_until(booted, MAIN)
    assert streams_rightly(talk(booted), case)


@pytest.mark.parametrize("fault", [Panic(0, boots=None), BrownoutLoop(), StuckBoot()])
def test_a_chip_that_never_comes_up_can_be_closed(flash_file, fault):
    with Devkit("esp32s3", flash_file=flash_file, faults=[fault]):
        time.sleep(0.05)
        started = time.monotonic()
    assert time.monotonic() - started < 5


def test_a_stuck_boot(booted, devkit, talk, case, reset):
    devkit.inject(StuckBoot(boots=1))
    reset(booted)
    booted.timeout = 0.5
    console = booted.read(100_000)
    assert b"ESP-ROM:esp32s3" in console
    assert b"Loaded app" not in console
    reset(booted)
    console_until(booted, MAIN)
    assert streams_rightly(talk(booted), case)


def test_a_brownout_loop(booted, devkit, talk, case, reset):
    talk(booted).ask(messages.Hello())  # the first boot has taken what faults there were
    devkit.inject(BrownoutLoop(boots=2))
    reset(booted)
    console_until(booted, MAIN)
    for _ in range(2):
        console_until(booted, b"E (0) BOD: Brownout detector was triggered\r\n\r\n")
        assert "rst:0x3 (RTC_SW_SYS_RST)" in console_until(booted, MAIN)
    assert streams_rightly(talk(booted), case)


def test_a_silent_port_hears_nothing_more(booted, devkit, talk):
    wire = talk(booted)
    wire.ask(messages.Hello())
    devkit.inject(SilentPort())
    booted.timeout = 0.2
    with pytest.raises(AssertionError, match="no answer"):
        wire.ask(messages.Hello())
    devkit.clear()
    booted.timeout = 3
    assert isinstance(talk(booted).ask(messages.Hello()), messages.HelloReply)


def test_a_slow_port_takes_its_time(booted, devkit, talk):
    wire = talk(booted)
    wire.ask(messages.Hello())
    devkit.inject(SlowPort(bytes_per_s=1000))
    started = time.monotonic()
    wire.ask(messages.Hello())
    assert time.monotonic() - started > 0.15  # over 150 bytes
    devkit.clear()


def test_a_reset_does_not_wait_for_a_slow_port(booted, devkit, reset):
    devkit.inject(SlowPort(bytes_per_s=1))
    booted.write(messages.encode(messages.Hello(), session=1, seq=0))
    time.sleep(0.05)
    devkit.clear()
    reset(booted)
    console_until(booted, MAIN, timeout_s=1.0)


@pytest.mark.parametrize("kind", [DropBytes, CorruptBytes])
def test_damaged_bytes_are_noticed(booted, devkit, kind):
    devkit.inject(kind(0.05, seed=1, direction="to_host"))
    decoder = framing.Decoder()
    packets, damaged = 0, 0
    booted.timeout = 0.03
    for seq in range(30):
        booted.write(messages.encode(messages.Hello(), session=1, seq=seq))
        for event in decoder.feed(booted.read(4096)):
            packets += isinstance(event, framing.Packet)
            damaged += isinstance(event, framing.DamagedFrame)
    assert packets < 30
    assert damaged > 0


def test_a_fault_of_the_arithmetic_is_told_on_the_console(booted, devkit, talk, case):
    node = next(n.name for n in load_graph(case.model).nodes if n.op_type == "Conv")
    wire = talk(booted)
    devkit.inject(WrongShift(node, model="model"))
    assert not streams_rightly(wire, case)
    assert wire.console.decode().endswith(
        f"W (0) simulator: WrongShift(model='model', node='{node}', bits=1) acts in model model\r\n"
    )


def test_faults_do_not_touch_the_loader(flash_file, tmp_path, connect):
    file = shutil.copy(flash_file, tmp_path / "copy.flash")
    with Devkit("esp32s3", flash_file=file, faults=[DropBytes(1.0), SilentPort()]) as devkit:
        port = connect(devkit)
        port.rts = True
        port.dtr = True
        port.rts = False
        console_until(port, b"waiting for download\r\n")


def test_a_mac_that_is_none_is_refused():
    for mac in ("7c:df", "7c-df-a1-00-11-22", "7c:df:a1:00:11:2g", "7c:df:a1:00:11:222"):
        with pytest.raises(ConfigError, match="is no MAC"):
            Devkit("esp32s3", mac=mac)
