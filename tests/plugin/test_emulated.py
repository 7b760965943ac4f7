"""The plugin with emulated devkits: a stand-in has QEMU's name on PATH, no emulator is needed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from espdl_hil import interpreter
from espdl_hil.cli import main
from espdl_hil.espdl import load_graph, read_package
from espdl_hil.simulator import build_app

STAND_IN = Path(__file__).parents[1] / "device" / "qemu_stand_in.py"
CONTROLS = """
import pytest
from espdl_hil.device.errors import StaleArtifactError

def test_streams(hil):
    hil.verify()

def test_flipped_weight_bit_is_noticed(hil):
    assert hil.stream(artifact=hil.flipped_weight()) != hil.offline()

def test_stale_model_in_flash_is_refused(hil):
    with pytest.raises(StaleArtifactError, match=hil.case.model.name):
        hil.stream(artifact=hil.flipped_weight(), upload=False)
"""


@pytest.fixture(scope="module")
def build_dir(tmp_path_factory):
    return build_app("esp32s3", tmp_path_factory.mktemp("build"))


@pytest.fixture
def emulated(project, build_dir):
    """A project on whose PATH there is a stand-in for QEMU."""
    folder = project.folder / "bin"
    folder.mkdir()
    program = folder / "qemu-system-xtensa"
    program.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    program.chmod(0o755)
    project.environment["PATH"] = f"{folder}{os.pathsep}{os.environ['PATH']}"
    project.arguments = ["--hil-models=mine.py", "--target=esp32s3", f"--hil-app={build_dir}"]
    return project


def left_over():
    """Emulators and launchers that run under this user's name with a folder of ours."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"qemu-system-xtensa" in words and b"espdl-hil-" in words:
            found.append(words.replace(b"\0", b" ").decode())
    return found


def test_rows_and_controls_on_an_emulated_devkit(emulated):
    emulated.write("test_mine.py", CONTROLS)
    run = emulated.pytest("--hil-device=qemu", "--junitxml=junit.xml", *emulated.arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "3 passed" in run.stdout
    assert "EMULATED devkits (esp32s3 in QEMU)" in run.stdout
    assert "EMULATED ESP32-S3" in run.stdout
    assert "in QEMU 0.0.0-stand-in at socket://127.0.0.1:" in run.stdout
    results = json.loads((emulated.folder / "hil-report/results.json").read_text())
    (row,) = results["rows"]
    assert (row["substrate"], row["emulator"]) == ("emulated", "QEMU 0.0.0-stand-in")
    assert row["latency_us"] is None
    assert results["devices"][0]["emulator"] == "QEMU 0.0.0-stand-in"
    told = {p.get("name"): p.get("value") for p in ET.parse(emulated.folder / "junit.xml").iter()}
    assert (told["substrate"], told["emulator"]) == ("emulated", "QEMU 0.0.0-stand-in")
    page = (emulated.folder / "hil-report/report.html").read_text()
    assert '<span class="tag emulated">emulated</span>' in page
    assert "QEMU 0.0.0-stand-in, <code>" in page
    assert not left_over()


def test_a_damaged_flash_image_is_no_pass(emulated):
    """The twin: what the emulator has in its flash counts, not what was meant."""
    program = emulated.folder / "bin" / "qemu-system-xtensa"
    spoil = "options.image.write_bytes(options.image.read_bytes().replace(b'PDL3', b'PDL9'))"
    source = program.read_text()
    assert "    with devkits.Devkit(" in source
    program.write_text(
        source.replace("    with devkits.Devkit(", f"    {spoil}\n    with devkits.Devkit(")
    )
    run = emulated.pytest("--hil-device=qemu", *emulated.arguments)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 error" in run.stdout


def test_what_is_known_of_the_emulator_is_neither_passed_nor_failed(emulated):
    run = emulated.pytest(
        "--hil-device=qemu", "--qemu-extra-args=-wrong negative", *emulated.arguments
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 deviates" in run.stdout
    (row,) = json.loads((emulated.folder / "hil-report/results.json").read_text())["rows"]
    assert row["outcome"] == "deviates"
    assert row["checks"]["interpreter"]["outcome"] == "failed"
    assert row["diagnosis"]["cause"] == "deviates as known"
    assert "EE.LD.ACCX.IP" in row["diagnosis"]["text"]


def test_what_is_not_known_of_the_emulator_fails(emulated):
    run = emulated.pytest("--hil-device=qemu", "--qemu-extra-args=-wrong all", *emulated.arguments)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 failed" in run.stdout
    (row,) = json.loads((emulated.folder / "hil-report/results.json").read_text())["rows"]
    assert row["outcome"] == "failed"


def test_pytest_embeddeds_own_words_work(emulated):
    run = emulated.pytest("--embedded-services=idf,qemu", *emulated.arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "EMULATED devkits" in run.stdout


@pytest.mark.slow
def test_each_worker_has_an_emulator_of_its_own(emulated):
    emulated.write("test_other.py", "def test_streams(hil):\n    hil.verify()\n")
    run = emulated.pytest("--hil-device=qemu", "-n2", "--dist=loadfile", *emulated.arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    assert not left_over()


def test_killed_pytest_leaves_no_emulator(emulated):
    emulated.write(
        "test_mine.py",
        """
        import time
        def test_streams(hil):
            print("PORT", hil.dut.info.port, flush=True)
            time.sleep(120)
        """,
    )
    with (
        (emulated.folder / "output.txt").open("w+") as output,
        subprocess.Popen(
            emulated.command("-s", "--hil-device=qemu", *emulated.arguments),
            cwd=emulated.folder,
            env={**os.environ, **emulated.environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        shown = emulated.folder / "output.txt"
        assert wait_until(lambda: "PORT" in shown.read_text(), 90), shown.read_text()
        assert left_over()
        process.send_signal(signal.SIGKILL)
    assert wait_until(lambda: not left_over(), 10), left_over()
    port = int(shown.read_text().split("PORT ")[1].split()[0].rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def wait_until(condition, timeout_s):
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return condition()


# -- somebody else's emulator --------------------------------------------------------


@pytest.fixture
def foreign(emulated, build_dir, tmp_path):
    """Starts the stand-in by hand, as somebody else would, from an image with some models."""
    started = []

    def start(package):
        from espdl_hil.device.firmware import Firmware
        from espdl_hil.device.flash_image import write_image

        image = tmp_path / f"{uuid.uuid4().hex}.bin"
        write_image(Firmware.read(build_dir, "esp32s3"), package, image)
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        command = [emulated.folder / "bin/qemu-system-xtensa", "-nographic"]
        command += ["-machine", "esp32s3", "-m", "8M", "-monitor", "none"]
        command += ["-drive", f"file={image},if=mtd,format=raw"]
        command += ["-serial", f"tcp:127.0.0.1:{port},server,nowait"]
        command += ["-qmp", f"unix:{tmp_path / 'qmp'},server,nowait"]
        started.append(subprocess.Popen(command))
        assert wait_until(lambda: listens(port), 30)
        return f"--port=socket://127.0.0.1:{port}"

    yield start
    for process in started:
        process.kill()
        process.wait()


def listens(port):
    listening = f":{port:04X} 00000000:0000 0A"
    return listening in Path("/proc/net/tcp").read_text()


def test_models_are_uploaded_to_a_device_that_was_not_flashed(emulated, foreign):
    run = emulated.pytest(foreign(b""), *emulated.arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    (row,) = json.loads((emulated.folder / "hil-report/results.json").read_text())["rows"]
    assert (row["substrate"], row["latency_us"]) == ("emulated", None)
    assert row["emulator"] == "unknown, behind a socket"


@pytest.mark.slow
def test_models_that_are_there_byte_for_byte_are_used(emulated, foreign, tmp_path):
    package = tmp_path / "models.pdl"
    arguments = ["image", str(emulated.folder / "mine.py"), "--target=esp32s3", "--package"]
    assert main([*arguments, f"-o{package}"]) == 0
    names = [entry.name for entry in read_package(package.read_bytes())]
    assert names == ["mine-int8-offline", "mine-int8-chunk3"]
    emulated.write("test_mine.py", CONTROLS)  # the stale model is one that lies in flash
    run = emulated.pytest(foreign(package.read_bytes()), *emulated.arguments)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_stale_model_control_without_flashed_models_says_so(emulated, foreign):
    emulated.write("test_mine.py", CONTROLS)
    run = emulated.pytest(foreign(b""), *emulated.arguments)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "or the device was not flashed by this run" in run.stdout
    assert "2 passed" in run.stdout


def test_chips_that_run_the_c_kernels_share_their_files(project, tmp_path):
    packages = []
    for target in ("esp32", "esp32c3", "esp32s3"):
        out = tmp_path / target
        arguments = ["image", str(project.folder / "mine.py"), f"--target={target}", "--package"]
        assert main([*arguments, f"-o{out}"]) == 0
        packages.append(out.read_bytes())
    assert packages[0] == packages[1] != packages[2]
    (offline, _) = read_package(packages[1])
    session = interpreter.load(load_graph(offline.data), "esp32c3")
    assert session.outputs
