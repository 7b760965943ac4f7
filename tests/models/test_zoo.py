"""The zoo: every model loads, quantizes well, and its stimulus exercises it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from espdl_hil.espdl import load_graph
from espdl_hil.model import StreamingModel, load_models
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare
from espdl_hil.targets import DEVKIT_TARGETS

FOLDER = Path(__file__).parents[2] / "models"
MODELS = load_models([FOLDER])
CASES = [
    (model, target, bits)
    for model in MODELS.values()
    for target in DEVKIT_TARGETS
    for bits in model.bits
]
MIN_COSINE = {8: 0.99, 16: 0.9999}
MAX_SATURATED = 0.02


def test_the_zoo_is_complete() -> None:
    assert len(MODELS) >= 16
    for name, model in MODELS.items():
        assert model.source == FOLDER / f"{name}.py"
        assert model.bits == (8, 16)
        assert len(model.chunk_frames) >= 2


def test_loading_the_zoo_does_not_import_torch() -> None:
    check = (
        "import sys; from espdl_hil.model import load_models; load_models([sys.argv[1]]);"
        "print(sorted({'torch', 'esp_ppq', 'onnx'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", check, str(FOLDER)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.fixture(scope="module")
def zoo() -> dict[str, Artifacts]:
    """The whole zoo, from the same store as the tests on devices."""
    recipes = [Recipe.of(*case) for case in CASES]
    made = prepare(recipes, Store())
    failed = {recipe.label: str(made[recipe.key]) for recipe in recipes}
    found = {recipe.label: made[recipe.key] for recipe in recipes}
    good = {label: result for label, result in found.items() if isinstance(result, Artifacts)}
    assert len(good) == len(found), {label: failed[label] for label in failed if label not in good}
    return good


@pytest.mark.parametrize(
    ("model", "target", "bits"), CASES, ids=[f"{t}-{m.name}-int{b}" for m, t, b in CASES]
)
def test_a_model_survives_quantization_and_its_outputs_say_something(
    zoo: dict[str, Artifacts], model: StreamingModel, target: str, bits: int
) -> None:
    made = zoo[f"{model.name} int{bits} {target}"]
    offline = load_graph(made.offline)
    for name in model.outputs:
        steps, real = made.reference[name], made.float_outputs[name].astype(np.float64)
        quantized = steps * 2.0 ** offline.info(name).exponent
        cosine = (quantized * real).sum() / np.sqrt((quantized**2).sum() * (real**2).sum())
        assert cosine > MIN_COSINE[bits], name
        limits = np.iinfo(steps.dtype)
        assert np.isin(steps, (limits.min, limits.max)).mean() <= MAX_SATURATED, name
        assert len(np.unique(steps)) >= min(8, steps.size), name
    assert set(made.plans) == set(made.streaming) == set(model.chunk_frames)


def test_the_zoo_holds_every_kind_of_layer_that_streams(zoo: dict[str, Artifacts]) -> None:
    operators = {
        node.op_type
        for made in zoo.values()
        for path in made.streaming.values()
        for node in load_graph(path).nodes
    }
    assert operators >= {
        "Add", "AveragePool", "Concat", "Conv", "Flatten", "GRU", "Gemm", "InsertZeros", "LSTM",
        "LayerNormalization", "MaxPool", "Mul", "Relu", "RequantizeLinear", "Reshape", "Sigmoid",
        "Slice", "StreamingCache", "Swish", "Tanh", "Transpose",
    }  # fmt: skip
