"""``espdl-hil doctor``: each trouble is found, and comes with what mends it."""

import importlib.metadata
import json
import os
import platform
import shutil

import pytest

from espdl_hil.cli import doctor, main
from espdl_hil.cli.doctor import COMPILERS, Health
from espdl_hil.device import ports
from espdl_hil.device.bench import Quarantine, read_bench
from espdl_hil.device.claim import Candidate, Claim, lock_directory
from espdl_hil.device.ports import UsbPort
from espdl_hil.device.service_record import note_recovery


@pytest.fixture(autouse=True)
def host(tmp_path, monkeypatch):
    """A host without ESP-IDF, bench and ports, with locks of its own."""
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "locks"))
    for name in ("ESPDL_HIL_BENCH", "IDF_PATH", "IDF_PYTHON_ENV_PATH", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ports, "list_usb_ports", lambda comports=None: [])


def only(check, *arguments):
    (found,) = check(*arguments)
    return found


def test_all_is_said_as_json(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "check_idf", lambda: iter(()))
    code = main(["doctor", "--json"])
    findings = json.loads(capsys.readouterr().out)
    assert {"Python", "esp-ppq", "torch", "esptool", "C++ compiler", "ESP-DL", "locks"} <= {
        finding["what"] for finding in findings
    }
    worst = max(list(Health).index(finding["severity"]) for finding in findings)
    assert code == worst
    assert all(finding["mend"] for finding in findings if finding["severity"] != "ok")


def test_the_exit_code_is_the_worst_finding(capsys, monkeypatch):
    for severity, code in (("ok", 0), ("warning", 1), ("error", 2)):
        found = doctor.Examined("x", Health(severity), "y", "z")
        monkeypatch.setattr(doctor, "examine", lambda bench, found=found: [found])
        assert main(["doctor"]) == code
    assert "error    x: y\n         → z\n" in capsys.readouterr().out


def test_python_and_packages(monkeypatch):
    assert only(doctor.check_python).severity is Health.OK
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.1")
    assert only(doctor.check_python).severity is Health.ERROR
    version = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: "1.3.5" if name == "esp-ppq" else version(name),
    )
    found = {finding.what: finding for finding in doctor.check_packages()}
    assert found["esp-ppq"].detail == "1.3.5, this release needs ==1.3.12"
    assert found["esp-ppq"].mend == "pip install 'esp-ppq==1.3.12'"
    assert found["torch"].severity is Health.OK


def test_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = [finding for finding in doctor.examine() if finding.what == "C++ compiler"]
    assert [finding.severity for finding in found] == [Health.ERROR]
    assert "apt install g++" in found[0].mend


def test_an_esp_idf_is_unset_wrong_half_installed_or_whole(tmp_path, monkeypatch):
    assert "IDF_PATH is not set" in only(doctor.check_idf).detail
    monkeypatch.setenv("IDF_PATH", str(tmp_path))
    wrong = only(doctor.check_idf)
    assert (wrong.severity, "holds no ESP-IDF" in wrong.detail) == (Health.ERROR, True)
    (tmp_path / "tools" / "cmake").mkdir(parents=True)
    (tmp_path / "tools" / "idf.py").touch()
    (tmp_path / "tools" / "cmake" / "version.cmake").write_text(
        "set(IDF_VERSION_MAJOR 5)\nset(IDF_VERSION_MINOR 4)\nset(IDF_VERSION_PATCH 1)\n"
    )
    half = only(doctor.check_idf)
    assert half.severity is Health.WARNING
    for text in ("5.4.1 in", "half installed", "IDF_PYTHON_ENV_PATH", *COMPILERS.values()):
        assert text in half.detail
    assert "install.sh esp32s3,esp32p4" in half.mend
    for name in COMPILERS.values():
        shutil.copy("/bin/true", tmp_path / name)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("IDF_PYTHON_ENV_PATH", str(tmp_path))
    assert only(doctor.check_idf).severity is Health.OK


def test_locks_and_who_has_them():
    with Claim([[Candidate.of_port("/dev/ttyUSB0")]]).acquire():
        (lock_directory() / "0000000009.claim").write_text("{}")  # of a run that was killed
        first, claim = doctor.check_locks()
    assert first.detail.endswith("1 claims, 1 of ended runs removed")
    assert claim.detail.startswith(f"pid {os.getpid()}, user ")
    assert claim.detail.endswith("holds /dev/ttyUSB0")


def test_a_bench_that_is_wrong_and_a_board_that_is_out(tmp_path):
    path = tmp_path / "bench.toml"
    path.write_text('[[board]]\nname = "a"\ntarget = "esp32s3"\n')
    assert only(doctor.check_bench, path).severity is Health.WARNING
    path.write_text(path.read_text() + 'port = "/dev/ttyUSB0"\n')
    assert only(doctor.check_bench, path).severity is Health.OK
    note_recovery(read_bench(path).boards[0].identity, "panic", Quarantine(1), failed=False)
    _, board = doctor.check_bench(path)
    assert "a is out of service: 1 recoveries" in board.detail
    assert board.mend == f"espdl-hil bench clear a --bench {path}"
    assert list(doctor.check_bench(None)) == []


def test_ports_and_who_has_them_open(tmp_path, monkeypatch):
    device = tmp_path / "ttyUSB0"
    device.touch()
    port = UsbPort(str(device), 0x10C4, 0xEA60, "0001", "CP2102N")
    monkeypatch.setattr(ports, "list_usb_ports", lambda comports=None: [port])
    assert only(doctor.check_ports).severity is Health.OK
    with device.open():
        found = only(doctor.check_ports)
    assert found.severity is Health.WARNING
    assert f"open by pid {os.getpid()}" in found.detail
    device.unlink()
    assert "permission denied" in only(doctor.check_ports).detail


def test_a_disk_that_is_nearly_full(monkeypatch):
    assert only(doctor.check_store).what == "store"
    monkeypatch.setattr(doctor, "SCARCE_BYTES", 1 << 60)
    assert only(doctor.check_store).severity is Health.WARNING
    monkeypatch.setattr(doctor, "SCARCE_BYTES", 0)
    monkeypatch.setattr(doctor, "LARGE_STORE_BYTES", -1)
    assert only(doctor.check_store).mend.startswith("rm -r ")
