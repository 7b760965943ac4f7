"""A user's mistake: one clear message, exit code 4, no traceback."""

import time

import pytest

from espdl_hil.plugin.rootdir import join_path_options
from espdl_hil.simulator import Devkit

USAGE_ERROR = 4


def usage_error(project, *arguments):
    run = project.pytest(*arguments)
    output = run.stdout + run.stderr
    assert run.returncode == USAGE_ERROR, output
    assert "Traceback" not in output
    return output


def test_unknown_target_names_those_there_are(project):
    output = usage_error(project, "--hil-models=mine.py", "--target=esp32c3")
    assert "ERROR: --target esp32c3: unknown target, expected one of esp32s3, esp32p4" in output


def test_no_models_at_all(project):
    output = usage_error(project)
    assert "ERROR: no models to test: there is no ./models folder" in output


def test_missing_model_file(project):
    assert "no such model file or folder" in usage_error(project, "--hil-models=other.py")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MODEL = ", "MODEL = = ", "mine.py:8: syntax error: invalid syntax"),
        ("(3,)", "(5,)", "a chunk of 5 frames does not divide the 12 frames of the input"),
        ("(1, 4, 12)", "(2, 4, 12)", "the batch, its first size, must be 1"),
        ("frame_axis=2", "frame_axis=3", "frame_axis of 'input' is 3: expected 1 to 2"),
        (
            "(3,)",
            "(3,), tolerance='2 steps'",
            "model 'mine': tolerance '2 steps' is not understood",
        ),
    ],
)
def test_mistakes_in_a_model_file(project, old, new, message):
    source = (project.folder / "mine.py").read_text()
    assert old in source
    project.write("mine.py", source.replace(old, new))
    assert message in usage_error(project, "--hil-models=mine.py")


def test_no_board_is_said_quickly_and_never_simulated(project):
    start_s = time.monotonic()
    output = usage_error(project, "--hil-models=mine.py", "--target=esp32s3")
    assert time.monotonic() - start_s < 5
    assert "no ESP32-S3 port was found" in output
    assert "looked for: " in output
    assert "to run without a board: pytest --target esp32s3 --hil-device sim" in output
    assert "SIMULATED" not in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "ERROR: the firmware cannot be built: IDF_PATH names no ESP-IDF"),
        (
            ["--hil-build-dir=build-{target}"],
            "ERROR: --hil-build-dir build-esp32s3: no such folder",
        ),
    ],
)
def test_a_board_without_a_firmware_to_flash_stops_before_anything_is_made(
    project, options, message
):
    with Devkit("esp32s3") as devkit:
        port = f"--port={devkit.url}"
        output = usage_error(project, "--hil-models=mine.py", "--target=esp32s3", port, *options)
    assert message in output
    assert "quantized" not in output


def test_a_silent_board_is_one_message_before_anything_is_made(project):
    options = ["--target=esp32s3", "--port=rfc2217://127.0.0.1:1"]
    output = usage_error(project, "--hil-models=mine.py", *options)
    assert output.count("no ESP32-S3 answers") == 1
    assert "cannot be built" not in output


def test_a_port_needs_a_target(project):
    output = usage_error(project, "--hil-models=mine.py", "--port=/dev/ttyUSB0")
    assert "--port needs --target" in output


def test_other_projects_are_left_alone(project):
    """A test that does not use the fixture runs whatever the options say."""
    project.write("test_mine.py", "def test_nothing(): pass\n")
    run = project.pytest("--target=esp32c3")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "hil:" not in run.stdout


def test_a_path_after_a_space_does_not_move_pytests_root(project, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "theirs.py"
    elsewhere.write_text((project.folder / "mine.py").read_text())
    project.write("pytest.ini", "[pytest]\n")
    run = project.pytest("--hil-models", str(elsewhere), "--collect-only", "-q")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "test_mine.py::test_streams[esp32s3-mine-int8-chunk3]" in run.stdout


def test_only_paths_that_exist_are_joined(tmp_path):
    words = ["pytest", "--hil-models", str(tmp_path), "--hil-report", "no-such-folder", "-k", "/"]
    assert join_path_options(words) == [
        "pytest",
        f"--hil-models={tmp_path}",
        "--hil-report",
        "no-such-folder",
        "-k",
        "/",
    ]


def test_collecting_imports_neither_torch_nor_the_exporter(project):
    project.write(
        "conftest.py",
        """
        import sys
        def pytest_sessionfinish():
            print("LOADED", sorted({"torch", "esp_ppq", "esptool", "rich"} & set(sys.modules)))
        """,
    )
    run = project.pytest("--hil-models=mine.py", "--collect-only", "-q", "-s")
    assert "LOADED []" in run.stdout


@pytest.mark.parametrize("option", ["report", "store"])
def test_a_folder_that_cannot_be_written(project, option):
    project.write("taken", "a file")
    output = usage_error(project, "--hil-models=mine.py", f"--hil-{option}=taken/folder")
    assert "taken/folder cannot be written: Not a directory" in output
    assert f"hint: name another folder with --hil-{option} DIR" in output


def test_the_summary_names_a_case_once(project):
    project.write(
        "test_mine.py",
        "import pytest\ndef test_streams(hil): pytest.fail(f'{hil.case.id}: odd', pytrace=False)\n",
    )
    run = project.pytest("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
    summary = run.stdout.partition("rows:")[2]
    assert "\nesp32s3-mine-int8-chunk3: odd\n" in summary
