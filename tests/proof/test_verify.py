"""The proof without pytest: a result to read, and every mistake one message."""

import importlib
import subprocess
import sys
import textwrap

import pytest

import espdl_hil
from espdl_hil import StreamingModel, verify
from espdl_hil.errors import ConfigError
from espdl_hil.proof import rig as rig_module
from espdl_hil.report import History
from espdl_hil.simulator import faults


def run(folder, script):
    (folder / "script.py").write_text(textwrap.dedent(script))
    command = [sys.executable, "script.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def test_a_script_proves_a_model_without_pytest(model_file, tmp_path):
    done = run(
        tmp_path,
        f"""
        import sys, threading
        from espdl_hil import verify

        result = verify({str(model_file)!r}, target="esp32s3", bits=8, chunk_frames=3)
        print(result)
        assert result and result.passed
        (row,) = result.rows
        assert [check.differing for check in row.checks.values()] == [0, 0, 0]
        assert row.id == "esp32s3-residual-int8-chunk3" and row.substrate == "simulated"
        assert set(row.checks) == {{"streaming", "interpreter", "reference"}}
        assert row.accuracy.outcome == "passed"
        assert result.report.name == "results.json" and result.report.exists()
        assert "pytest" not in sys.modules and "_pytest" not in sys.modules
        assert threading.active_count() == 1, threading.enumerate()
        """,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("SIMULATED ESP32-S3 v0.2 at rfc2217://")
    assert lines[2].split() == ["residual", "1", "passed", "simulated", "40.9"]
    assert "1 row: 1 passed; 192 elements compared, 0 differ" in done.stdout


def test_a_difference_is_in_the_result_with_its_explanation(model_file, tmp_path, monkeypatch):
    bring_up = rig_module.Rig.bring_up

    def wrong(rig):
        bring_up(rig)
        rig.devkits["esp32s3"].inject(faults.StateDropped(step=2))

    monkeypatch.setattr(rig_module.Rig, "bring_up", wrong)
    result = verify(model_file, "esp32s3", report=tmp_path, history=tmp_path / "history")
    assert not result
    (row,) = result.rows
    assert (row.outcome, row.reason) == ("failed", "state dropped")
    assert "cause     state dropped" in result.explanations[row.id]
    assert "cause     state dropped" in str(result)
    with History(tmp_path / "history") as history:
        (run,) = history.runs(9)
    assert (run["passed"], run["total"], run["command"]) == (0, 1, result.results.command)
    assert "replay    espdl-hil replay " in str(result)


def test_the_object_of_a_model_file_will_do(tmp_path, model_file):
    (tmp_path / "mine.py").write_text(model_file.read_text())
    done = run(
        tmp_path,
        """
        from espdl_hil import verify
        from mine import MODEL

        assert verify(MODEL, target="esp32s3").passed
        """,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_script_that_is_its_own_model_file(tmp_path, model_file):
    guarded = model_file.read_text() + (
        "\nif __name__ == '__main__':\n"
        "    from espdl_hil import verify\n    assert verify(MODEL, target='esp32s3').passed\n"
    )
    done = run(tmp_path, guarded)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run(tmp_path, guarded.replace("if __name__ == '__main__':", "if True:"))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-2:]
    assert "verify() is called while its model file is being loaded" in last[0]
    assert last[1] == '  hint: put the call under: if __name__ == "__main__":'


def test_a_model_of_a_notebook_has_no_file():
    space = {"StreamingModel": StreamingModel}
    source = (
        "MODEL = StreamingModel(name='mine', build=lambda: None, input_shape=(1, 4, 12), "
        "frame_axis=2, chunk_frames=(3,))"
    )
    exec(compile(source, "<ipython-input-1>", "exec"), space)
    with pytest.raises(ConfigError, match="model 'mine' was defined in a notebook") as error:
        verify(space["MODEL"])
    assert "%%writefile mine.py" in error.value.hint


def test_a_model_that_its_file_does_not_declare(model_file):
    from dataclasses import replace

    from espdl_hil.model import load_model

    other = replace(load_model(model_file), name="other", source=None)
    with pytest.raises(ConfigError, match=r"'other' is not the MODEL of .*: name differs"):
        verify(other)


OTHERS = """
from dataclasses import replace

def bad():
    from torch import nn
    return nn.AdaptiveAvgPool1d(1)

def still(random):
    return [[[0] * 12] * 4]

OTHERS = {
    "build": replace(MODEL, build=bad),
    "stimulus": replace(MODEL, stimulus=still),
    "calibration": replace(MODEL, calibration=still),
}
SAME = replace(MODEL, bits=(16,), chunk_frames=(4,), tolerance=1)
"""


@pytest.mark.parametrize("loaded", [False, True])
def test_what_the_worker_would_not_run_is_refused(model_file, tmp_path, monkeypatch, loaded):
    from dataclasses import replace

    file = tmp_path / f"with_others_{loaded}.py"
    file.write_text(model_file.read_text() + OTHERS)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(file.stem)
    source = file if loaded else None  # as load_model sets it
    for name, other in module.OTHERS.items():
        with pytest.raises(ConfigError) as raised:
            verify(replace(other, source=source), "esp32s3", report=tmp_path / "report")
        assert raised.value.message == (
            f"model 'residual' is not the MODEL of {file}: {name} differs"
        )
        assert raised.value.hint == "give each model a file of its own, with one MODEL"
    result = verify(replace(module.SAME, source=source), "esp32s3", report=tmp_path / "report")
    assert [(row.id, row.outcome) for row in result.rows] == [
        ("esp32s3-residual-int16-chunk4", "passed")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": "esp32c3"}, "no model is for esp32c3"),
        ({"port": "/dev/ttyUSB0"}, "port= needs one target="),
        ({"target": "esp32s3", "bits": 12}, "12"),
        ({"target": "esp32s3", "chunk_frames": 5}, "a chunk of 5 frames does not divide"),
        ({"target": "esp32s3", "device": "board"}, "device 'board': expected one of serial, sim"),
    ],
)
def test_mistakes(model_file, tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        verify(model_file, report=tmp_path, **arguments)


def test_a_model_that_cannot_stream_is_a_failed_row(tmp_path, model_file):
    file = tmp_path / "mean.py"
    text = model_file.read_text().replace("return self.last(", "return x.mean(2) + self.last(")
    assert "mean" in text
    file.write_text(
        text.replace("x.mean(2)", "x[:, :4].mean(2, keepdim=True)").replace("residual", "mean")
    )
    result = verify(file, "esp32s3", report=tmp_path / "report")
    (row,) = result.rows
    assert row.outcome == "failed"
    assert row.checks == {}
    assert row.details.error.startswith("[S1")
    assert row.id in str(result)


def test_a_model_file_imports_only_the_declaration():
    command = (
        "import sys; from espdl_hil import StreamingModel;"
        "print(sorted({'rich', 'espdl_hil.proof', 'torch', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'verfy'"):
        espdl_hil.verfy  # noqa: B018
