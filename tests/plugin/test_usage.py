"""A user's mistake: one clear message, exit code 4, no traceback, with and without pytest-xdist."""

import re
import socket
import threading
import time

import pytest

from espdl_hil.simulator import Devkit

USAGE_ERROR = 4
BOARDS_UNAVAILABLE = 75


def usage_error(project, *arguments, code=USAGE_ERROR):
    run = project.pytest(*arguments)
    output = run.stdout + run.stderr
    assert run.returncode == code, output
    for noise in ("Traceback", "INTERNALERROR", "crashed"):
        assert noise not in output, output
    assert len(re.findall(r"^\S*(?:ERROR|error): ", output, re.MULTILINE)) == 1, output
    return output


@pytest.fixture(
    params=[(), pytest.param(("-n2",), marks=pytest.mark.slow)], ids=["alone", "workers"]
)
def processes(request):
    """Command-line words with which the tests run in this process or in workers."""
    return request.param


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--target=esp8266"],
            "--target esp8266: unknown target, expected one of esp32s3, esp32p4, esp32, esp32c3",
        ),
        (
            ["--target=esp32c3", "--hil-device=sim"],
            "--target esp32c3: unknown target, expected one of esp32s3, esp32p4",
        ),
        (
            ["--target=esp32p4", "--hil-device=qemu"],
            "QEMU does not emulate esp32p4; it does: esp32s3, esp32, esp32c3",
        ),
        (
            ["--hil-device=qemu"],
            "python $IDF_PATH/tools/idf_tools.py install qemu-xtensa",
        ),
        (
            ["--target=esp32c3", "--embedded-services=idf,qemu"],
            "python $IDF_PATH/tools/idf_tools.py install qemu-riscv32",
        ),
        (
            ["--hil-timeout-scale=0"],
            "argument --hil-timeout-scale: expected a number above 0, not '0'",
        ),
        (["--baud=abc"], "--baud: expected a whole number of at least 1, not 'abc'"),
        (["--hil-jobs=0"], "argument --hil-jobs: expected a whole number of at least 1, not '0'"),
        (["--port=/dev/ttyUSB0"], "--port needs --target: say which chip is behind the port"),
        (
            ["--target=esp32s3|esp32p4", "--port=/dev/ttyUSB0"],
            "--port names 1 ports for 2 targets; give one port a target, separated by '|'",
        ),
        (["--hil-models=other.py"], "other.py: no such model file or folder"),
        (["--hil-report=mine.py/folder"], "mine.py/folder cannot be written: Not a directory"),
        (["--hil-store=mine.py/folder"], "mine.py/folder cannot be written: Not a directory"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[-1],
)
def test_mistakes_on_the_command_line(project, processes, arguments, message):
    assert message in usage_error(project, "--hil-models=mine.py", *processes, *arguments)


@pytest.mark.parametrize(
    ("argument", "message"),
    [("--baud=abc", "--baud: expected a whole number"), ("--hil-models=o.py", "o.py: no such")],
)
def test_a_mistake_on_the_command_line_is_said_once_by_all_workers(project, argument, message):
    assert message in usage_error(project, "--hil-models=mine.py", "-n2", argument)


def test_no_models_at_all(project, processes):
    output = usage_error(project, *processes)
    assert "ERROR: no models to test: there is no ./models folder" in output


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MODEL = ", "MODEL = = ", "mine.py:8: syntax error: invalid syntax"),
        ("def build", "import nowhere\ndef build", "No module named 'nowhere'"),
        ("chunk_frames=", "chunk_frame=", "got an unexpected keyword argument 'chunk_frame'"),
        ("(3,)", "(5,)", "a chunk of 5 frames does not divide the 12 frames of the input"),
        ("(1, 4, 12)", "(2, 4, 12)", "the batch, its first size, must be 1"),
        ("frame_axis=2", "frame_axis=3", "frame_axis of 'input' is 3: expected 1 to 2"),
        (
            "(3,)",
            "(3,), tolerance='2 steps'",
            "model 'mine': tolerance '2 steps' is not understood",
        ),
    ],
    ids=lambda value: value[:16],
)
def test_mistakes_in_a_model_file(project, old, new, message):
    source = (project.folder / "mine.py").read_text()
    assert old in source
    project.write("mine.py", source.replace(old, new, 1))
    assert message in usage_error(project, "--hil-models=mine.py")


def test_a_mistake_in_a_model_file_is_said_once_by_all_workers(project):
    source = (project.folder / "mine.py").read_text()
    project.write("mine.py", source.replace("chunk_frames=", "chunk_frame="))
    assert "'chunk_frame'" in usage_error(project, "--hil-models=mine.py", "-n3")


def test_a_selection_that_is_empty_is_pytests_own_affair(project):
    run = project.pytest("--hil-models=mine.py", "-k", "mine and int16")
    assert run.returncode == 5
    assert "2 deselected" in run.stdout


def test_no_board_is_said_quickly_and_never_simulated(project):
    start_s = time.monotonic()
    output = usage_error(project, "--hil-models=mine.py", "--target=esp32s3")
    assert time.monotonic() - start_s < 15  # 2 s where nothing else runs
    assert "no ESP32-S3 port was found" in output
    assert "looked for: " in output
    assert "to run without a board: pytest --target esp32s3 --hil-device sim" in output
    assert "SIMULATED" not in output


def test_one_worker_may_have_the_board(project):
    output = usage_error(project, "--hil-models=mine.py", "--target=esp32s3", "-n1")
    assert "no ESP32-S3 port was found" in output


def test_several_workers_cannot_share_a_board(project):
    output = usage_error(project, "--hil-models=mine.py", "--target=esp32s3", "-n2")
    assert "2 workers cannot share one board a target" in output
    assert "hint: leave out -n, or add --hil-device sim" in output


@pytest.fixture
def silent_port():
    """URL of a port that takes every byte and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = []

        def accept():
            try:
                while True:
                    taken.append(server.accept()[0])
            except OSError:
                pass

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"rfc2217://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        for connection in taken:
            connection.close()


@pytest.mark.parametrize("arguments", [(), ("-n1",)], ids=["alone", "worker"])
def test_a_silent_board_is_one_message_before_anything_is_made(
    project, silent_port, arguments, tmp_path
):
    project.store = tmp_path / "cold-store"
    project.write("test_mine.py", "def test_1(hil): pass\ndef test_2(hil): pass\n")
    port = f"--port={silent_port}"
    output = usage_error(
        project,
        *("--hil-models=mine.py", "--target=esp32s3", port, *arguments),
        code=BOARDS_UNAVAILABLE,
    )
    assert output.count("no ESP32-S3 answers") == 1
    assert silent_port in output
    assert not project.store.exists()
    assert "cannot be built" not in output  # that would have been the next thing to mend


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "ERROR: the firmware cannot be built: IDF_PATH names no ESP-IDF"),
        (
            ["--hil-app=build-{target}"],
            "ERROR: --hil-app build-esp32s3: no such folder",
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


def test_other_projects_are_left_alone(project, processes):
    """A test that does not use the fixture runs whatever the options say."""
    project.write("test_mine.py", "def test_nothing(): pass\n")
    run = project.pytest("--target=esp32c3", *processes)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "hil:" not in run.stdout


def test_collecting_imports_neither_torch_nor_the_exporter(project):
    project.write(
        "conftest.py",
        """
        import sys
        def pytest_sessionfinish():
            print("LOADED", sorted({"torch", "esp_ppq", "esptool", "rich"} & set(sys.modules)))
        """,
    )
    run = project.pytest("--hil-models=mine.py", "--collect-only", "-q", "-s", fresh=True)
    assert "LOADED []" in run.stdout


def test_the_summary_names_a_case_once(project):
    project.write(
        "test_mine.py",
        "import pytest\ndef test_streams(hil): pytest.fail(f'{hil.case.id}: odd', pytrace=False)\n",
    )
    run = project.pytest("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
    summary = run.stdout.partition("1 row:")[2]
    assert "\nesp32s3-mine-int8-chunk3 (simulated) failed: odd\n" in summary
