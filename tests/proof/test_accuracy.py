"""What a quantized model keeps of the float one: enough, or a failed row that names the layer."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from espdl_hil import Quantization, StreamingModel, verify
from espdl_hil.compare import NotComparableError
from espdl_hil.espdl import Node, pack_filter
from espdl_hil.proof.accuracy import measure
from espdl_hil.proof.expected import Expected
from espdl_hil.proof.loss import Layer, explain_loss
from espdl_hil.proof.run import VerificationError

CALIBRATED = """
from espdl_hil import StreamingModel

def build():
    from torch import nn

    return nn.Sequential(nn.Conv1d(4, 16, 1), nn.Sigmoid(), nn.Conv1d(16, 4, 1))

def calibration(random):
    return random.normal(size=(1, 4, 24)).astype("float32") * {factor}

MODEL = StreamingModel(
    name="calibrated", build=build, input_shape=(1, 4, 24), frame_axis=2, chunk_frames=(3,),
    targets=("esp32s3",), calibration=calibration,{more}
)
"""


@pytest.fixture
def verified(tmp_path):
    """Prove a model that is calibrated with noise of some size; the stimulus has size 1."""

    def run(factor, more=""):
        file = tmp_path / "calibrated.py"
        file.write_text(CALIBRATED.format(factor=factor, more=more))
        return verify(file, "esp32s3", report=tmp_path / "report")

    return run


def test_a_model_that_keeps_enough(proof, book):
    kept = proof.accuracy()

    assert kept
    assert kept.explain() == []
    row = book.row(proof.case)
    assert row.outcome == "passed"
    assert row.accuracy.sqnr_db == kept.sqnr_db["output"] == pytest.approx(row.sqnr_db, abs=0.01)
    assert row.accuracy.sqnr_db > row.accuracy.min_sqnr_db == 10


def test_every_layer_has_its_rung(proof):
    rungs = proof.expected.ladder.rungs

    operators = [node.op_type for node in proof.expected.offline_graph.nodes]
    operators.remove("RequantizeLinear")  # the float network has no such layer
    assert [rung.operator for rung in rungs] == ["Input", *operators]
    assert all(rung.changes_db > 3 for rung in rungs)
    modules = {rung.module: rung.node for rung in rungs}
    assert modules["conv"] == "/conv/Conv"
    assert modules[""] == "/Add"  # of forward itself
    assert rungs[-1].changes_db == pytest.approx(proof.accuracy().changes_db["output"], abs=0.1)


@pytest.mark.parametrize(
    ("factor", "cause"),
    [(0.01, "its range is clipped: 9"), (150.0, "it uses few of its 256 levels")],
)
def test_garbage_fails_and_the_layer_is_named(verified, factor, cause):
    result = verified(factor)

    assert not result
    (row,) = result.rows
    assert row.outcome == row.accuracy.outcome == "failed"
    assert {check.outcome for check in row.checks.values()} == {"passed"}
    assert row.reason.startswith("output 'output' keeps ")
    assert f"most is lost in Input 'input', 40.0 dB before it and {level(row)}" in row.reason
    assert cause in row.reason
    assert "try: " in result.explanations[row.id]
    data = json.loads(result.report.read_text())["rows"][0]
    assert data["quantization"] == Quantization().to_json()
    layers = {layer["node"]: layer["module"] for layer in data["details"]["pictures"]["layers"]}
    assert (layers["/2/Conv"], layers["input"]) == ("2", "")
    assert data["checks"]["accuracy"]["outcome"] == "failed"
    assert f"accuracy: {row.accuracy.sqnr_db:.1f} dB kept" in str(result)


def level(row):
    """The rung of the input as the row's ladder shows it."""
    layer = row.details.pictures["layers"][0]
    assert (layer["operator"], layer["node"]) == ("Input", "input")
    return f"{layer['changes_db']:.1f} dB"


def test_a_fitting_calibration_mends_it(verified):
    assert verified(1.0)


def test_the_declared_least_is_the_limit(verified):
    assert verified(50.0, " min_sqnr_db=3,").rows[0].accuracy.min_sqnr_db == 3
    result = verified(1.0, ' min_sqnr_db={"output": 60.0},')
    assert [row.outcome for row in result.rows] == ["failed"]
    assert "at least 60 dB are asked for" in str(result)


def test_an_assertion_shows_what_is_lacking(proof, book, case, monkeypatch):
    monkeypatch.setattr(StreamingModel, "least_sqnr_db", lambda *of: 70.0)

    kept = proof.accuracy()

    assert not kept
    assert repr(kept).startswith("<accuracy of esp32s3-residual-int8-chunk3: output ")
    first, second, third = book.explain(case)
    assert first.endswith(" dB of the float model, at least 70 dB are asked for")
    assert second.startswith("most is lost in ")
    assert third.startswith("try: ")
    assert book.row(case).reason.startswith("output 'output' keeps")
    with pytest.raises(VerificationError, match="accuracy: output 'output' keeps"):
        proof.verify()


def test_a_large_constant_is_no_signal(proof):
    """An output that is right on average and in nothing else keeps nothing."""
    expected, exponent = proof.expected, proof.expected.offline_graph.outputs[0].exponent
    real = expected.artifacts.float_outputs["output"]
    flat = np.broadcast_to(real.mean(axis=1, keepdims=True), real.shape)
    steps = np.rint(flat * 2.0**-exponent).astype(np.int8)

    constant = measure(expected, {"output": steps})
    assert constant.sqnr_db["output"] > 10
    assert constant.changes_db["output"] < 0
    assert not constant
    assert "but nearly all of that is constant" in constant.explain()[0]
    assert measure(expected, expected.offline)


def test_what_is_not_finite_has_no_accuracy(rig, case):
    expected = Expected(case, rig.expected(case).artifacts)
    endless = np.full_like(expected.artifacts.float_outputs["output"], np.inf)

    with pytest.raises(NotComparableError, match="no accuracy can be given: output is not finite"):
        measure(expected, {"output": endless})


def explain(proof, operator, layer, lanes=None):
    node = Node("n", operator, (), ("t",))
    return explain_loss(proof.expected.offline_graph, node, "esp32s3", layer, lanes or {})[0]


def test_causes(proof, rng):
    real = rng.normal(size=(1, 50, 4)).astype(np.float32)
    fine = Layer(np.rint(real * 32).astype(np.int8), real, (-5,), 1)
    coarse = Layer(np.rint(real).astype(np.int8), real, (0,), 1)

    assert explain(proof, "Add", fine).startswith("its errors are 0.3 steps of 0.03125")
    assert (
        explain(proof, "Conv", fine, {"n": "sum"})
        == "its sums leave the ESP32-S3's 20-bit lanes (sum)"
    )
    assert explain(proof, "Add", coarse).startswith("it uses few of its 256 levels")
    clipped = replace(fine, values=np.clip(np.rint(real * 512), -128, 127).astype("i1"))
    assert explain(proof, "Add", replace(clipped, exponents=(-9,))).startswith(
        "its range is clipped"
    )
    floats = Layer(real, real, (0,), 1)
    assert explain(proof, "Softmax", floats) == "it computes in float what its inputs have lost"


def test_unequal_channels(proof, rng):
    """One filter has channels of like size, the other has one that is much larger."""
    graph = proof.expected.offline_graph
    conv = next(node for node in graph.nodes if node.op_type == "Conv")
    stored = graph.initializers[conv.inputs[1]]
    n_k = np.full((16, 4), 3, np.int8)
    even = replace(stored, raw=np.full(stored.info.size, 3, np.int8))
    n_k[5] = 120
    packed = pack_filter(n_k.reshape(16, 1, 1, 4), "esp32s3")
    real = rng.normal(size=(1, 50, 4)).astype(np.float32)
    layer = Layer(np.rint(real * 32).astype(np.int8), real, (-5,), 1)

    def cause(tensor):
        constants = {**graph.initializers, conv.inputs[1]: tensor}
        return explain_loss(replace(graph, initializers=constants), conv, "esp32s3", layer, {})[0]

    assert cause(replace(even, raw=packed)) == (
        "its channels' int8 weights are unequal: those of one reach 120, those of another only 3"
    )
    assert cause(even).startswith("its errors are ")


def test_an_output_that_clipping_stills_is_refused(tmp_path):
    """``1 - sigmoid`` of an open gate whose changes are smaller than any step of int8."""
    (tmp_path / "gate.py").write_text(GATE)
    (row,) = verify(tmp_path / "gate.py", report=tmp_path / "report").rows
    assert row.outcome == "error"
    assert "output 'output' of the quantized network never changes (in float it goes" in row.reason


GATE = """
from espdl_hil import StreamingModel

def build():
    import torch
    from torch import nn

    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv1d(4, 16, 1), nn.Conv1d(16, 4, 1)
            nn.init.constant_(self.a.bias, 6.0)

        def forward(self, x):
            return self.b(1.0 - torch.sigmoid(self.a(x)))

    return Gate()

MODEL = StreamingModel(
    name="gate", build=build, input_shape=(1, 4, 24), frame_axis=2, chunk_frames=(3,),
    targets=("esp32s3",),
)
"""
