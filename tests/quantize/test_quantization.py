"""Quantization settings at work: what each does to the files, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from written_models import network, write

from espdl_hil import Quantization
from espdl_hil.errors import QuantizeError
from espdl_hil.espdl import load_graph
from espdl_hil.interpreter import load
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare

if TYPE_CHECKING:
    from espdl_hil.errors import HarnessError

TARGETS = ("esp32s3", "esp32p4")
LAYERS = {
    "a": "nn.Conv1d(4, 16, 3)",
    "b": "nn.Conv1d(16, 16, 3)",
    "c": "nn.Conv1d(16, 4, 1)",
}
FORWARD = [
    "y = self.a(F.pad(x, (2, 0))).relu()",
    "z = torch.sigmoid(self.b(F.pad(y, (2, 0))))",
    "return self.c(y * z + y)",
]
HEAVY = network(  # nearly all products are positive
    ["return self.b(self.a(F.pad(x, (2, 0))).relu())"],
    declared=", input_shape=(1, 48, 12), "
    "stimulus=lambda r: 1.5 + r.standard_normal((1, 48, 12)) / 2",
    a="nn.Conv1d(48, 16, 3)",
    b="nn.Conv1d(16, 4, 1)",
).replace(
    "\n        def forward",
    "            nn.init.uniform_(self.a.weight, .1, .124)\n\n        def forward",
)
MODELS = {
    "plain": network(FORWARD, **LAYERS),
    "recurrent": network(
        ["y, hn = self.r(x, h)", "return torch.sigmoid(self.m(y)), hn"],
        declared=", input_shape={'x': (1, 12, 4), 'h': (1, 1, 8)}, frame_axis={'x': 1}, "
        "outputs=('y', 'hn'), state={'h': 'hn'}",
        r="nn.GRU(4, 8, batch_first=True)",
        m="nn.Linear(8, 4)",
    ),
    "heavy": HEAVY,
    "chain": network(
        ["return self.c(self.a(F.pad(x, (2, 0))).relu())"], a=LAYERS["a"], c=LAYERS["c"]
    ),
    "two_outputs": network(
        ["y = self.a(F.pad(x, (2, 0)))", "return y, self.c(y.relu())"],
        declared=", outputs=('y', 'z')",
        a="nn.Conv1d(4, 16, 3)",
        c="nn.Conv1d(16, 4, 1)",
    ).replace(
        "\n        def forward",
        "            self.a.weight.data[::2] *= 9\n\n        def forward",
    ),
}
WANTED: dict[str, tuple[str, int, Quantization]] = {
    "default": ("plain", 8, Quantization()),
    "minmax": ("plain", 8, Quantization(algorithm="minmax")),
    "mse": ("plain", 8, Quantization(algorithm="mse")),
    "percentile": ("plain", 8, Quantization(algorithm="percentile", batches=4)),
    "chain": ("chain", 8, Quantization()),
    "equalized": ("chain", 8, Quantization(equalization=True)),
    "corrected": ("plain", 8, Quantization(bias_correction=True)),
    "one_wide": ("plain", 8, Quantization(layer_bits={"b": 16})),
    "nodes_wide": ("plain", 8, Quantization(layer_bits={"/Sigmoid": 16, "/Add": 16, "a": 16})),
    "one_narrow": ("plain", 16, Quantization(layer_bits={"b": 8})),
    "gru_wide": ("recurrent", 8, Quantization(layer_bits={"r": 16}, bias_correction=True)),
    "gru_narrow": ("recurrent", 16, Quantization(layer_bits={"r": 8})),
    "unknown": ("plain", 8, Quantization(layer_bits={"b": 16, "d.conv": 16})),
    "scaled_output": ("two_outputs", 8, Quantization(equalization=True)),
    "lanes": ("heavy", 8, Quantization(avoid_lane_saturation=True)),
    "lanes_left": ("heavy", 8, Quantization()),
    "no_lanes": ("plain", 8, Quantization(avoid_lane_saturation=True)),
}


# Mixed widths differ between targets; what else settings do is the same on both.
ON_BOTH = ("default", "one_wide", "nodes_wide", "one_narrow", "gru_wide", "lanes")
THERE_ARE = "/Add, /Mul, /Relu, /Sigmoid, a, b, c"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifacts | HarnessError]:
    folder = tmp_path_factory.mktemp("settings")
    models = {name: write(folder, name, text) for name, text in MODELS.items()}
    recipes = {
        f"{label} {target}": Recipe.of(replace(models[name], quantization=given), target, bits)
        for label, (name, bits, given) in WANTED.items()
        for target in (TARGETS if label in ON_BOTH else TARGETS[:1])
    }
    found = prepare(list(recipes.values()), Store(folder / "store"), jobs=2)
    return {label: found[recipe.key] for label, recipe in recipes.items()}


def made(results: dict[str, Artifacts | HarnessError], label: str) -> Artifacts:
    result = results[label]
    assert isinstance(result, Artifacts), result
    return result


def sqnr_db(artifacts: Artifacts, target: str, name: str) -> float:
    graph = load_graph(artifacts.offline)
    found = load(graph, target).step(artifacts.inputs_q)[name]
    wanted = artifacts.float_outputs[name]
    error = wanted - found * 2.0 ** graph.info(name).exponent
    return float(10 * np.log10(np.square(wanted).sum() / np.square(error).sum()))


def stream(artifacts: Artifacts, target: str, chunk: int) -> dict[str, np.ndarray[Any, Any]]:
    """The streaming file chunk by chunk, put together again along time; states left out."""
    plan = artifacts.plans[chunk]
    session = load(load_graph(artifacts.streaming[chunk]), target)
    state = {
        info.name: np.zeros(info.shape, info.dtype)
        for info in session.inputs
        if info.name in plan.state
    }
    ((name, axis),) = plan.frame_axes.items()
    steps = []
    for part in np.split(artifacts.inputs_q[name], 12 // chunk, axis):
        step = session.step({name: np.ascontiguousarray(part), **state})
        state = {source: step[sink] for source, sink in plan.state.items()}
        steps.append(step)
    return {
        end.output: np.concatenate([step[end.output] for step in steps], end.frame_axis)
        for end in plan.alignments
        if end.output not in plan.state.values()
    }


STREAMED = [label for label in WANTED if label not in ("unknown", "scaled_output")]


@pytest.mark.parametrize(
    ("label", "target"),
    [(label, target) for label in STREAMED for target in TARGETS[: 1 + (label in ON_BOTH)]],
)
def test_a_stream_is_its_offline_model_at_any_setting(
    results: dict[str, Artifacts | HarnessError], label: str, target: str
) -> None:
    artifacts = made(results, f"{label} {target}")
    offline = load(load_graph(artifacts.offline), target).step(artifacts.inputs_q)
    for name, found in stream(artifacts, target, 3).items():
        assert found.size > 0
        assert found.dtype == offline[name].dtype
        assert int((found != offline[name]).sum()) == 0
    if not label.startswith("lanes"):  # esp-ppq knows of no lanes
        for name, reference in artifacts.reference.items():
            difference = np.abs(offline[name].astype(np.int64) - reference)
            assert difference.max() <= (0 if WANTED[label][1] == 8 else 1)


def widths(artifacts: Artifacts) -> dict[str, str]:
    return {
        node.name: str(node.attributes["quant_type"])
        for node in load_graph(artifacts.offline).nodes
        if node.op_type not in ("RequantizeLinear", "Transpose", "Reshape", "Pad")
    }


@pytest.mark.parametrize("target", TARGETS)
def test_layers_have_the_width_that_is_asked_for(
    results: dict[str, Artifacts | HarnessError], target: str
) -> None:
    plain = widths(made(results, f"default {target}"))
    assert set(plain.values()) == {"S8"}

    def changed(label: str) -> set[str]:
        found = widths(made(results, f"{label} {target}"))
        return {name for name, width in found.items() if width == "S16"}

    assert changed("one_wide") == {"/b/Conv"}
    assert changed("nodes_wide") == {"/Sigmoid", "/Add", "/a/Conv"}
    assert changed("one_narrow") == set(plain) - {"/b/Conv"}
    assert changed("gru_wide") == {"/r/GRU", "/r/Squeeze"}
    states = load_graph(made(results, f"gru_wide {target}").streaming[3])
    assert {states.info(name).dtype.name for name in ("h", "hn")} == {"int16"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_wide_layer_reads_narrow_values_as_they_are(
    results: dict[str, Artifacts | HarnessError], target: str
) -> None:
    graph = load_graph(made(results, f"one_wide {target}").offline)
    (wide,) = [node for node in graph.nodes if node.name == "/b/Conv"]
    (border,) = [n for n in graph.nodes if n.outputs[0] == wide.inputs[0]]
    while border.op_type != "RequantizeLinear":  # a Pad behind it
        (border,) = [n for n in graph.nodes if n.outputs[0] == border.inputs[0]]
    taken, given = graph.info(border.inputs[0]), graph.info(border.outputs[0])
    assert (taken.dtype.name, given.dtype.name) == ("int8", "int16")
    assert taken.exponents == given.exponents


def test_settings_change_what_they_are_for(
    results: dict[str, Artifacts | HarnessError],
) -> None:
    def constants(label: str, index: int) -> list[bytes]:
        graph = load_graph(made(results, f"{label} esp32s3").offline)
        layers = [node for node in graph.nodes if node.op_type == "Conv"]
        return [graph.initializers[node.inputs[index]].raw.tobytes() for node in layers]

    def exponents(label: str) -> list[int]:
        graph = load_graph(made(results, f"{label} esp32s3").offline)
        return [graph.info(node.outputs[0]).exponent for node in graph.nodes]

    assert constants("corrected", 1) == constants("default", 1)
    assert constants("corrected", 2) != constants("default", 2)
    assert constants("equalized", 1) != constants("chain", 1)
    assert constants("minmax", 1) == constants("default", 1)
    assert len({tuple(exponents(label)) for label in ("minmax", "default")}) == 2


def test_an_unknown_layer_is_one_error_with_those_there_are(
    results: dict[str, Artifacts | HarnessError],
) -> None:
    error = results["unknown esp32s3"]
    assert isinstance(error, QuantizeError)
    assert error.message.endswith("the network has no layer 'd.conv'; it has " + THERE_ARE)


def test_equalization_that_scales_an_output_is_refused(
    results: dict[str, Artifacts | HarnessError],
) -> None:
    error = results["scaled_output esp32s3"]
    assert isinstance(error, QuantizeError)
    assert "equalization changes output y by up to" in error.message


def notes(artifacts: Artifacts) -> tuple[str, ...]:
    (said,) = {artifacts.notes(chunk) for chunk in artifacts.lint}
    return said


def test_lanes_are_kept_on_the_s3_and_it_is_said_what_that_gained(
    results: dict[str, Artifacts | HarnessError],
) -> None:
    kept, left = (made(results, f"{label} esp32s3") for label in ("lanes", "lanes_left"))

    def saturated(artifacts: Artifacts) -> int:
        session = load(load_graph(artifacts.offline), "esp32s3")
        session.step(artifacts.inputs_q)
        return sum(lane.saturated for lane in session.lane_saturations)

    assert saturated(left) > 0
    assert saturated(kept) == 0
    gained = sqnr_db(kept, "esp32s3", "output") - sqnr_db(left, "esp32s3", "output")
    assert gained > 6
    assert notes(left) == ()
    (note,) = notes(kept)
    assert note.startswith("avoid_lane_saturation: weights are coarser in /a/Conv by ")
    assert "now 0; SQNR " in note
    assert note.endswith(" dB")


def test_lanes_that_hold_are_left_alone(results: dict[str, Artifacts | HarnessError]) -> None:
    asked, plain = (made(results, f"{label} esp32s3") for label in ("no_lanes", "default"))
    assert notes(asked) == ("avoid_lane_saturation: nothing done, no sum saturates there",)
    assert asked.offline.read_bytes() == plain.offline.read_bytes()
    assert notes(made(results, "lanes esp32p4")) == ()  # its lanes have 32 bits
