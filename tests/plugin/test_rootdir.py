"""A path in an option's second word does not move pytest's root, configuration or tests."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def collect(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-p", "no:hypothesispytest", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_port_leaves_this_repository_the_root():
    run = collect(REPOSITORY, "--port", "/dev/null", "--target", "esp32s3")
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"rootdir: {REPOSITORY}\nconfigfile: pytest.ini\ntestpaths: test_cases\n" in run.stdout
    assert "test_streaming_equals_offline[esp32s3-tcn-int8-chunk3]" in run.stdout


@pytest.mark.slow  # collects all tests of this repository
def test_without_the_cure_the_root_moves():
    """The twin: pytest itself takes the port for a test."""
    run = collect(REPOSITORY, "-p", "no:espdl_hil.plugin", "--noconftest", "--port", "/dev/null")
    assert "rootdir: /dev\n" in run.stdout
    assert "testpaths" not in run.stdout


@pytest.fixture
def elsewhere(tmp_path_factory, project):
    """A folder outside of the project, with a configuration of its own and a model."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "pytest.ini").write_text("[pytest]\naddopts = --strict-markers -k nothing\n")
    (folder / "theirs.py").write_text((project.folder / "mine.py").read_text())
    return folder


@pytest.fixture
def configured(project):
    """A project with all that a configuration file can ask for."""
    (project.folder / "checks").mkdir()
    (project.folder / "library").mkdir()
    project.write("library/helper.py", "ANSWER = 42\n")
    project.write(
        "checks/check_mine.py",
        """
        import pytest
        import helper
        @pytest.mark.mine
        def test_streams(hil, pytestconfig):
            assert pytestconfig.getini("markers")[0] == "mine: of this project"
        """,
    )
    project.write(
        "pytest.ini",
        """
        [pytest]
        testpaths = checks
        python_files = check_*.py
        pythonpath = library
        markers = mine: of this project
        addopts = --strict-markers --strict-config -p no:doctest
        """,
    )
    return project


@pytest.mark.parametrize(
    "option", ["--hil-report", "--hil-store", "--hil-app", "--build-dir", "--app-path"]
)
def test_every_path_leaves_the_projects_configuration_in_force(configured, elsewhere, option):
    run = configured.pytest("--hil-models=mine.py", option, str(elsewhere), "--collect-only")
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"rootdir: {configured.folder}\n" in run.stdout
    assert "test_streams[esp32p4-mine-int8-chunk3]" in run.stdout


def test_a_path_beside_a_test_file_and_an_option_of_the_environment(configured, elsewhere):
    configured.environment["PYTEST_ADDOPTS"] = f"--hil-models {elsewhere}"
    run = configured.pytest("checks", "-k", "esp32s3", "--hil-report", str(elsewhere), "--co", "-q")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1/2 tests collected" in run.stdout


def test_the_configuration_that_was_found_must_hold(configured, elsewhere):
    """The twin: what the right file asks for is asked for."""
    ini = configured.folder / "pytest.ini"
    ini.write_text(ini.read_text() + "minversion = 999\n")
    run = configured.pytest("--hil-models", str(elsewhere), "--collect-only")
    assert run.returncode == 4
    assert "'minversion' requires pytest-999" in run.stderr


def test_workers_have_the_same_root(configured, elsewhere):
    run = configured.pytest("-n2", "-k", "esp32s3", "--hil-models", str(elsewhere / "theirs.py"))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 passed" in run.stdout
