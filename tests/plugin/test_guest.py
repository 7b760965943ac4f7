"""The plugin is a guest: what else is in the user's pytest goes on as if it were not there."""

import os
import signal
import time
import xml.etree.ElementTree as ET

import pytest

SIM = ("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")


def test_a_folder_named_harness_beside_the_tests(project):
    (project.folder / "harness").mkdir()
    project.write("harness/__init__.py", "ANSWER = 42\n")
    project.write(
        "test_mine.py",
        """
        import harness
        def test_streams(hil):
            hil.verify()
            assert harness.ANSWER == 42
        """,
    )
    project.write("conftest.py", "")  # pytest puts this folder on sys.path
    run = project.pytest(*SIM)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_users_forked_worker_outlives_pytest(project):
    """Forked in a test, in a session that has a device; it ends when its user wants it to."""
    project.write(
        "test_mine.py",
        """
        import os, pathlib, signal

        def test_streams(hil):
            hil.verify()

        def test_forks():
            if (pid := os.fork()) == 0:
                os.setsid()
                os.closerange(0, 256)  # whoever reads what pytest prints waits for its end
                signal.pause()
            pathlib.Path("pid").write_text(str(pid))
        """,
    )
    run = project.pytest(*SIM, "-W", "ignore::DeprecationWarning")
    assert run.returncode == 0, run.stdout + run.stderr
    worker = int((project.folder / "pid").read_text())
    time.sleep(0.3)  # a signal of a dying parent would have come by now
    os.kill(worker, 0)  # raises if it is gone
    os.kill(worker, signal.SIGKILL)


@pytest.mark.parametrize("arguments", [(), ("-n2",)])
def test_junit_xml_has_the_row_as_properties_and_no_warning(project, arguments):
    project.write("pytest.ini", "[pytest]\nfilterwarnings = error\n")
    run = project.pytest(*SIM, "--junitxml=junit.xml", "-W", "error", *arguments)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "warning" not in run.stdout
    (case,) = ET.parse(project.folder / "junit.xml").iter("testcase")
    properties = [(entry.get("name"), entry.get("value")) for entry in case.iter("property")]
    assert properties[:6] == [
        ("target", "esp32s3"),
        ("model", "mine"),
        ("bits", "8"),
        ("chunk", "3"),
        ("substrate", "simulated"),
        ("outcome", "passed"),
    ]
    numbers = dict(properties[6:])
    whole = {"cause", "chunks", "frames", "elements", "differing", "max_lsb", "sqnr_db", "cosine"}
    of_checks = {
        f"{check}_{figure}"
        for check in ("streaming", "interpreter", "reference")
        for figure in ("outcome", "compared", "differing", "max_lsb", "tolerance")
    }
    of_accuracy = {f"accuracy_{n}" for n in ("outcome", "sqnr_db", "changes_db", "min_sqnr_db")}
    files = {f"sha256_{name}" for name in ("app", "mine-int8-chunk3", "mine-int8-offline")}
    assert numbers.keys() == {"findings", *whole, *of_checks, *of_accuracy, *files}
    assert (numbers["findings"], numbers["cause"]) == ("", "")
    assert int(numbers["elements"]) > 48
    assert (numbers["differing"], numbers["max_lsb"]) == ("0", "0")


def test_tests_beside_ours_get_no_warning_of_pytest_embedded(project):
    project.write("test_mine.py", "def test_nothing(): pass\n")
    project.write("pytest.ini", "[pytest]\nfilterwarnings = error\n")
    for arguments in ((), ("--junitxml=junit.xml",)):
        run = project.pytest(*arguments)
        assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize(
    "version", ["3.3.15", *(pytest.param(v, marks=pytest.mark.slow) for v in ("3.4.0", ""))]
)
def test_junit_xml_and_table_say_that_the_arithmetic_is_unknown(project, version):
    project.write(
        "conftest.py",
        f"""
        from espdl_hil.simulator import application
        application.ESPDL_VERSION = {version!r}
        """,
    )
    run = project.pytest(*SIM, "--junitxml=junit.xml")
    assert run.returncode == 0, run.stdout + run.stderr
    (case,) = ET.parse(project.folder / "junit.xml").iter("testcase")
    properties = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
    assert properties["findings"].startswith("arithmetic unknown: ")
    assert version in properties["findings"]
    assert "finding on 1 row of mine: arithmetic unknown: " in run.stdout


def test_junit_xml_of_a_row_that_is_an_error(project):
    project.write("mine.py", (project.folder / "mine.py").read_text().replace("4, 12", "5, 12"))
    run = project.pytest(*SIM, "--junitxml=junit.xml")
    assert run.returncode == 1
    (case,) = ET.parse(project.folder / "junit.xml").iter("testcase")
    properties = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
    assert properties["outcome"] == "error"
    assert properties["elements"] == "0"


def test_a_time_limit_is_for_the_test_and_not_for_quantizing(project):
    pytest.importorskip("pytest_timeout")
    project.write(
        "test_mine.py",
        """
        import time
        def test_streams(hil):
            hil.verify()
        def test_hangs(hil):
            time.sleep(60)
        """,
    )
    run = project.pytest(*SIM, "--timeout=3")
    assert run.returncode == 1
    assert "1 failed, 1 passed" in run.stdout, run.stdout
    assert "1 row: 1 failed" in run.stdout


def test_several_targets_need_no_count(project):
    run = project.pytest(*SIM, "--target=esp32s3|esp32p4")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 rows: 2 passed" in run.stdout


def test_a_test_that_asks_for_pytest_embeddeds_fixtures_gets_them(project):
    project.write(
        "test_mine.py",
        """
        def test_streams(hil, target, _mp_manager):
            hil.verify()
            assert target == "esp32s3"
            assert _mp_manager.MessageQueue() is not None
        """,
    )
    run = project.pytest(*SIM)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_users_fixtures_stay(project):
    """Autouse ones, those of a mark, and those of fixtures; only pytest-embedded's are left out."""
    project.write(
        "test_mine.py",
        """
        import pytest

        @pytest.fixture
        def inner(): return ["inner"]

        @pytest.fixture(autouse=True)
        def always(request, inner): request.node.seen = inner

        @pytest.fixture
        def marked(request): request.node.seen.append("marked")

        @pytest.mark.usefixtures("marked")
        @pytest.mark.parametrize("number", [1, 2])
        def test_streams(hil, number, request):
            assert request.node.seen == ["inner", "marked"]
            assert not any("embedded" in name or name == "_mp_manager" for name in
                           request.node.fixturenames)
        """,
    )
    run = project.pytest(*SIM)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


def test_nothing_is_registered_where_nothing_of_ours_is_used(project):
    project.write(
        "test_mine.py",
        """
        import sys
        def test_nothing(pytestconfig):
            names = [name for name, _ in pytestconfig.pluginmanager.list_name_plugin()]
            assert "hil-session" not in names
            assert "hil-summary" not in names
            assert "numpy" not in sys.modules
        """,
    )
    run = project.pytest(*SIM, fresh=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert not (project.folder / "hil-report").exists()
