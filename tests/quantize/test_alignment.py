"""Exponents that must be equal: what they cost, and that the file says what esp-ppq computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from written_models import network, prepared

from espdl_hil.espdl import load_graph
from espdl_hil.interpreter import load
from espdl_hil.quantize import Artifacts

if TYPE_CHECKING:
    from espdl_hil.errors import HarnessError

CONV = "nn.Conv1d(4, 4, 3)"
POINT = "nn.Conv1d(4, 4, 1)"
OPEN = "nn.init.constant_(self.a.bias, 3.0)"
PAST = "F.pad(x, (2, 0))"


def set_up(text: str, *lines: str) -> str:
    """A network with more lines in its ``__init__``."""
    head, mark, tail = text.partition("\n        def forward")
    return head + "".join(f"            {line}\n" for line in lines) + mark + tail


def power_spectrum(quietest: float, loudest: float) -> str:
    """The squared sum of a convolution's halves, the second of which has these weights."""
    return set_up(
        network(
            ["re, im = self.a(x).chunk(2, 1)", "return re * re + im * im"],
            a="nn.Conv1d(1, 16, 1, bias=False)",
            declared=", input_shape=(1, 1, 480)",
        ),
        f"halves = torch.linspace(.5, .6, 8), torch.linspace({quietest}, {loudest}, 8)",
        "self.a.weight.data = torch.cat(halves)[:, None, None]",
    )


# Runs again in the worker: each read of a tensor keeps the step that esp-ppq calibrates it to.
EACH_READ = """
import sys
if "esp_ppq" in sys.modules:
    from espdl_hil.quantize import alignment
    alignment._read_alike = lambda op: None
"""
POWER = power_spectrum(0.31, 0.36)

# Each network, with the least SQNR in dB that it must have at 8 bits.
MODELS = {
    "open_gate": (
        set_up(network(["return 1.0 - torch.sigmoid(self.a(x))"], a=POINT), OPEN),
        12,
    ),
    "closed_gate": (network(["return 1.0 - torch.sigmoid(self.a(x))"], a=POINT), 30),
    "cancelled": (
        set_up(
            network(["y = self.a(x)", "return y + self.b(x) - y * 0.9"], a=POINT, b=POINT),
            "self.a.weight.data *= 8; self.b.weight.data *= .1; self.b.bias.data *= .1",
        ),
        15,
    ),
    "rectified": (network([f"return F.relu(x - self.a({PAST}).relu())"], a=CONV), 20),
    "input_twice": (network([f"return x * 0.1 + self.a({PAST}) - x"], a=CONV), 20),
    "input_mean": (
        network(["x = x - x.mean(1, keepdim=True)", f"return self.a({PAST})"], a=CONV),
        15,
    ),
    "power": (POWER, 20),  # esp-ppq reads the second half at two steps
    "power_16": (power_spectrum(0.23, 0.28), 15),  # where that shows at 16 bits
    "power_each_read": (EACH_READ + POWER, 20),
    "two_tensors": (network(["return self.a(x) * x + (x + 8.0)"], a=POINT), 20),
    "tiny": (  # steps that differ by less than 1e-5 at 16 bits
        set_up(
            network([f"y = self.a({PAST})", "return self.b(y) * 4 + y"], a=CONV, b=POINT),
            "self.a.weight.data *= 1e-3; self.a.bias.data *= 1e-3",
            "self.b.weight.data *= 4; self.b.bias.data *= 1e-3",
        ),
        20,
    ),
    "tiny_concat": (
        set_up(
            network(
                [f"y = self.a({PAST})", "return torch.cat([self.b(y), y], 1)"], a=CONV, b=POINT
            ),
            "self.a.weight.data *= 1e-3; self.a.bias.data *= 1e-3",
            "self.b.weight.data *= 9; self.b.bias.data *= 1e-3",
        ),
        20,
    ),
    "variance": (  # a small difference of larger operands, behind whose Relu is another sum
        network(
            [
                f"y = self.a({PAST}).relu()",
                "m = F.avg_pool1d(F.pad(y, (2, 0)), 3, 1)",
                "return F.relu(F.avg_pool1d(F.pad(y * y, (2, 0)), 3, 1) - m * m) + 1e-3",
            ],
            a=CONV,
        ),
        20,
    ),
    "large_bias": (  # beside small products: beyond the S3's 20 bits
        set_up(
            network(
                ["return self.n(x)"],
                declared=", input_shape=(1, 4, 12, 8), "
                "stimulus=lambda r: 8e-3 * r.standard_normal((1, 4, 12, 8))",
                n="nn.BatchNorm2d(4)",
            ),
            "nn.init.normal_(self.n.bias)",
        ),
        20,
    ),
    "batch_norm": (
        set_up(
            network(
                [f"return self.n(self.a({PAST}).relu().unsqueeze(3)).squeeze(3)"],
                a=CONV,
                n="nn.BatchNorm2d(4)",
            ),
            "nn.init.uniform_(self.n.running_var, .5, 2); nn.init.normal_(self.n.bias)",
        ),
        20,
    ),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifacts | HarnessError]:
    texts = {name: text for name, (text, _) in MODELS.items()}
    folder = tmp_path_factory.mktemp("aligned")
    return prepared(folder, texts, targets=("esp32s3", "esp32p4"), bits=(8, 16))


LABELS = [(b, t) for t in ("esp32s3", "esp32p4") for b in (8, 16)]


@pytest.mark.parametrize(("bits", "target"), LABELS)
@pytest.mark.parametrize("name", MODELS)
def test_the_chip_does_what_the_network_does(
    results: dict[str, Artifacts | HarnessError], name: str, bits: int, target: str
) -> None:
    made = results[f"{name} int{bits} {target}"]
    assert isinstance(made, Artifacts), made
    graph = load_graph(made.offline)
    found = load(graph, target).step(made.inputs_q)["output"]
    wanted = made.float_outputs["output"]
    error = wanted - found * 2.0 ** graph.info("output").exponent
    sqnr_db = 10 * np.log10(np.square(wanted).sum() / np.square(error).sum())
    assert sqnr_db > MODELS[name][1] + (20 if bits == 16 else 0)
    difference = found.astype(np.int64) - made.reference["output"]
    assert np.abs(difference).max() <= (0 if bits == 8 else 1)


def producers(made: Artifacts | HarnessError) -> list[list[str]]:
    """What makes the operands of each product of the offline file."""
    assert isinstance(made, Artifacts), made
    graph = load_graph(made.offline)
    source = {name: node.op_type for node in graph.nodes for name in node.outputs}
    found = [[source.get(name, "") for name in n.inputs] for n in graph.nodes if n.op_type == "Mul"]
    return sorted(found)


@pytest.mark.parametrize(("bits", "target"), LABELS)
def test_a_tensor_that_is_both_operands_is_read_at_one_step(
    results: dict[str, Artifacts | HarnessError], bits: int, target: str
) -> None:
    for name in ("power", "power_16"):
        assert producers(results[f"{name} int{bits} {target}"]) == [["Slice", "Slice"]] * 2


@pytest.mark.parametrize(("bits", "target"), LABELS)
def test_a_requantization_is_on_the_operand_that_it_is_for(
    results: dict[str, Artifacts | HarnessError], bits: int, target: str
) -> None:
    second = producers(results[f"power_each_read int{bits} {target}"])
    assert second == [["Slice", "RequantizeLinear"], ["Slice", "Slice"]]
    of_two = producers(results[f"two_tensors int{bits} {target}"])
    assert of_two == [["Conv", "RequantizeLinear"]]
