"""Emulated devkits, with a stand-in for QEMU on PATH; no emulator is needed."""

import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from espdl_hil.device.dut import Dut, DutConfig
from espdl_hil.device.errors import BootError, StaleArtifactError
from espdl_hil.device.firmware import Firmware
from espdl_hil.device.flash_image import write_image
from espdl_hil.device.machine import EspEmu, Qemu
from espdl_hil.device.timing import Timing
from espdl_hil.errors import ConfigError
from espdl_hil.espdl import write_package
from espdl_hil.simulator.image import build_app

STAND_IN = Path(__file__).with_name("qemu_stand_in.py")
WAIT_S = 10.0


def install(folder, text):
    program = folder / "qemu-system-xtensa"
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


@pytest.fixture
def program(tmp_path, monkeypatch):
    """The stand-in under QEMU's name on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    found = install(folder, STAND_IN.read_text())
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return found


@pytest.fixture
def firmware(build_dir):
    return Firmware.read(build_dir, "esp32s3")


@pytest.fixture
def machine(program, firmware, package):
    with Qemu(firmware, package) as made:
        yield made


def config_for(machine, **changes):
    plain = DutConfig("esp32s3", machine.firmware.build_dir, port=machine.url, machine=machine)
    return replace(plain, **changes)


def works(dut, golden, name="streaming"):
    outputs = dut.session.load(name).stream(golden.chunks, reset=True)
    (output,) = golden.outputs
    return all(
        (step.outputs[output] == golden.tensor(number, "out", output)).all()
        for number, step in enumerate(outputs)
    )


def running(path):
    """Processes with a word in their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(path).encode() in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until(condition):
    deadline_s = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return condition()


def test_the_firmware_boots_from_the_merged_image_and_is_called_emulated(
    machine, package, streaming
):
    with Dut(config_for(machine), models=package) as dut:
        assert works(dut, streaming)
        assert (dut.info.kind, dut.info.emulator) == ("emulated", "QEMU 0.0.0-stand-in")
        assert not dut.info.measures_time
        assert dut.stored == {"streaming", "offline"}


def test_reset_over_qmp_boots_anew(machine, package, streaming):
    with Dut(config_for(machine), models=package) as dut:
        before = dut.info.boot_nonce
        dut.reset()
        assert dut.info.boot_nonce != before
        assert works(dut, streaming)


def test_new_models_are_patched_into_the_image(machine, package, streaming, offline):
    with Dut(config_for(machine), models=package) as dut:
        before = dut.info.boot_nonce
        assert dut.flash(write_package([("other", streaming.model)]))
        assert dut.info.boot_nonce != before
        assert [model.name for model in dut.session.models()] == ["other"]
        assert works(dut, streaming, "other")
        with pytest.raises(ConfigError, match="the models package has"):
            dut.flash(write_package([("large", offline.model.ljust(9 << 20, b"\0"))]))
        assert works(dut, streaming, "other")


def test_other_bytes_in_flash_are_stale(machine, package, streaming, offline):
    with (
        Dut(config_for(machine), models=package) as dut,
        pytest.raises(StaleArtifactError, match="streaming"),
    ):
        dut.session.load("streaming", offline.model)


def test_an_emulator_that_dies_is_started_again(machine, package, streaming):
    with Dut(config_for(machine), models=package) as dut:
        os.killpg(machine._process.pid, signal.SIGKILL)
        machine._process.wait()
        dut.recover("killed")
        assert dut.incidents[-1].recovered
        assert works(dut, streaming)


def test_deadlines_follow_what_the_boot_took(program, firmware, package):
    with Qemu(firmware, package, arguments=("-slow", "3")) as machine:
        with Dut(config_for(machine), models=package) as dut:
            assert dut._transport.timing.step_s > 3 * Timing().step_s
            assert dut._timing == dut._transport.timing
        fixed = config_for(machine, time_scale=2.0)
        with Dut(fixed, models=package) as dut:
            assert dut._transport.timing == Timing().scaled(2.0)


def test_leaving_stops_the_emulator_and_removes_its_image(program, firmware, package):
    with Qemu(firmware, package) as machine:
        folder = machine._folder
        assert (folder / "flash.bin").stat().st_size == 16 << 20
        assert wait_until(lambda: running(folder))
    assert not running(folder)
    assert not folder.exists()


KILLED = """
import sys
from pathlib import Path
from espdl_hil.device.firmware import Firmware
from espdl_hil.device.machine import Qemu
with Qemu(Firmware.read(Path(sys.argv[1]), "esp32s3"), b"") as machine:
    print(machine._folder, flush=True)
    sys.stdin.read()
"""


def test_a_killed_process_takes_its_emulator_along(program, build_dir):
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(build_dir)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        folder = Path(process.stdout.readline().strip())
        assert wait_until(lambda: len(running(folder)) == 2)  # launcher and emulator
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    assert wait_until(lambda: not running(folder))
    assert not folder.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the pipe alone does not see it elsewhere")
def test_a_killed_launcher_takes_its_emulator_along(machine):
    folder = machine._folder
    assert wait_until(lambda: len(running(folder)) == 2)
    machine._process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not running(folder))


def test_an_emulator_that_cannot_start_says_why(tmp_path, firmware, package):
    program = install(
        tmp_path,
        "import sys\n"
        "if '--version' in sys.argv: print('QEMU emulator version 9.2.2'); sys.exit()\n"
        "sys.exit('libslirp.so.0: cannot open shared object file')\n",
    )
    with (
        Qemu(firmware, package, program=str(program)) as machine,
        pytest.raises(BootError, match=r"QEMU 9\.2\.2 ended with exit code 1\n  libslirp"),
        Dut(config_for(machine), models=package),
    ):
        pass


def test_a_flash_that_qemu_does_not_have_is_refused(program, firmware, package, monkeypatch):
    monkeypatch.setitem(firmware.app.flash_settings, "flash_size", "32MB")
    with (
        pytest.raises(ConfigError, match=r"for a flash of 32 MB; QEMU has those of 2, 4, 8, 16 MB"),
        Qemu(firmware, package),
    ):
        pass


def test_a_program_that_is_no_emulator(tmp_path, firmware, package):
    program = install(tmp_path, "print('hello')\n")
    with pytest.raises(ConfigError, match="--version names no version"):
        Qemu(firmware, package, program=str(program))
    with pytest.raises(ConfigError, match=r"names no version.*\n.*install qemu-riscv32"):
        Qemu(replace(firmware, target="esp32c3"), package, program=str(program))


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        (Qemu, "esp32s3", "there is no qemu-system-xtensa\n.*idf_tools.py install qemu-xtensa"),
        (Qemu, "esp32c3", "there is no qemu-system-riscv32\n.*idf_tools.py install qemu-riscv32"),
        (Qemu, "esp32p4", "QEMU does not emulate esp32p4; it does: esp32s3, esp32, esp32c3"),
        (EspEmu, "esp32p4", "there is no esp-emu\n.*github.com/espressif/esp-emulator"),
        (EspEmu, "esp32s3", "esp-emu does not emulate esp32s3"),
    ],
)
def test_a_missing_emulator_says_how_to_install_it(monkeypatch, tmp_path, kind, target, message):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=message):
        kind.find(target)


def test_the_image_holds_every_part(firmware, package, tmp_path):
    path = tmp_path / "flash.bin"
    write_image(firmware, package, path)
    image = path.read_bytes()
    for file in firmware.app.flash_files:
        data = Path(file.file_path).read_bytes()
        header = 4 if file.offset == 0 else 0  # esptool writes the flash's size into it
        assert image[file.offset + header : file.offset + 24] == data[header:24]
    assert image[firmware.models.offset :].startswith(package)
    assert set(image[firmware.models.offset + len(package) :]) == {0xFF}


def test_the_command_lines(firmware, package, program, monkeypatch):
    machine = Qemu(firmware, package)
    machine._folder = Path("f")
    port = machine.url.rpartition(":")[2]
    assert machine.command(Path("f/flash.bin")) == [
        *("-nographic", "-machine", "esp32s3", "-m", "8M"),
        *("-global", "driver=timer.esp32c3.timg,property=wdt_disable,value=true"),
        *("-global", "driver=timer.esp32s3.timg,property=wdt_disable,value=true"),
        *("-drive", "file=f/flash.bin,if=mtd,format=raw"),
        *("-drive", "file=f/efuse.bin,if=none,format=raw,id=efuse"),
        *("-global", "driver=nvram.esp32s3.efuse,property=drive,value=efuse"),
        *("-serial", f"tcp:127.0.0.1:{port},server,nowait", "-monitor", "none"),
        *("-qmp", "unix:f/qmp,server,nowait"),
    ]
    monkeypatch.setitem(firmware.app.sdkconfig, "SPIRAM_MODE_OCT", True)
    assert "driver=ssi_psram,property=is_octal,value=true" in machine.command(Path("f/flash.bin"))


def test_the_command_line_of_esp_emu(tmp_path):
    program = install(tmp_path, "print('esp-emu 0.44.0')\n")
    firmware = Firmware.read(build_app("esp32p4", tmp_path / "build"), "esp32p4")
    machine = EspEmu(firmware, b"", program=str(program))
    assert machine.label == "esp-emu 0.44.0"
    uart = machine.url.removeprefix("socket://")
    assert machine.command(Path("flash.bin")) == [
        *("--chip", "esp32p4", "--firmware", "flash.bin", "--uart-tcp", uart)
    ]
