"""Random networks through the product: little accuracy never passes, a fault has an edit that does.

Each network is made twice more, with a rule's example behind it: broken, and mended by an edit.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from espdl_hil import interpreter
from espdl_hil.errors import HarnessError, StreamingError
from espdl_hil.espdl import load_graph
from espdl_hil.model import load_model
from espdl_hil.model.declaration import MIN_SQNR_DB
from espdl_hil.proof.accuracy import measure
from espdl_hil.proof.case import Case
from espdl_hil.proof.expected import Expected
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare
from espdl_hil.streaming import Severity
from espdl_hil.streaming.examples import EXAMPLES

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "streaming"), str(TESTS / "quantize")]
import randomnet  # noqa: E402
from rule_examples import model_text  # noqa: E402

# Layers that keep the frames, and refusals whose example takes what they give.
KEEPING = frozenset(
    ("conv", "chomp", "dw", "avg", "gate", "linear", "cat", "shared", "res", "norm")
)
FAULTS = ("S101", "S102", "S103", "S104", "S105", "S107", "S108", "S109", "S110", "S111", "S114")
BEHIND = """
    import sys
    sys.path.insert(0, {folder!r})
    import randomnet
    body, end = randomnet.build({spec!r}), Network()
    return nn.Sequential(body, end)
"""


def keeping_spec(seed: int) -> Any:
    """A random network whose frames are those of its input."""
    rng = random.Random(seed)
    while True:
        channels, layers, _ = randomnet.generate(rng.randrange(1 << 30))
        if {layer[0] for layer in layers} <= KEEPING:
            return channels, layers, ("none",)


class Campaign:
    """Models of many seeds, made together."""

    def __init__(self, folder: Path, seeds: range) -> None:
        self.folder = folder
        self.recipes: dict[str, Recipe] = {}
        self.faults: dict[str, str] = {}
        for seed in seeds:
            spec, rng = keeping_spec(seed), random.Random(seed)
            target, bits = rng.choice([("esp32s3", 8), ("esp32p4", 8), ("esp32s3", 16)])
            self.add(f"plain{seed}", "return x", spec, target, bits)
            rule = rng.choice(FAULTS)
            after = [form for form in EXAMPLES[rule].after if "StreamingModel" not in form]
            self.faults[f"broken{seed}"] = rule
            self.add(f"broken{seed}", EXAMPLES[rule].before, spec, target, bits)
            self.add(f"mended{seed}", rng.choice(after), spec, target, bits)
        found = prepare(list(self.recipes.values()), Store(folder / "store"), jobs=2)
        self.results = {name: found[recipe.key] for name, recipe in self.recipes.items()}
        self.passed = self.failed = 0

    def add(self, name: str, form: str, spec: Any, target: str, bits: int) -> None:
        text = model_text(form, name)
        behind = BEHIND.format(folder=str(TESTS / "streaming"), spec=spec)
        path = self.folder / f"{name}.py"
        path.write_text(text.replace("    return Network()\n", behind.lstrip("\n")))
        self.recipes[name] = Recipe.of(load_model(path), target, bits)

    def check(self, name: str) -> None:
        """A broken network is refused by its rule, any other streams and is as good as it says."""
        result = self.results[name]
        if name in self.faults:
            assert isinstance(result, StreamingError), (name, result)
            assert self.faults[name] in {fault.rule for fault in result.every}, (name, result)
            return
        if isinstance(result, HarnessError) and "never changes" in str(result):
            self.failed += 1  # garbage, and refused as such
            return
        assert isinstance(result, Artifacts), (name, str(result))
        errors = [
            f for found in result.lint.values() for f in found if f.severity is Severity.ERROR
        ]
        assert not errors, name
        self.judge(name, result)

    def judge(self, name: str, made: Artifacts) -> None:
        recipe = self.recipes[name]
        case = Case(recipe.target, load_model(recipe.source), recipe.bits, recipe.chunk_frames[0])
        expected = Expected(case, made)
        kept = measure(expected, expected.offline)
        enough = sqnr_db(made, recipe.target) >= MIN_SQNR_DB[recipe.bits]
        assert enough or not kept, name
        self.passed, self.failed = self.passed + bool(kept), self.failed + (not kept)
        if not kept:
            assert kept.check.error, name


def sqnr_db(made: Artifacts, target: str) -> float:
    """What the worst output keeps, computed here from the files alone."""
    graph = load_graph(made.offline)
    outputs = interpreter.load(graph, target).step(made.inputs_q)
    worst = np.inf
    for info in graph.outputs:
        wanted = made.float_outputs[info.name].astype(np.float64)
        noise = np.ldexp(outputs[info.name].astype(np.float64), info.exponent) - wanted
        ratio = np.sum(wanted**2) / max(float(np.sum(noise**2)), 1e-300)
        worst = min(worst, 10 * np.log10(ratio))
    return float(worst)


def run(folder: Path, seeds: range) -> Campaign:
    campaign = Campaign(folder, seeds)
    for name in campaign.results:
        campaign.check(name)
    return campaign


def test_random_models(tmp_path: Path) -> None:
    campaign = run(tmp_path, range(3))
    assert campaign.passed >= 3


@pytest.mark.slow
def test_many_random_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """200 networks of three models each."""
    passed = failed = 0
    for first in range(100, 300, 20):
        (folder := tmp_path / str(first)).mkdir()
        campaign = run(folder, range(first, first + 20))
        passed, failed = passed + campaign.passed, failed + campaign.failed
        with capsys.disabled():
            print(f"\n{3 * (first - 80)} models: {passed} keep enough, {failed} do not and fail")
    assert passed > 300
