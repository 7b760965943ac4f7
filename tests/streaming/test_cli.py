"""``espdl-hil lint``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from export_bench import Request

from espdl_hil.__main__ import main

FRAMES = [[1, 4, 24]]
TCN = Path(__file__).parents[2] / "models" / "tcn.py"


@pytest.fixture
def folder(export, tmp_path):
    """An artifact folder: offline.espdl, a planned and an automatic streaming file."""
    exported = export(Request("Residual", FRAMES, [2], [4], auto=[4]))
    (tmp_path / "offline.espdl").write_bytes(exported.offline)
    (tmp_path / "plan.espdl").write_bytes(exported.streaming[4])
    (tmp_path / "auto.espdl").write_bytes(exported.auto[4])
    return tmp_path


def test_a_right_file_passes(folder, capsys):
    assert main(["lint", str(folder / "plan.espdl")]) == 0
    assert capsys.readouterr().out == f"{folder / 'plan.espdl'}: nothing found\n"


def test_a_wrong_file_fails_and_says_why(folder, capsys):
    assert main(["lint", str(folder / "auto.espdl")]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{folder / 'auto.espdl'}: 1 error"
    assert lines[1] == (
        "  S202 error /Add: shared cache: Add /Add meets tensors of 4, 6 frames [all]"
    )
    assert lines[2].startswith("      edit: ")


def test_the_offline_file_may_lie_elsewhere(folder, tmp_path, capsys):
    apart = tmp_path / "apart"
    apart.mkdir()
    moved = (folder / "auto.espdl").rename(apart / "auto.espdl")

    assert main(["lint", str(moved), "--offline", str(folder / "offline.espdl")]) == 1
    assert "S202 error /Add" in capsys.readouterr().out


def test_a_streaming_file_without_an_offline_file(folder, capsys):
    (folder / "offline.espdl").unlink()

    assert main(["lint", str(folder / "auto.espdl"), str(folder / "plan.espdl")]) == 1
    out = capsys.readouterr().out
    assert f"{folder / 'auto.espdl'}: 1 error" in out
    assert f"{folder / 'plan.espdl'}: nothing found" in out


def test_an_offline_file_alone(folder, capsys):
    assert main(["lint", str(folder / "offline.espdl"), "--chunk", "3"]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_json(folder, capsys):
    assert main(["lint", "--json", str(folder / "auto.espdl")]) == 1

    (findings,) = json.loads(capsys.readouterr().out).values()
    assert findings[0]["rule"] == "S202"
    assert set(findings[0]) == {"rule", "severity", "node", "message", "frames_affected", "edit"}


def test_a_damaged_file_is_one_clear_message(folder, capsys):
    broken = folder / "broken.espdl"
    broken.write_bytes((folder / "plan.espdl").read_bytes()[:100])

    assert main(["lint", str(broken)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {broken}: ")
    assert "Traceback" not in error


def test_a_wrong_frame_axis_is_a_users_mistake(folder, capsys):
    assert main(["lint", str(folder / "offline.espdl"), "--chunk", "99"]) == 2
    assert "a chunk of 99 frames does not fit 24 frames" in capsys.readouterr().err


def test_a_file_that_cannot_be_linted_does_not_hide_the_others(folder, capsys):
    right, missing = folder / "plan.espdl", folder / "other.espdl"

    assert main(["lint", str(missing), str(right)]) == 2

    said = capsys.readouterr()
    assert said.out == f"{right}: nothing found\n"
    assert said.err.startswith("error: ")
    assert said.err.count(str(missing)) == 1


def lint_alone(path, before=""):
    """Lint in a process of its own: exit code, what it printed, whether pytest was imported."""
    script = (
        f"import sys; {before}\n"
        "from espdl_hil.__main__ import main\n"
        f"code = main(['lint', {str(path)!r}])\n"
        "print(code, 'pytest' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    *printed, last = done.stdout.splitlines() or [done.stderr]
    return *last.split(), printed


def test_files_are_linted_without_pytest(folder):
    assert lint_alone(folder / "auto.espdl")[:2] == ("1", "False")
    assert lint_alone(folder / "auto.espdl", "import pytest")[:2] == ("1", "True")  # it would show


def test_a_model_file_is_quantized_and_linted_without_pytest():
    code, pytest_imported, printed = lint_alone(TCN)

    assert (code, pytest_imported) == ("0", "False")
    assert [line for line in printed if "int8" in line] == [
        f"tcn int8 chunk{chunk}: nothing found" for chunk in (3, 6)
    ]


def test_a_model_that_cannot_stream_is_named_by_rule(tmp_path, capsys):
    path = tmp_path / "symmetric.py"
    path.write_text(SYMMETRIC)

    assert main(["lint", str(path)]) == 1

    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "symmetric int8: 1 error"
    assert lines[1].startswith("  S105 error ")
    assert lines[2].startswith("      edit: pad on the left only")


SYMMETRIC = """
from espdl_hil import StreamingModel


def build():
    from torch import nn

    return nn.Conv1d(4, 8, 3, padding=1)


MODEL = StreamingModel(
    name="symmetric", build=build, input_shape=(1, 4, 24), frame_axis=2, chunk_frames=(4,)
)
"""
