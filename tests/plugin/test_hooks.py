"""Our own hooks, each implemented by a conftest.py as a lab would."""

import json

import pytest

SIM = ("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")


def test_a_lab_names_the_port(project):
    """Of a devkit that runs outside of the session; the harness is not asked to look for one."""
    project.write(
        "conftest.py",
        """
        def pytest_espdl_hil_find_port(target):
            return f"rfc2217://127.0.0.1:1/{target}"
        """,
    )
    run = project.pytest("--hil-models=mine.py", "--target=esp32s3")
    assert run.returncode == 75
    assert "rfc2217://127.0.0.1:1/esp32s3" in run.stderr
    assert "no ESP32-S3 port was found" not in run.stderr
    project.write("conftest.py", "def pytest_espdl_hil_find_port(target): return None\n")
    run = project.pytest("--hil-models=mine.py", "--target=esp32s3")
    assert "no ESP32-S3 port was found" in run.stderr


def test_a_lab_takes_each_row_once(project):
    project.write(
        "conftest.py",
        """
        import json, pathlib
        def pytest_espdl_hil_row(row):
            with pathlib.Path("rows.json").open("a") as file:
                file.write(json.dumps(row) + "\\n")
        """,
    )
    project.write(
        "test_mine.py",
        "def test_1(hil): hil.verify()\ndef test_2(hil): assert hil.stream() == hil.offline()\n",
    )
    for processes in ((), ("-n2",)):
        run = project.pytest("--hil-models=mine.py", *processes)
        assert run.returncode == 0, run.stdout + run.stderr
        rows = (project.folder / "rows.json").read_text().splitlines()
        (project.folder / "rows.json").unlink()
        report = json.loads((project.folder / "hil-report" / "results.json").read_text())
        assert [json.loads(row) for row in rows] == report["rows"]


def test_a_lab_may_cut_the_power(project):
    project.write(
        "test_mine.py",
        """
        def test_switch(hil_dut):
            print("SWITCHED", hil_dut.config.power_cycle(), hil_dut.info.port)
        """,
    )
    run = project.pytest("--target=esp32s3", "--hil-device=sim", "-s")
    assert "SWITCHED False rfc2217://" in run.stdout, run.stdout
    project.write(
        "conftest.py",
        """
        def pytest_espdl_hil_power_cycle(target, port):
            return target == "esp32s3" and port.startswith("rfc2217://")
        """,
    )
    run = project.pytest("--target=esp32s3", "--hil-device=sim", "-s")
    assert "SWITCHED True rfc2217://" in run.stdout, run.stdout


@pytest.mark.slow  # a minute of deadlines before anybody thinks of the switch
def test_power_brings_a_device_back(project):
    """One that answers no reset; the hook gives it its power back."""
    project.write(
        "conftest.py",
        """
        import pytest
        from espdl_hil.simulator import faults

        @pytest.fixture(autouse=True)
        def devkit(hil):
            pytest.devkit = hil.devkit
            hil.devkit.inject(faults.SilentPort(after_bytes=500))

        def pytest_espdl_hil_power_cycle(target, port):
            print("POWER", target, port.partition(":")[0])
            pytest.devkit.clear()
            return True
        """,
    )
    run = project.pytest(*SIM, "-s", timeout_s=200)
    assert "POWER esp32s3 rfc2217" in run.stdout
    assert run.returncode == 0, run.stdout + run.stderr
    assert "power cycle: recovered" in " ".join(run.stdout.split()), run.stdout


def test_a_device_alone(project):
    """``hil_dut``: once a target without ``hil``, and the same device beside it."""
    project.write(
        "test_mine.py",
        """
        seen = {}
        def test_alone(hil_dut):
            seen[hil_dut.info.target] = hil_dut
            assert hil_dut.info.kind == "simulated"
        def test_beside(hil, hil_dut):
            assert hil_dut is hil.dut is seen[hil.case.target]
        """,
    )
    run = project.pytest("--hil-models=mine.py", "-v")
    assert run.returncode == 0, run.stdout + run.stderr
    for name in ("test_alone[esp32s3]", "test_beside[esp32p4-mine-int8-chunk3]"):
        assert f"{name} PASSED" in run.stdout
