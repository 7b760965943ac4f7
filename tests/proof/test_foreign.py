"""Files from elsewhere: the zoo's own taken for foreign, and what is refused of others."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from espdl_hil.cli import main
from espdl_hil.compare import Outcome
from espdl_hil.errors import ConfigError
from espdl_hil.espdl import load_graph
from espdl_hil.model import load_models
from espdl_hil.model.declaration import MIN_SQNR_DB
from espdl_hil.proof.case import cross, make_cases
from espdl_hil.proof.hil import Hil
from espdl_hil.proof.rig import Rig
from espdl_hil.proof.rows import RowBook
from espdl_hil.proof.settings import Settings
from espdl_hil.proof.verify import VerificationError, prove, verify
from espdl_hil.quantize import NO_REFERENCE, NOT_JUDGED, Recipe, Store, prepare
from espdl_hil.quantize.foreign_float import run_float
from espdl_hil.simulator import faults
from espdl_hil.targets import DEVKIT_TARGETS

ZOO = Path(__file__).parents[2] / "models"
QUICK = {"tcn", "gru_denoiser"}  # the others are in the campaign

FOREIGN = """
from espdl_hil import StreamingModel

MODEL = StreamingModel(
    name={name!r}, offline={offline!r}, streaming={streaming!r}, input_shape={shapes!r},
    frame_axis={axes!r}, state={state!r}, outputs={outputs!r}, bits=({bits},),
    targets=({target!r},), ragged={ragged!r},
)
"""


def reimport(model, target, bits, made, folder):
    """Write a model file that names the files of an artifact, as if they came from elsewhere."""
    offline = load_graph(made.offline)
    chunk = model.chunk_frames[0]
    file = folder / f"{model.name}_{bits}_{target}.py"
    file.write_text(
        FOREIGN.format(
            name=f"{model.name}_{bits}",
            offline=str(made.offline),
            streaming={size: str(path) for size, path in made.streaming.items()},
            shapes={info.name: tuple(info.shape) for info in offline.inputs},
            axes=dict(made.plans[chunk].frame_axes),
            state=dict(model.state),
            outputs=tuple(info.name for info in offline.outputs),
            bits=bits,
            target=target,
            ragged=model.ragged,
        )
    )
    return file


def prove_again(models, target, folder):
    """Export models, take the files in as foreign ones, and prove them; gives rows by id."""
    recipes = {
        (model.name, bits): Recipe.of(model, target, bits)
        for model in models
        for bits in model.bits
    }
    made = prepare(list(recipes.values()), Store())
    files = [
        reimport(model, target, bits, made[recipes[model.name, bits].key], folder)
        for model in models
        for bits in model.bits
    ]
    cases = make_cases(files, [target])
    rig = Rig(Settings(targets=(target,), report=folder / "report"), cases)
    book = RowBook(rig)
    with contextlib.closing(rig):
        rig.prepare()
        explanations = [text for case in cases if (text := prove(case, book))]
        assert explanations == []
        return {row.id: row for row in book.results.rows}


def assert_proven(rows, models, target):
    wanted = {
        f"{target}-{model.name}_{bits}-int{bits}-chunk{chunk}"
        for model in models
        for bits in model.bits
        for chunk in model.chunk_frames
    }
    assert set(rows) == wanted
    for row in rows.values():
        assert row.outcome is Outcome.PASSED, row.id
        assert set(row.checks) == {"streaming", "interpreter"}
        assert all(check.compared and not check.differing for check in row.checks.values())
        assert row.accuracy is None
        assert NOT_JUDGED in row.details.notes


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
def test_exported_files_are_proven_again(target, tmp_path):
    models = [model for name, model in load_models([ZOO]).items() if name in QUICK]
    assert_proven(prove_again(models, target, tmp_path), models, target)


@pytest.mark.slow
@pytest.mark.parametrize("target", DEVKIT_TARGETS)
def test_the_whole_zoo_is_proven_again(target, tmp_path):
    models = [model for name, model in load_models([ZOO]).items() if name not in QUICK]
    assert_proven(prove_again(models, target, tmp_path), models, target)


@pytest.fixture
def foreign(tmp_path):
    """One row of the zoo as foreign files in a folder; gives the model file."""
    (model,) = load_models([ZOO / "tcn.py"]).values()
    recipe = Recipe.of(model, "esp32s3", 8)
    made = prepare([recipe], Store())[recipe.key]
    for name in ("offline.espdl", "streaming-3.espdl"):
        (tmp_path / name).write_bytes((made.directory / name).read_bytes())
    file = tmp_path / "mine.py"
    file.write_text(
        "from espdl_hil import StreamingModel\n"
        'MODEL = StreamingModel(name="mine", offline="offline.espdl", '
        'streaming={3: "streaming-3.espdl"}, input_shape=(1, 24, 16), frame_axis=1, '
        'targets=("esp32s3",))\n'
    )
    return file


def test_a_changed_file_is_taken_in_again(foreign, tmp_path):
    assert verify(foreign, report=tmp_path / "report")
    offline, streaming = tmp_path / "offline.espdl", tmp_path / "streaming-3.espdl"
    streaming.write_bytes(offline.read_bytes())
    result = verify(foreign, report=tmp_path / "report")
    assert not result
    assert "the streaming file for chunks of 3 frames has shape (1, 24, 16)" in str(result)


def test_a_link_that_leads_elsewhere_is_taken_in_again(foreign, tmp_path):
    (tmp_path / "kept.espdl").write_bytes((tmp_path / "streaming-3.espdl").read_bytes())
    streaming = tmp_path / "streaming-3.espdl"
    streaming.unlink()
    streaming.symlink_to("kept.espdl")
    assert verify(foreign, report=tmp_path / "report")
    streaming.unlink()
    streaming.symlink_to("offline.espdl")
    result = verify(foreign, report=tmp_path / "report")
    assert "the streaming file for chunks of 3 frames has shape (1, 24, 16)" in str(result)


def test_what_the_stimulus_of_foreign_files_reads_is_looked_at_again(foreign, tmp_path):
    read = "np.load(Path(__file__).with_name('recording.npy'))"
    foreign.write_text(
        "import numpy as np\nfrom pathlib import Path\n"
        + foreign.read_text().replace("targets=", f"stimulus=lambda random: {read}, targets=")
    )
    recording = tmp_path / "recording.npy"
    random = np.random.default_rng(0)
    np.save(recording, random.standard_normal((1, 24, 16)))
    recipe = Recipe.of(load_models([foreign])["mine"], "esp32s3", 8)
    store = Store(tmp_path / "store")
    assert verify(foreign, report=tmp_path / "report", store=store.root)
    assert store.get(recipe) is not None
    np.save(recording, random.standard_normal((1, 24, 16)))
    assert store.get(recipe) is None
    assert verify(foreign, report=tmp_path / "report", store=store.root)


def test_a_model_file_of_foreign_files_that_is_edited_meanwhile(foreign, tmp_path):
    recipe = Recipe.of(load_models([foreign])["mine"], "esp32s3", 8)
    foreign.write_text(foreign.read_text() + "# edited\n")
    error = prepare([recipe], Store(tmp_path / "store"))[recipe.key]
    assert "has been changed while it was being quantized" in str(error)


def test_another_seed_is_another_stimulus_of_foreign_files(foreign, tmp_path):
    model = load_models([foreign])["mine"]
    recipes = [Recipe.of(replace(model, seed=seed), "esp32s3", 8) for seed in (0, 0, 1)]
    made = prepare(recipes, Store(tmp_path / "store"))
    first, again, other = (made[recipe.key].stimulus["input"] for recipe in recipes)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_one_flipped_weight_is_not_one_calibration(foreign, tmp_path):
    (case,) = make_cases([foreign], ["esp32s3"])
    rig = Rig(Settings(targets=("esp32s3",)), [case])
    with contextlib.closing(rig):
        rig.prepare()
        flipped = rig.expected(case).flipped_weight()
    (tmp_path / "streaming-3.espdl").write_bytes(flipped)
    result = verify(foreign, report=tmp_path / "report")
    assert result.rows[0].outcome is Outcome.FAILED
    assert "is not the offline network" in str(result)
    assert "quantizing twice may give two models" in str(result)
    assert f"{EXAMPLE}does not match" in str(result)


def test_files_whose_output_never_changes_prove_nothing(foreign, tmp_path):
    for name in ("offline.espdl", "streaming-3.espdl"):
        file = tmp_path / name
        data = bytearray(file.read_bytes())
        for tensor, weight in load_graph(file).initializers.items():
            if tensor.endswith(".weight"):
                start, size = weight.span.offset, weight.info.size
                data[start : start + size] = bytes(size)
        file.write_bytes(data)
    result = verify(foreign, report=tmp_path / "report")
    assert result.rows[0].outcome is Outcome.ERROR
    assert "output 'output' of the quantized network depends on no input" in str(result)


def test_what_was_not_judged_cannot_be_asked_for(foreign, tmp_path):
    (case,) = make_cases([foreign], ["esp32s3"])
    rig = Rig(Settings(targets=("esp32s3",), report=tmp_path), [case])
    with contextlib.closing(rig):
        rig.prepare()
        hil = Hil(case, RowBook(rig))
        for ask in (hil.reference, hil.accuracy):
            with pytest.raises(ConfigError, match="neither its reference nor the accuracy"):
                ask()


@pytest.mark.parametrize("faithful", [True, False])
def test_the_onnx_file_that_they_were_made_of_measures_them(foreign, faithful, tmp_path):
    (model,) = load_models([ZOO / "tcn.py"]).values()
    trace = Store().get(Recipe.of(model, "esp32s3", 8).trace)
    proto = onnx.load(trace / "float.onnx")
    if not faithful:
        weight = max(proto.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
        weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(proto, tmp_path / "float.onnx")
    foreign.write_text(foreign.read_text().replace("offline=", 'onnx="float.onnx", offline='))
    result = verify(foreign, report=tmp_path / "report")
    (row,) = result.rows
    assert NO_REFERENCE in row.details.notes
    assert set(row.checks) == {"streaming", "interpreter"}
    assert (row.outcome is Outcome.PASSED) == (row.accuracy.sqnr_db > MIN_SQNR_DB[8]) == faithful
    assert ("of the float model, at least 10 dB are asked for" in str(result)) != faithful


def tiny(inputs, outputs, nodes):
    """An ONNX file of Identity nodes."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Identity", [a], [b]) for a, b in nodes],
        "g",
        *([value(name, 1, shape) for name, shape in side.items()] for side in (inputs, outputs)),
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def test_an_onnx_file_is_turned_to_the_files_layout_or_refused():
    def info(name, shape):
        return SimpleNamespace(name=name, shape=shape)

    offline = SimpleNamespace(inputs=[info("x", (1, 6, 4))], outputs=[info("y", (1, 6, 4))])
    real = np.arange(24, dtype=np.float32).reshape(1, 6, 4)
    for shape in ((1, 4, 6), (1, 6, 4), (1, 4, "frames")):
        data = tiny({"a": shape}, {"b": shape}, [("a", "b")])
        np.testing.assert_array_equal(run_float(data, "f", offline, {"x": real})["y"], real)
    square = SimpleNamespace(inputs=[info("x", (1, 4, 4))], outputs=[info("y", (1, 4, 4))])
    for data, of, message in [
        (b"no", offline, "f cannot be run"),
        (tiny({"a": (1, 4, 5)}, {"b": (1, 4, 5)}, [("a", "b")]), offline, r"shape \(1, 4, 5\)"),
        (tiny({"a": (1, 4, 4)}, {"b": (1, 4, 4)}, [("a", "b")]), square, "which is which"),
        (
            tiny({"a": (1, 4)}, {"b": (1, 4), "c": (1, 4)}, [("a", "b"), ("a", "c")]),
            offline,
            "f has the outputs b, c, the exported file y",
        ),
    ]:
        given = {"x": real if of is offline else real[:, :4]}
        with pytest.raises(ConfigError, match=message):
            run_float(data, "f", of, given)


EXAMPLE = "ESP-DL's streaming example, which compares the last step alone, would say: "


def tutorial_file(folder, name, target, chunk):
    """The model file for what ``upstream_export.py`` leaves."""
    file = folder / "mine.py"
    shape = tuple(load_graph(folder / "model.espdl").inputs[0].shape)
    file.write_text(
        "from espdl_hil import StreamingModel\n"
        f"MODEL = StreamingModel(name={name!r}, offline='model.espdl', "
        f"streaming={{{chunk}: 'streaming_model.espdl'}}, input_shape={shape}, frame_axis=1, "
        f"targets=({target!r},))\n"
    )
    return file


def test_what_the_exporter_converts_wrongly_is_refused_as_foreign(tmp_path):
    """``auto_streaming`` moves every reader of a tensor behind its cache, as in the tutorial."""
    (model,) = load_models([ZOO / "tcn.py"]).values()
    recipe = Recipe.of(replace(model, streaming="auto", chunk_frames=(3,)), "esp32s3", 8)
    made = prepare([recipe], Store())[recipe.key]
    (tmp_path / "model.espdl").write_bytes(made.offline.read_bytes())
    (tmp_path / "streaming_model.espdl").write_bytes(made.streaming[3].read_bytes())
    result = verify(tutorial_file(tmp_path, "tcn", "esp32s3", 3), report=tmp_path / "report")
    assert [row.outcome for row in result.rows] == [Outcome.FAILED]
    assert "[S202]" in str(result)
    assert f"{EXAMPLE}nothing, the files do not run" in str(result)


def test_what_the_example_would_say(foreign, tmp_path):
    """Also where it would be wrong: a state that is lost in the second step is over at the last."""
    (case,) = make_cases([foreign], ["esp32s3"])
    rig = Rig(Settings(targets=("esp32s3",), report=tmp_path), [case])
    book = RowBook(rig)
    with contextlib.closing(rig):
        rig.prepare()
        assert prove(case, book) == ""
        rig.devkits["esp32s3"].inject(faults.StateDropped(step=1))
        hil = Hil(case, book)
        hil.forget()
        with pytest.raises(VerificationError):
            hil.verify()
        assert hil.stream().outputs[-1]["output"].tobytes() == last_frames(hil)
    (row,) = book.results.rows
    assert row.outcome is Outcome.FAILED
    assert f"{EXAMPLE}matches" in row.details.notes


def last_frames(hil):
    """What the example compares with: the end of the offline output."""
    step = hil.stream().outputs[-1]["output"]
    return hil.offline().outputs[0]["output"].tobytes()[-step.nbytes :]


@pytest.mark.slow
@pytest.mark.parametrize("target", DEVKIT_TARGETS)
@pytest.mark.parametrize(
    ("name", "chunk", "rule"),
    [
        ("tcn", 3, "S202"),
        ("pointwise", 4, ""),
        ("inverted_residual", 3, ""),
        ("inverted_residual_se", 3, ""),
    ],
)
def test_the_tutorials_models_by_its_own_script(name, chunk, rule, target, tmp_path):
    script = Path(__file__).with_name("upstream_export.py")
    command = [sys.executable, script, ZOO / f"{name}.py", target, str(chunk), tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    result = verify(tutorial_file(tmp_path, name, target, chunk), report=tmp_path / "report")
    (row,) = result.rows
    if rule:
        assert row.outcome is Outcome.FAILED
        assert f"[{rule}]" in str(result)
        assert f"{EXAMPLE}nothing, the files do not run" in str(result)
    else:
        assert row.outcome is Outcome.PASSED
        assert row.checks["streaming"].differing == 0
        assert f"{EXAMPLE}matches" in row.details.notes


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"offline.espdl"', '"none.espdl"', "none.espdl cannot be read: No such file"),
        ("(1, 24, 16)", "(1, 24, 8)", "has the shape (1, 24, 16), declared is (1, 24, 8)"),
        ("frame_axis=1", "frame_axis=1, bits=(16,)", "is int8, declared is bits=(16,)"),
    ],
)
def test_a_declaration_that_is_not_the_files(foreign, old, new, message, tmp_path):
    foreign.write_text(foreign.read_text().replace(old, new))
    result = verify(foreign, report=tmp_path / "report")
    assert not result
    assert message in str(result)


def test_foreign_files_are_exported_like_our_own(foreign, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "mine.py", "--target", "esp32s3", "-o", "out"]) == 0
    streaming = (tmp_path / "streaming-3.espdl").read_bytes()
    assert (tmp_path / "out/models/mine_int8_chunk3.espdl").read_bytes() == streaming


def test_a_pair_of_sources_is_refused():
    from espdl_hil import StreamingModel

    common = {"name": "m", "input_shape": (1, 24, 16), "frame_axis": 1}
    for given, message in [
        ({"offline": "a.espdl"}, "expected a file for each chunk size"),
        ({"offline": "a.espdl", "streaming": {3: "b.espdl"}, "chunk_frames": (4,)}, "for 3"),
        ({"offline": "a.espdl", "streaming": {3: "b"}, "build": print}, "build and offline"),
        ({"onnx": 5, "chunk_frames": (3,)}, "onnx = 5: expected a path"),
        ({"chunk_frames": (3,)}, "neither onnx nor offline is given"),
    ]:
        with pytest.raises(ConfigError, match=message):
            StreamingModel(**common, **given)
    made = StreamingModel(**common, offline="a.espdl", streaming={3: "b.espdl", 6: "c.espdl"})
    assert made.chunk_frames == (3, 6)
    assert [case.chunk_frames for case in cross([made], ["esp32s3"])] == [3, 6]
