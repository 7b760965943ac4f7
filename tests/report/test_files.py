"""What a report's folder holds when a disk fills up or a run is killed."""

import os
import subprocess
import sys

import pytest

from espdl_hil.report import start_report, write_report


def full(*_):
    raise OSError(28, "No space left on device")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("nth", [1, 2])
def test_page_and_data_are_both_new_or_both_old(results, make_results, tmp_path, monkeypatch, nth):
    write_report(results, tmp_path)
    old = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real, count = os.fdopen, [0]

    def fdopen(*arguments):
        count[0] += 1
        file = real(*arguments)
        if count[0] == nth:
            file.close()
            full()
        return file

    monkeypatch.setattr("espdl_hil.report.files.os.fdopen", fdopen)
    with pytest.raises(OSError, match="No space left"):
        write_report(make_results(), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == old
    monkeypatch.undo()
    write_report(make_results(), tmp_path)
    assert all(path.read_bytes() != old[path.name] for path in tmp_path.iterdir())
    assert names(tmp_path) == sorted(old)


KILLED = """
import os, pathlib, sys
from espdl_hil.report.files import write_together
pathlib.Path.replace = lambda *_: os._exit(9)
folder = pathlib.Path(sys.argv[1])
write_together({folder / "results.json": b"1", folder / "report.html": b"2"})
"""


def test_what_a_killed_run_left_half_written_is_removed_by_the_next(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert killed.returncode == 9
    (tmp_path / ".report.mine").write_text("")
    assert len(names(tmp_path)) == 3
    start_report(tmp_path)
    assert names(tmp_path) == [".report.mine"]
