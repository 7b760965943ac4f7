"""The trained models: weights that are small, signals that repeat, metrics that can fail."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil.model import importing_from, load_models
from espdl_hil.proof.case import Case
from espdl_hil.proof.expected import Expected
from espdl_hil.proof.metric import compare_metric
from espdl_hil.quantize import Recipe, Store, prepare

FOLDER = Path(__file__).parents[2] / "models"
SPEC = importlib.util.spec_from_file_location("tasks", FOLDER.parent / "benchmarks" / "tasks.py")
tasks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(tasks)
TRAINED = {name: model for name, model in load_models([FOLDER]).items() if model.metric}
MAX_BYTES = 300_000


def draw(model, seed):
    with importing_from(FOLDER):
        return model.stimulus(np.random.default_rng(seed))


def judge(model, outputs, seed):
    with importing_from(FOLDER):
        return model.metric(outputs, np.random.default_rng(seed))


def test_there_are_three_and_each_has_its_weights():
    assert len(TRAINED) >= 3
    assert {path.stem for path in FOLDER.glob("*.npz")} == set(TRAINED)
    for name in TRAINED:
        assert (FOLDER / f"{name}.npz").stat().st_size < MAX_BYTES


@pytest.mark.parametrize("model", TRAINED.values(), ids=TRAINED)
def test_a_seed_gives_the_same_signal_and_another_seed_another(model):
    first, again, other = (draw(model, seed) for seed in ([0, 0], [0, 0], [0, 1]))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    (shape,) = model.inputs.values()
    assert first.shape == shape


@pytest.mark.parametrize("model", TRAINED.values(), ids=TRAINED)
def test_an_output_that_knows_nothing_does_badly(model):
    """The twin of the table in docs/models.md."""
    with importing_from(FOLDER):
        import torch

        torch.manual_seed(0)
        module = model.build().eval()
    signal = torch.from_numpy(draw(model, [0, 0]).astype(np.float32))
    with torch.no_grad():
        right = module(signal).numpy().astype(np.float64)
    good, bad = (judge(model, {"output": y}, [0, 0]) for y in (right, np.zeros_like(right)))
    assert good > 0.85
    assert bad < good - 0.3
    shuffled = np.random.default_rng(1).permutation(right, axis=2)
    assert judge(model, {"output": shuffled}, [0, 0]) < good - 0.2


def rows_of(page):
    return [line for line in page.splitlines() if re.match(r"\| \w+ \| esp32\w+ \| \d+ \|", line)]


def test_the_table_of_the_page_is_what_they_do():
    """One row a model, without a device: the benchmark prints all, from simulated devkits."""
    page = (FOLDER.parent / "docs" / "models.md").read_text(encoding="utf-8")
    shown = rows_of(page)
    assert len(shown) == sum(len(m.targets) * len(m.bits) for m in TRAINED.values())
    made = prepare([Recipe.of(model, "esp32s3", 8) for model in TRAINED.values()], Store())
    for model in TRAINED.values():
        artifacts = made[Recipe.of(model, "esp32s3", 8).key]
        expected = Expected(Case("esp32s3", model, 8, model.chunk_frames[0]), artifacts)
        numbers = compare_metric(expected, expected.offline, expected.stream)
        assert numbers["offline"] == numbers["streamed"]
        text = " | ".join(f"{value:.3f}" for value in numbers.values())
        assert f"| {model.name} | esp32s3 | 8 | {text} |" in shown


def test_the_benchmark_prints_no_number_of_a_row_that_did_not_pass():
    accuracy = SimpleNamespace(metric={"float": 1.0, "offline": 0.5, "streamed": 0.25})
    row = SimpleNamespace(model="m", target="esp32s3", bits=8, outcome="passed", accuracy=accuracy)
    assert rows_of("\n".join(tasks.table([row]))) == ["| m | esp32s3 | 8 | 1.000 | 0.500 | 0.250 |"]
    row.outcome, row.id, row.reason = "failed", "m", "why"
    with pytest.raises(RuntimeError, match="m: failed, why"):
        list(tasks.table([row]))
