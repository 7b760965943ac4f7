"""Building the firmware, with a stand-in for ESP-IDF."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from espdl_hil.device.build import build_firmware, find_app, variants_for
from espdl_hil.errors import ConfigError

IDF_PY = """
import os, pathlib, sys, time
build = pathlib.Path(sys.argv[sys.argv.index("-B") + 1])
source = pathlib.Path(sys.argv[sys.argv.index("-C") + 1])
print("compiling for", os.environ.get("IDF_TARGET"), *sys.argv, flush=True)
if (source / "full").exists():
    with open("/dev/full", "w") as device:
        device.write("object code")
if (source / "broken").exists():
    print("main.cpp:3: error: expected ';'", flush=True)
    sys.exit(2)
if (source / "endless").exists():
    pathlib.Path((source / "endless").read_text()).write_text(str(os.getpid()))
    time.sleep(60)
build.mkdir(parents=True, exist_ok=True)
(build / "flasher_args.json").write_text("{}")
with (build.parent / "builds").open("a") as builds:
    builds.write("x")
"""
PROJECT = (
    "cmake_minimum_required(VERSION 3.16)\n"
    "include($ENV{IDF_PATH}/tools/cmake/project.cmake)\n"
    "project(hil)\n"
)


@pytest.fixture
def idf(tmp_path, monkeypatch):
    root = tmp_path / "idf"
    (root / "tools" / "cmake").mkdir(parents=True)
    (root / "tools" / "idf.py").write_text(IDF_PY)
    (root / "tools" / "cmake" / "version.cmake").write_text(
        "set(IDF_VERSION_MAJOR 5)\nset(IDF_VERSION_MINOR 5)\nset(IDF_VERSION_PATCH 1)\n"
    )
    (root / "tools" / "idf_py_actions").mkdir()
    (root / "tools" / "idf_py_actions" / "constants.py").write_text(
        'SUPPORTED_TARGETS = ["esp32s3", "esp32p4"]\nPREVIEW_TARGETS = []\n'
    )
    for soc in ("esp32s3", "esp32p4"):
        caps = root / "components" / "soc" / soc / "include" / "soc"
        caps.mkdir(parents=True)
        (caps / "soc_caps.h").write_text("")
    monkeypatch.setenv("IDF_PATH", str(root))
    monkeypatch.delenv("IDF_PYTHON_ENV_PATH", raising=False)
    return root


@pytest.fixture
def project(tmp_path):
    source = tmp_path / "firmware"
    (source / "main").mkdir(parents=True)
    (source / "CMakeLists.txt").write_text(PROJECT)
    (source / "main" / "main.cpp").write_text("int x;\n")
    return source


def count(build_dir: Path) -> int:
    return len((build_dir.parent / "builds").read_text())


def test_without_idf_the_user_is_told_what_to_do(project, tmp_path, monkeypatch):
    monkeypatch.delenv("IDF_PATH", raising=False)
    with pytest.raises(ConfigError) as caught:
        build_firmware("esp32s3", project, tmp_path / "out")
    assert "IDF_PATH names no ESP-IDF" in str(caught.value)
    assert "export.sh" in str(caught.value)
    assert "--hil-app" in str(caught.value)


def test_a_folder_without_a_project_is_refused(idf, tmp_path):
    with pytest.raises(ConfigError, match=r"it has no CMakeLists\.txt"):
        build_firmware("esp32s3", tmp_path, tmp_path / "out")


def test_the_same_content_is_built_once(idf, project, tmp_path):
    lines = []
    out = tmp_path / "out"
    built = build_firmware("esp32s3", project, out, progress=lines.append)
    assert any("compiling for esp32s3" in line for line in lines)
    assert "compiling for esp32s3" in (out / "esp32s3.log").read_text()
    assert build_firmware("esp32s3", project, out) == built
    assert count(built) == 1
    assert sorted(path.name for path in project.iterdir()) == ["CMakeLists.txt", "main"]


def test_a_change_builds_again(idf, project, tmp_path):
    def builds():
        return count(build_firmware("esp32s3", project, tmp_path / "out"))

    assert builds() == 1
    (project / "main" / "main.cpp").write_text("int y;\n")
    assert builds() == 2
    version = idf / "tools" / "cmake" / "version.cmake"
    version.write_text(version.read_text().replace("PATCH 1", "PATCH 2"))
    assert builds() == 3
    (tmp_path / "out" / "esp32s3" / "flasher_args.json").unlink()
    assert builds() == 4


def test_a_users_project_is_built_where_it_lies(idf, project, tmp_path):
    """With its own settings, as often as ESP-IDF finds something to do, and without a trace."""
    (project / "sdkconfig").write_text('CONFIG_IDF_TARGET="esp32s3"\nCONFIG_MINE=y\n')
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    out = tmp_path / "out"
    built = find_app(project, "esp32s3", out)
    assert built.parent == out
    assert built.name.startswith("firmware-")
    assert find_app(project, "esp32s3", out) == built
    assert count(built) == 2
    command = (out / f"{built.name}.log").read_text().split()
    assert command[command.index("-C") + 1] == str(project)
    assert {"-DIDF_TARGET=esp32s3", f"-DSDKCONFIG={built / 'sdkconfig'}"} < set(command)
    assert (built / "sdkconfig").read_bytes() == (project / "sdkconfig").read_bytes()
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before
    other = find_app(project, "esp32p4", out)  # whose settings these are not
    assert other != built
    assert not (other / "sdkconfig").exists()


def test_a_finished_build_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.delenv("IDF_PATH", raising=False)
    (tmp_path / "flasher_args.json").touch()
    assert find_app(tmp_path, "esp32s3", tmp_path / "out") == tmp_path
    assert not (tmp_path / "out").exists()


def test_what_is_neither_a_project_nor_a_build_is_refused(idf, project, tmp_path):
    with pytest.raises(
        ConfigError, match=r"--hil-app .*main: neither a finished build nor a proje"
    ):
        find_app(project / "main", "esp32s3", tmp_path / "out")
    (project / "broken").touch()
    with pytest.raises(ConfigError, match=r"main\.cpp:3: error: expected ';'"):
        find_app(project, "esp32s3", tmp_path / "out")


def test_a_variant_adds_its_settings_and_has_a_folder_of_its_own(idf, project, tmp_path):
    (project / "sdkconfig.defaults").write_text("CONFIG_A=y\n")
    (project / "sdkconfig.usb").write_text("CONFIG_B=y\n")
    lines = []
    built = build_firmware(
        "esp32s3", project, tmp_path / "out", variants=["sdkconfig.usb"], progress=lines.append
    )
    assert built == tmp_path / "out" / "esp32s3-usb"
    (line,) = [line for line in lines if line.startswith("compiling")]
    defaults = line.partition("-DSDKCONFIG_DEFAULTS=")[2].split()[0].split(";")
    assert [Path(file).name for file in defaults] == ["sdkconfig.defaults", "sdkconfig.usb"]


def test_the_chips_own_usb_needs_the_usb_variant():
    usb = SimpleNamespace(
        device="/dev/ttyACM0", vid=0x303A, pid=0x1001, description="", serial_number=None
    )
    bridge = SimpleNamespace(
        device="/dev/ttyUSB0", vid=0x10C4, pid=0xEA60, description="", serial_number=None
    )
    assert variants_for("/dev/ttyACM0", lambda: [usb, bridge]) == ("sdkconfig.usb",)
    assert variants_for("/dev/ttyUSB0", lambda: [usb, bridge]) == ()
    assert variants_for("rfc2217://board:4000", lambda: [usb, bridge]) == ()


def test_a_failed_build_shows_its_last_lines_and_its_log(idf, project, tmp_path):
    (project / "broken").touch()
    with pytest.raises(ConfigError) as caught:
        build_firmware("esp32p4", project, tmp_path / "out")
    text = str(caught.value)
    assert text.startswith(f"building the firmware in {tmp_path / 'out' / 'esp32p4'} failed (exit ")
    assert "main.cpp:3: error: expected ';'" in text
    assert str(tmp_path / "out" / "esp32p4.log") in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_disk_that_fills_up_while_building_is_named(idf, project, tmp_path):
    (project / "full").touch()
    with pytest.raises(ConfigError) as caught:
        build_firmware("esp32s3", project, tmp_path / "out")
    assert re.search(r"failed \(exit \d+\): no space left on device\n", str(caught.value))
    (project / "full").unlink()
    assert count(build_firmware("esp32s3", project, tmp_path / "out")) == 1  # nothing is in the way


def test_a_killed_parent_takes_the_build_with_it(idf, project, tmp_path):
    pid_file = tmp_path / "pid"
    (project / "endless").write_text(str(pid_file))
    script = (
        "import pathlib, sys; from espdl_hil.device.build import build_firmware;"
        f"build_firmware('esp32s3', pathlib.Path({str(project)!r}), "
        f"pathlib.Path({str(tmp_path / 'out')!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", script]) as parent:
        deadline = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        parent.send_signal(signal.SIGKILL)
    compiler = int(pid_file.read_text())
    while Path(f"/proc/{compiler}").exists() and "Z" not in _state(compiler):
        assert time.monotonic() < deadline, "the compiler outlives its pytest"
        time.sleep(0.02)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.fixture(autouse=True)
def linux_only(request):
    if "killed" in request.node.name and not Path("/proc/self").is_dir():
        pytest.skip("needs /proc")
