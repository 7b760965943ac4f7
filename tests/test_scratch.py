"""Temporary folders go with their process, or with the next one."""

from __future__ import annotations

import subprocess
import sys
import tempfile

import pytest

from espdl_hil.scratch import scratch_folder

HOLDER = """
import sys
from espdl_hil.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "file").write_text("")
    print(folder.name, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps those of killed processes")
def test_a_killed_process_leaves_a_folder_that_the_next_one_removes(temporary):
    for name in ("espdl-hil-notes", "espdl-hil-0-x-y", "other"):
        (temporary / name).mkdir()  # whose these are is not known
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        left = temporary / holder.stdout.readline().strip()
        with scratch_folder():
            assert (left / "file").exists()  # it lives
        holder.kill()
        holder.wait(10)
    assert left.exists()
    with scratch_folder() as folder:
        assert folder.is_dir()
        assert not left.exists()
    assert sorted(path.name for path in temporary.iterdir()) == [
        "espdl-hil-0-x-y",
        "espdl-hil-notes",
        "other",
    ]
