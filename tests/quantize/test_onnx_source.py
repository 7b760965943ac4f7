"""A model that is an ONNX file: quantized like a module, and its mistakes one message."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from espdl_hil.errors import ConfigError
from espdl_hil.model import load_model
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare

MODEL = """
from espdl_hil import StreamingModel

MODEL = StreamingModel(
    name="mine", onnx="mine.onnx", input_shape=(1, 4, 12), frame_axis=2, chunk_frames=(3,),
)
"""
MISTAKES = {
    "missing": ('"mine.onnx"', '"none.onnx"', "none.onnx cannot be read: FileNotFoundError"),
    "no_onnx": ('"mine.onnx"', '"mine.py"', "mine.py cannot be read: DecodeError"),
    "shape": ("(1, 4, 12)", "(1, 5, 12)", "has the shape (1, 4, -1), declared is (1, 5, 12)"),
    "outputs": (
        "chunk_frames",
        'outputs=("a", "b"), chunk_frames',
        "has scores, outputs names a, b",
    ),
}


def network():
    """Two convolutions with names and a free length of their own, as exporters leave them."""
    random = np.random.default_rng(0)
    shapes = {"w1": (8, 4, 3), "b1": (8,), "w2": (4, 8, 1), "b2": (4,)}
    constants = [
        onnx.numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [
        onnx.helper.make_node("Conv", ["features", "w1", "b1"], ["a"], "first", pads=[2, 0]),
        onnx.helper.make_node("Relu", ["a"], ["b"], "relu"),
        onnx.helper.make_node("Conv", ["b", "w2", "b2"], ["scores"], "second"),
    ]
    ends = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, "time"])
        for name in ("features", "scores")
    ]
    graph = onnx.helper.make_graph(nodes, "mine", ends[:1], ends[1:], constants)
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What became of the model, and of it with each mistake; all made at once."""
    folder, recipes = tmp_path_factory.mktemp("onnx"), {}
    for name, (old, new, _) in {"right": ("", "", ""), **MISTAKES}.items():
        (folder / name).mkdir()
        (folder / name / "mine.py").write_text(MODEL.replace(old, new) if old else MODEL)
        onnx.save(network(), folder / name / "mine.onnx")
        model = load_model(folder / name / "mine.py")
        recipes[name] = Recipe.of(model, "esp32s3", 8)
    store = Store(folder / "store")
    results = prepare(list(recipes.values()), store)
    return store, recipes, {name: results[recipe.key] for name, recipe in recipes.items()}


def test_an_onnx_file_is_quantized_and_streamed(made):
    artifacts = made[2]["right"]
    assert isinstance(artifacts, Artifacts), artifacts
    assert artifacts.lint[3] == []
    assert set(artifacts.float_outputs) == set(artifacts.reference) == {"output"}
    assert artifacts.plans[3].receptive_field == 3
    assert artifacts.float_outputs["output"].shape == (1, 12, 4)


def test_a_changed_onnx_file_is_another_model(made):
    store, recipes, _ = made
    file = recipes["right"].source.with_name("mine.onnx")
    data = file.read_bytes()
    assert store.get(recipes["right"]) is not None
    file.write_bytes(data + b"\0")
    assert store.get(recipes["right"]) is None
    file.write_bytes(data)
    assert store.get(recipes["right"]) is not None


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_declaration_that_is_not_the_files(made, mistake):
    error = made[2][mistake]
    assert isinstance(error, ConfigError), error
    assert MISTAKES[mistake][2] in str(error)
