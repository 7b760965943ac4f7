"""Ordinary networks that were refused for reasons of the harness or of the exporter."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from written_models import network, prepared

from espdl_hil.errors import QuantizeError
from espdl_hil.espdl import load_graph
from espdl_hil.interpreter import load
from espdl_hil.quantize import Artifacts
from espdl_hil.quantize.check import check_same_calibration
from espdl_hil.reference import judge

if TYPE_CHECKING:
    from espdl_hil.errors import HarnessError

CONV = "nn.Conv1d(4, 4, 3)"
POINT = "nn.Conv1d(4, 4, 1)"
ROWS = ", input_shape={'x': (1, 12, 4), 'h': (2, 1, 4)}, frame_axis={'x': 1}, "
STATE = "outputs=('y', 'hn'), state={'h': 'hn'}"
MODELS = {
    "gate": network(
        ["return torch.tanh(self.a(F.pad(x,(2,0)))) * torch.sigmoid(self.b(x))"], a=CONV, b=POINT
    ),
    "shared_pad": network(
        ['p = F.pad(x, (2, 0), "constant", 0)', "return self.a(p) + self.b(p)"], a=CONV, b=CONV
    ),
    "constant_pad": network(
        ["p = self.p(x)", "return self.a(p) + self.b(p)"],
        a=CONV,
        b=CONV,
        p="nn.ConstantPad1d((2, 0), 0.0)",
    ),
    "conv_gru": network(
        [
            "z = x.transpose(1, 2)",
            "y = z + F.relu(self.a(F.pad(z, (2, 0))))",
            "return self.r(y.transpose(1, 2) + x, h)",
        ],
        declared=ROWS.replace("(2, 1, 4)", "(1, 1, 4)") + STATE,
        a=CONV,
        r="nn.GRU(4, 4, batch_first=True)",
    ),
    "two_gru": network(
        ["return self.r(x, h)"], declared=ROWS + STATE, r="nn.GRU(4, 4, 2, batch_first=True)"
    ),
    "two_gru_stack": network(
        [
            "y, a = self.r(x, h[:1])",
            "y, b = self.s(y, h[1:])",
            "return y, torch.stack([a[0], b[0]])",
        ],
        declared=ROWS + STATE,
        r="nn.GRU(4, 4, batch_first=True)",
        s="nn.GRU(4, 4, batch_first=True)",
    ),
    "two_gru_columns": network(
        [
            "y, a = self.r(x, h[:, :, 0].unsqueeze(0))",
            "y, b = self.s(y, h[:, :, 1].unsqueeze(0))",
            "return y, torch.stack([a[0], b[0]], 2)",
        ],
        declared=ROWS.replace("(2, 1, 4)", "(1, 4, 2)") + STATE,
        r="nn.GRU(4, 4, batch_first=True)",
        s="nn.GRU(4, 4, batch_first=True)",
    ),
    "two_lstm": network(
        ["y, (hn, cn) = self.r(x, (h, c))", "return y, hn, cn"],
        declared=ROWS.replace("}, frame", ", 'c': (2, 1, 4)}, frame")
        + "outputs=('y', 'hn', 'cn'), state={'h': 'hn', 'c': 'cn'}",
        r="nn.LSTM(4, 4, 2, batch_first=True)",
    ),
    "lstm_one_tensor": network(
        ["y, (hn, cn) = self.r(x, (h[:1], h[1:]))", "return y, torch.cat([hn, cn])"],
        declared=ROWS + STATE,
        r="nn.LSTM(4, 4, batch_first=True)",
    ),
    "two_lstm_one_stack": network(
        ["y, (hn, cn) = self.r(x, (h[0], h[1]))", "return y, torch.stack([hn, cn])"],
        declared=ROWS.replace("(2, 1, 4)", "(2, 2, 1, 4)") + STATE,
        r="nn.LSTM(4, 4, 2, batch_first=True)",
    ),
    "attention": network(
        [
            "y = self.a(F.pad(x, (2, 0)))",
            "q, k = y[:, :2].transpose(1, 2).unsqueeze(3), y[:, 2:].transpose(1, 2).unsqueeze(2)",
            "return ((q @ k).softmax(-1) @ q).squeeze(3)",
        ],
        a=CONV,
    ),
    "three_channels": network(
        ["return x + self.a(F.pad(x, (2, 0)))"],
        declared=", input_shape=(1, 3, 12)",
        a="nn.Conv1d(3, 3, 3)",
    ),
    "input_twice": network(["return x + self.a(F.pad(x, (2, 0)))"], a=CONV),
    "groups": network(
        ["x += 1", "y = self.b(self.a(F.pad(x, (2, 0))))", "return torch.tanh(-y) - y"],
        a="nn.Conv1d(4, 4, 3, groups=2)",
        b="nn.Conv1d(4, 8, 1, groups=4)",
    ),
    "two_dimensions": network(
        [
            "y = self.a(x.unsqueeze(1))",
            "y = y + self.b(F.pad(F.relu(self.n(y)), (2, 0)))",
            "return self.c(y.transpose(2, 3))",
        ],
        a="nn.Conv2d(1, 2, 1)",
        b="nn.Conv2d(2, 2, (1, 3))",
        c="nn.ConvTranspose2d(2, 2, (1, 4), stride=(1, 2), padding=(0, 1))",
        n="nn.BatchNorm2d(2)",
    ),
    "output_that_is_read": network(
        ["y = self.a(F.pad(x, (2, 0)))", "return y.transpose(1, 2), self.b(y)"],
        declared=", outputs=('y', 'z')",
        a=CONV,
        b=POINT,
    ),
    "nothing_by_nothing": network(  # frames of zeros, beside which 1e-6 is nothing
        [
            "y = F.relu(self.a(F.pad(x, (2, 0))) - 0.8)",
            "return self.b(y / (y.amax(1, keepdim=True) + 1e-6))",
        ],
        a=CONV,
        b=POINT,
    ),
    "norms": network(
        [
            "y = self.m(x.transpose(1, 2).unflatten(2, (2, 2))).flatten(2)",
            "return self.a(F.pad(self.n(y).transpose(1, 2).relu(), (2, 0)))",
        ],
        a=CONV,
        m="nn.LayerNorm([2, 2])",
        n="nn.LayerNorm(4)",
    ),
    "input_minus_mean": network(
        ["x = x - x.mean(1, keepdim=True)", "return self.a(F.pad(x, (2, 0)))"], a=CONV
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifacts | HarnessError]:
    return prepared(tmp_path_factory.mktemp("ordinary"), MODELS, bits=(8, 16))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", MODELS)
def test_an_ordinary_network_is_not_refused(
    results: dict[str, Artifacts | HarnessError], name: str, bits: int
) -> None:
    made = results[f"{name} int{bits} esp32s3"]
    assert isinstance(made, Artifacts), made
    # esp-ppq runs the float network, too: an output of another shape would be left out
    assert made.float_outputs.keys() <= made.activations.keys()


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", MODELS)
def test_its_stream_equals_its_offline_run(
    results: dict[str, Artifacts | HarnessError], name: str, bits: int
) -> None:
    made = results[f"{name} int{bits} esp32s3"]
    assert isinstance(made, Artifacts)
    plan = made.plans[3]
    offline = load(load_graph(made.offline), "esp32s3").step(made.inputs_q)
    session = load(load_graph(made.streaming[3]), "esp32s3")
    step = {source: made.inputs_q[source] for source in plan.state}
    steps = []
    for chunk in range(4):
        for source, axis in plan.frame_axes.items():
            frames = range(3 * chunk, 3 * chunk + 3)
            step[source] = np.ascontiguousarray(np.take(made.inputs_q[source], frames, axis))
        steps.append({key: value.copy() for key, value in session.step(step).items()})
        step |= {source: steps[-1][sink] for source, sink in plan.state.items()}
    for alignment in plan.alignments:
        parts = [step[alignment.output] for step in steps]
        stream = parts[-1] if alignment.state_input else np.concatenate(parts, alignment.frame_axis)
        assert np.array_equal(stream, offline[alignment.output])
        assert len(np.unique(stream)) > 3


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", ["groups", "norms", "nothing_by_nothing"])
def test_each_of_its_layers_is_what_the_exporter_computes(
    results: dict[str, Artifacts | HarnessError], name: str, bits: int
) -> None:
    made = results[f"{name} int{bits} esp32s3"]
    assert isinstance(made, Artifacts)
    graph = load_graph(made.offline)
    judged = judge(graph, "esp32s3", made.recorded, made.inputs_q)
    assert len(judged) >= len(graph.nodes) - 1
    assert [str(node) for node in judged if not node.within] == []


def test_groups_are_said_to_cost_more(results: dict[str, Artifacts | HarnessError]) -> None:
    made = results["groups int8 esp32s3"]
    assert isinstance(made, Artifacts)
    assert any(
        "a (Conv): its 2 groups are written as one" in note for note in made.meta["notes"]["3"]
    )


def test_tables_that_are_exchanged_are_noticed(
    results: dict[str, Artifacts | HarnessError],
) -> None:
    made = results["gate int8 esp32s3"]
    assert isinstance(made, Artifacts)
    offline, streaming = load_graph(made.offline), load_graph(made.streaming[3])
    first, second = [node.attributes["lut"] for node in streaming.nodes if "lut" in node.attributes]
    other = {first: second, second: first}
    nodes = [
        replace(n, attributes={**n.attributes, "lut": other[n.attributes["lut"]]})
        if "lut" in n.attributes
        else n
        for n in streaming.nodes
    ]
    check_same_calibration(offline, streaming, 3)
    with pytest.raises(QuantizeError, match=r"constant \w+_lut_\d has other values"):
        check_same_calibration(offline, replace(streaming, nodes=tuple(nodes)), 3)
