"""The traced network is the trained one: what a trace bakes in is refused with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from written_models import network, prepared

from espdl_hil.errors import HarnessError, QuantizeError, StreamingError
from espdl_hil.quantize import Artifacts

if TYPE_CHECKING:
    from pathlib import Path

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
SPOILED = {
    "random": [STEP, "return F.dropout(y, 0.5)"],
    "attribute": [STEP, "self.n = getattr(self, 'n', 0) + 1", "return y * self.n"],
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifacts | HarnessError]:
    lines = {f"baked_{name}": lines for name, (lines, _, _) in BAKED.items()}
    lines |= {f"fine_{name}": lines for name, lines in FINE.items()}
    lines |= {f"spoiled_{name}": lines for name, lines in SPOILED.items()}
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
