"""The traced network is the trained one: what a trace bakes in is refused with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from written_models import network, prepared

from espdl_hil.errors import HarnessError, QuantizeError, StreamingError
from espdl_hil.quantize import Artifacts

if TYPE_CHECKING:
    from pathlib import Path

NO_RANDOM = "write F.dropout(x, training=self.training), and draw no random numbers"
STEP = "y = self.a(F.pad(x, (2, 0)))"
# Each line of forward, with the rule that refuses it and the line that is named (None: any).
BAKED = {
    "mean": (["x = x - x.mean().item()", STEP, "return y"], "S401", 0),
    "branch": (["if x.abs().mean() > .5:", "    x = 2 * x", STEP, "return y"], "S401", 0),
    "unseen_branch": (["if x.abs().mean() > 99:", "    x = 2 * x", STEP, "return y"], "S401", 0),
    "peak": (["p = float(x.abs().max())", STEP, "return y * p"], "S401", 0),
    "hidden": ([STEP, "peak = y.detach().numpy().max()", "return y * float(peak)"], "S401", 1),
    "view": ([STEP, "z = y[:, :1]", "z *= 0.5", "return y * y.max().item()"], "S401", 3),
    "length": ([STEP, "return y * (6 / x.shape[2])"], "S402", 1),
    "length_of": ([STEP, "n = len(x[0, 0])", "return y / n"], "S402", 1),
}
FINE = {
    "mean": [STEP, "return y - y.mean(1, keepdim=True)"],
    "guards": [
        "assert x.abs().max() < 1e9",
        "if torch.isnan(x).any():",
        "    raise ValueError('NaN')",
        "print(float(x.max()))",
        "if x.shape[2] % 3:",
        "    raise ValueError('length')",
        STEP,
        "return y",
    ],
    "parameter": [STEP, "return y * float(self.a.weight.abs().max())"],
    "fixed_length": [STEP, "return y.reshape(1, 4, 12) * 0.5"],
    "dropout": [STEP, "return F.dropout(y, 0.5, self.training)"],
    "branch": [STEP, "return x * torch.sigmoid(y)"],
}
DRAWN = {
    "rand": [STEP, "return y + 1e-3 * torch.rand(4, 1)"],  # a node that has no input
    "rand_like": [STEP, "return y + 1e-3 * torch.rand_like(y)"],
    "in_place": [STEP, "y = y + torch.empty(4, 1).uniform_()", "return y"],
    "dropout": [STEP, "y = F.dropout(y, 0.5)", "return y"],
}
SEEDED = {
    "unused": [STEP, "torch.rand(3)", "return y"],
    "seeded": ["torch.manual_seed(0)", STEP, "return y + torch.rand(4, 1)"],
}
SPOILED = {
    "random": [STEP, "return F.dropout(y, 0.5)"],
    "attribute": [STEP, "self.n = getattr(self, 'n', 0) + 1", "return y * self.n"],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifacts | HarnessError]:
    lines = {f"baked_{name}": lines for name, (lines, _, _) in BAKED.items()}
    lines |= {f"fine_{name}": lines for name, lines in FINE.items()}
    lines |= {f"spoiled_{name}": lines for name, lines in SPOILED.items()}
    lines |= {f"drawn_{name}": lines for name, lines in DRAWN.items()}
    lines |= {f"seeded_{name}": lines for name, lines in SEEDED.items()}
    texts = {name: network(forward, a="nn.Conv1d(4, 4, 3)") for name, forward in lines.items()}
    return prepared(tmp_path_factory.mktemp("baked"), texts)


@pytest.mark.parametrize("name", BAKED)
def test_what_is_baked_in_is_refused_with_its_line(
    results: dict[str, Artifacts | HarnessError], tmp_path: Path, name: str
) -> None:
    error = results[f"baked_{name} int8 esp32s3"]
    forward, rule, line = BAKED[name]
    assert isinstance(error, StreamingError), error
    assert error.rule == rule
    text = network(forward, a="nn.Conv1d(4, 4, 3)", name=f"baked_{name}")
    number = text.splitlines().index(f"            {forward[line]}") + 1
    assert f"baked_{name}.py:{number}" in error.node.split(", ")
    assert error.hint


@pytest.mark.parametrize("name", FINE)
def test_what_stays_true_is_not(results: dict[str, Artifacts | HarnessError], name: str) -> None:
    made = results[f"fine_{name} int8 esp32s3"]
    assert isinstance(made, Artifacts), made


@pytest.mark.parametrize("name", SPOILED)
def test_a_module_that_is_no_function_is_refused(
    results: dict[str, Artifacts | HarnessError], name: str
) -> None:
    error = results[f"spoiled_{name} int8 esp32s3"]
    assert isinstance(error, QuantizeError), error
    assert "forward gives something else when it runs again on the same input" in str(error)


@pytest.mark.parametrize("name", DRAWN)
def test_random_numbers_are_refused_with_their_line(
    results: dict[str, Artifacts | HarnessError], name: str
) -> None:
    error = results[f"drawn_{name} int8 esp32s3"]
    assert isinstance(error, QuantizeError), error
    text = network(DRAWN[name], a="nn.Conv1d(4, 4, 3)", name=f"drawn_{name}")
    number = text.splitlines().index(f"            {DRAWN[name][1]}") + 1
    assert error.message.endswith(f"it draws random numbers at drawn_{name}.py:{number}")
    assert error.hint == NO_RANDOM


def test_random_numbers_that_are_the_same_each_time(
    results: dict[str, Artifacts | HarnessError],
) -> None:
    assert isinstance(results["seeded_unused int8 esp32s3"], Artifacts)
    error = results["seeded_seeded int8 esp32s3"]
    assert str(error).startswith("quantize (build): RandomUniform ")
    assert "draws random numbers\n  hint: put them into the network as a constant" in str(error)
