"""``espdl-hil bench``: the table, the scan, and taking a board back."""

from types import SimpleNamespace

import pytest

from espdl_hil.cli import main
from espdl_hil.cli.bench import write_scan
from espdl_hil.device.bench import Quarantine, read_bench
from espdl_hil.device.claim import Candidate, Claim
from espdl_hil.device.rfc2217_handler import event_url
from espdl_hil.device.service_record import note_recovery
from espdl_hil.simulator import Devkit

MAC = "7c:df:a1:00:11:22"
OTHERS = """
[[board]]
name = "gone"
target = "esp32s3"
port = "/dev/ttyUSB99"

[[board]]
name = "worn"
target = "esp32s3"
port = "/dev/ttyUSB98"

[[board]]
name = "taken"
target = "esp32p4"
port = "/dev/null"
"""


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "locks"))
    monkeypatch.delenv("ESPDL_HIL_BENCH", raising=False)


@pytest.fixture(scope="module")
def devkit():
    with Devkit("esp32s3", mac=MAC) as devkit:
        yield devkit


@pytest.fixture
def bench(tmp_path, devkit):
    path = tmp_path / "bench.toml"
    path.write_text(
        f'[[board]]\nname = "s3-1"\ntarget = "esp32s3"\nport = "{devkit.url}"\nmac = "{MAC}"\n'
    )
    return path


def table(capsys):
    """State of each board, by name, with its whole line."""
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["board", "target", "port", "chip", "MAC", "app", "state"]
    return {line.split()[0]: line for line in lines[1:]}


def test_a_bench_that_is_well(bench, capsys):
    assert main(["bench", "check", "--bench", str(bench)]) == 0
    line = table(capsys)["s3-1"]
    assert f"esp32s3 0.2  {MAC}  none" in line
    assert line.endswith("free")


def test_each_trouble_is_said(bench, capsys, monkeypatch):
    bench.write_text(bench.read_text().replace(MAC, "7c:df:a1:00:11:33") + OTHERS)
    monkeypatch.setenv("ESPDL_HIL_BENCH", str(bench))
    worn = read_bench(bench).boards[2]
    note_recovery(worn.identity, "brownout", Quarantine(1), failed=False)
    with Claim([[Candidate.of_port("/dev/null")]]).acquire():
        assert main(["bench", "check"]) == 1
    found = table(capsys)
    assert found["s3-1"].endswith("boards were swapped")
    assert found["gone"].endswith("is not attached: there is no /dev/ttyUSB99")
    assert found["worn"].endswith("out of service: 1 recoveries within 24 h, the last: brownout")
    assert "held by pid" in found["taken"]
    assert main(["bench", "clear", "worn"]) == 0
    assert "worn is in service again; it was out: 1 recoveries" in capsys.readouterr().out
    main(["bench", "check"])
    assert "out of service" not in table(capsys)["worn"]


def test_a_scan_gives_a_bench_file(devkit, tmp_path, capsys):
    port = SimpleNamespace(
        device=event_url(devkit.url), vid=0x10C4, pid=1, serial_number="0001", description="CP2102"
    )
    silent = SimpleNamespace(**{**vars(port), "device": "/dev/ttyUSB99", "serial_number": "2"})
    other = SimpleNamespace(**{**vars(port), "device": "/dev/ttyS0", "vid": None})
    out = tmp_path / "made.toml"
    assert write_scan(out, lambda: [port, silent, other]) == 0
    text = out.read_text()
    assert f'mac = "{MAC}"' in text
    assert 'name = "s3-1"' in text
    assert 'revision = "0.2"' in text
    assert 'serial_number = "0001"' in text
    assert text.count("[[board]]") == 1
    assert "ttyUSB99" in capsys.readouterr().err
    assert write_scan(out, lambda: [silent]) == 1
    assert "no board was found" in capsys.readouterr().err


def test_a_scan_trusts_no_serial_number_that_two_have(devkit, capsys):
    """Bridges come with the same one from the factory."""
    port = SimpleNamespace(
        device=event_url(devkit.url), vid=0x10C4, pid=1, serial_number="0001", description="CP2102"
    )
    twin = SimpleNamespace(**{**vars(port), "device": "/dev/ttyUSB99"})
    assert write_scan(None, lambda: [port, twin]) == 0
    assert "serial_number" not in capsys.readouterr().out


def test_mistakes(bench, capsys):
    for arguments, message in (
        (["check"], "no bench file is named"),
        (["clear", "x", "--bench", str(bench)], "has no board 'x'\n  hint: boards: s3-1"),
        (["check", "--bench", "gone.toml"], "gone.toml cannot be read"),
        (["scan", "--output", "/"], "no board was found"),
    ):
        assert main(["bench", *arguments]) == (1 if arguments[0] == "scan" else 2)
        assert message in capsys.readouterr().err
