"""What a chip computes wrongly: exported around, in all files alike, else refused by its rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from written_models import network, prepared

from espdl_hil.errors import HarnessError, StreamingError
from espdl_hil.espdl import load_graph
from espdl_hil.interpreter import load
from espdl_hil.operators import check_graph, find_detours
from espdl_hil.quantize.check import check_same_calibration
from espdl_hil.streaming import lint

if TYPE_CHECKING:
    from espdl_hil.quantize import Artifacts

# Run again in the worker, a model file may change what the exporter does.
IN_WORKER = """
import sys
if "esp_ppq" in sys.modules:
    from espdl_hil.quantize import exporter
    _calibrate = exporter.calibrate

    def calibrate(*arguments):
        graph = _calibrate(*arguments)
        change(graph)
        return graph

    exporter.calibrate = calibrate
"""
CHANGE = """
def change(graph):
    from esp_ppq.core import QuantizationStates
    layer = graph.operations["/b/Conv"]
    for config in CONFIGS:
        scale, offset = config.scale / 2**BITS, config.offset
        config._dominator = config
        config.state = QuantizationStates.ACTIVATED
        config.scale, config.offset = scale, offset
"""
# Finer than what the layer before gives.
FINER = IN_WORKER + CHANGE.replace("BITS", "9").replace(
    "CONFIGS", "(layer.input_quant_config[0], layer.output_quant_config[0])"
)
MIXED = (
    "from espdl_hil import Quantization\n"
    + IN_WORKER
    + CHANGE.replace("BITS", "2").replace("CONFIGS", "layer.input_quant_config[:1]")
)
CAUSAL = "self.a(F.pad(x, (2, 0)))"
# 8 channels of 22 frames are 16 n elements; a chunk of 11 frames has 16 n + 8
WIDENED = network(
    [f"return self.b(torch.relu({CAUSAL}))"],
    a="nn.Conv1d(4, 8, 3)",
    b="nn.Conv1d(8, 8, 1, bias=False)",
    declared=", input_shape=(1, 4, 22), chunk_frames=(11,), quantization="
    "Quantization(layer_bits={'b': 16})",
)
MODELS = {
    "nearest": network(
        [f"return F.interpolate({CAUSAL}, scale_factor=2, mode='nearest')"],
        a="nn.Conv1d(4, 4, 3)",
        declared=", chunk_frames=(3,)",
    ),
    "compared": network(
        [f"y = {CAUSAL}", "return y.reshape(1, 2, 2, -1) > y[:, :2].reshape(1, 2, 1, -1)"],
        a="nn.Conv1d(4, 4, 3)",
        declared=", chunk_frames=(3,)",
    ),
    "widened": MIXED + WIDENED,
    "refused": MIXED
    + """
if "esp_ppq" in sys.modules:
    from espdl_hil.quantize import conversion
    conversion.find_detours = lambda graph, target: {}
"""
    + WIDENED,
    # 16 channels of 6 or 24 frames: 96 elements and more
    "finer": FINER
    + network(
        [f"return self.b(torch.relu({CAUSAL}))"],
        a="nn.Conv1d(4, 16, 3)",
        b="nn.Conv1d(16, 8, 1, bias=False)",
        declared=", input_shape=(1, 4, 24), chunk_frames=(6,)",
    ),
}
WIDTHS = {"compared": 16}
DETOURS = {
    "nearest": ["Pad", "Resize", "Slice"],
    "compared": ["Concat", "Greater"],
    "widened": ["Pad", "RequantizeLinear", "Slice"],
    "finer": ["RequantizeLinear", "RequantizeLinear"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, Artifacts | HarnessError]:
    folder = tmp_path_factory.mktemp("detours")
    found = {}
    for bits in (8, 16):
        texts = {n: text for n, text in MODELS.items() if WIDTHS.get(n, 8) == bits}
        found |= prepared(folder, texts, bits=(bits,))
    return {label.partition(" ")[0]: result for label, result in found.items()}


def notes(artifacts):
    return artifacts.notes(min(artifacts.lint))


def test_the_artifacts_say_so(made):
    assert notes(made["nearest"]) == (
        "Resize '/Resize' is exported in another form, for as it stands the chip would compute it "
        "wrongly: padded from 4 to 16 channels, sliced behind it",
    )
    assert all(notes(made[name]) for name in DETOURS)


def files_of(result):
    if isinstance(result, HarnessError):
        raise result
    return [load_graph(path) for path in (result.offline, *result.streaming.values())]


@pytest.mark.parametrize("name", DETOURS)
def test_a_model_that_meets_it_is_exported_around_it(made, name):
    for graph in files_of(made[name]):
        types = [node.op_type for node in graph.nodes]
        wanted = DETOURS[name]
        places = [i for i in range(len(types)) if types[i : i + len(wanted)] == wanted]
        assert places, types
        check_graph(graph, "esp32s3")
        assert find_detours(graph, "esp32s3") == {}


@pytest.mark.parametrize("name", DETOURS)
def test_the_way_around_gives_what_was_meant(made, name):
    """Target c has none of these flaws, and esp-ppq knows nothing of the way around."""
    result = made[name]
    offline, *streams = files_of(result)
    meant = result.reference
    found = load(offline, "esp32s3").step(result.inputs_q)
    for output, values in meant.items():
        assert np.array_equal(found[output], values.astype(found[output].dtype)), output
    for streaming in streams:
        check_same_calibration(offline, streaming, 0)


@pytest.mark.parametrize("name", DETOURS)
def test_the_stream_equals_the_offline_run(made, name):
    result = made[name]
    offline, *_ = files_of(result)
    whole = load(offline, "esp32s3").step(result.inputs_q)["output"]
    x = result.inputs_q["input"]
    for chunk, path in result.streaming.items():
        session = load(path, "esp32s3")
        axis = result.plans[chunk].alignments[0].frame_axis
        steps = [
            session.step({"input": part})["output"] for part in np.split(x, x.shape[1] // chunk, 1)
        ]
        assert np.array_equal(np.concatenate(steps, axis), whole)
        found = [*result.lint[chunk], *lint(load_graph(path), offline), *lint(load_graph(path))]
        assert not [finding for finding in found if finding.severity.value == "error"]


def test_a_chunk_that_meets_it_is_refused_by_its_rule_where_no_way_is_known(made):
    """The whole sequence does not: the streaming file is looked at, too."""
    refusal = made["refused"]
    assert isinstance(refusal, StreamingError)
    assert (refusal.rule, refusal.chunk_frames) == ("S114", [11])
    assert "the chip never writes the last 8 of the 88 outputs, which is 16 n + 8" in str(refusal)
