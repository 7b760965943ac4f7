"""Full disks, folders that cannot be written, low limits: one message, the table, an exit code."""

import os
import resource
import subprocess
import sys
from contextlib import suppress

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="mounts, limits and modes of POSIX")

SIM = ("--hil-models=mine.py", "--target=esp32s3", "--hil-device=sim")
FILL = """
import os, contextlib
def fill(folder):
    with contextlib.suppress(OSError), open(os.path.join(folder, "ballast"), "wb", 0) as file:
        while True:
            file.write(bytes(512))
"""


@pytest.fixture
def disk(tmp_path):
    """A disk of 4 MB; the function mounts it again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(*options):
        command = ["mount", "-t", "tmpfs", "-o", ",".join(("size=4m", *options)), "tmpfs", folder]
        with suppress(FileNotFoundError):
            done = subprocess.run(command, capture_output=True, check=False)
            if done.returncode == 0:
                return folder
        pytest.skip("this user may not mount a small disk")

    mount()
    yield mount
    subprocess.run(["umount", "--all-targets", folder], check=False)


def assert_one_message(run, message):
    """Said once, as it is."""
    said = run.stdout + run.stderr
    assert "INTERNALERROR" not in said, said
    assert "Traceback" not in said, said
    assert said.count(message) == 1, said


@pytest.mark.parametrize(
    "workers", [(), pytest.param(("-n2",), marks=pytest.mark.slow)], ids=["alone", "xdist"]
)
@pytest.mark.parametrize(
    ("body", "code", "total"),
    [
        ("hil.verify()", 4, "1 row: 1 passed"),
        ("hil.verify(); assert hil.case.bits == 16", 1, "1 row: 1 failed"),
    ],
)
def test_a_disk_that_fills_up_costs_the_report_and_not_the_table(
    project, disk, body, code, total, workers
):
    report = disk("remount") / "report"
    project.write(
        "test_mine.py", f"{FILL}\ndef test_streams(hil):\n    fill({str(report)!r})\n    {body}\n"
    )
    run = project.pytest(*SIM, f"--hil-report={report}", *workers)
    assert run.returncode == code, run.stdout + run.stderr
    assert_one_message(run, f"ERROR: the report in {report} was not written: No space left")
    assert total in run.stdout
    assert sorted(path.name for path in report.iterdir()) == ["ballast", "logs"]
    (report / "ballast").unlink()
    project.write("test_mine.py", "def test_streams(hil):\n    hil.verify()\n")
    again = project.pytest(*SIM, f"--hil-report={report}")
    assert again.returncode == 0, again.stdout + again.stderr
    assert (report / "report.html").exists()


def test_a_mismatch_stays_one_when_its_bundle_cannot_be_written(project, disk):
    report = disk("remount") / "report"
    project.write(
        "test_mine.py",
        f"""{FILL}
def test_streams(hil):
    from espdl_hil.simulator import faults
    fill({str(report)!r})
    from espdl_hil.espdl import load_graph
    conv = next(
        n for n in load_graph(hil.expected.artifacts.streaming[3]).nodes if n.op_type == "Conv"
    )
    hil.devkit.inject(faults.WeightBit(conv.inputs[1], 3, 6))
    assert hil.stream() == hil.interpreted()
""",
    )
    run = project.pytest(*SIM, f"--hil-report={report}")
    assert run.returncode == 1, run.stdout + run.stderr
    assert "1 row: 1 failed" in run.stdout, run.stdout
    assert "not possible, the bundle cannot be written: No space left on device" in run.stdout
    assert "Traceback" not in run.stdout


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_report_folder_without_room_is_said_before_anything_runs(project, disk, state):
    folder = disk("remount")
    if state == "full":
        exec(FILL, scope := {})
        scope["fill"](folder)
    else:
        disk("remount", "ro")
    run = project.pytest(*SIM, f"--hil-report={folder}")
    assert run.returncode == 4, run.stdout + run.stderr
    assert_one_message(run, f"the report's folder {folder} cannot be written: ")
    assert "rows:" not in run.stdout


@pytest.mark.parametrize("kind", ["lock folder", "store", "report"])
def test_a_folder_that_is_a_file_is_said(project, kind):
    (project.folder / "file").write_text("")
    below = project.folder / "file" / "below"
    arguments = []
    if kind == "lock folder":
        project.environment["ESPDL_HIL_RUNTIME_DIR"] = str(below)
    elif kind == "store":
        project.store = below
    else:
        arguments = [f"--hil-report={below}"]
    run = project.pytest(*SIM, *arguments)
    assert run.returncode == 4, run.stdout + run.stderr
    assert_one_message(run, "Not a directory")


def test_a_temporary_folder_that_fills_up_is_one_message(project, disk):
    folder = disk("remount")
    project.environment["TMPDIR"] = str(folder)
    project.write(
        "conftest.py",
        f"{FILL}\nimport tempfile\ntempfile.gettempdir()\nfill({str(folder)!r})\n",
    )
    run = project.pytest(*SIM)
    assert run.returncode == 4, run.stdout + run.stderr
    assert_one_message(run, "this host has no room to work in: No space left on device")


def test_a_normal_run_leaves_nothing_in_a_temporary_folder_with_a_long_name(project):
    folder = project.folder / ("long" * 30)
    folder.mkdir()
    project.environment["TMPDIR"] = str(folder)
    run = project.pytest(*SIM)
    assert run.returncode == 0, run.stdout + run.stderr
    assert list(folder.iterdir()) == []


def test_64_open_files_are_enough(project):
    project.write("conftest.py", "")
    command = project.command(*SIM)
    run = subprocess.run(
        command,
        cwd=project.folder,
        env={k: v for k, v in os.environ.items() if k != "IDF_PATH"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
