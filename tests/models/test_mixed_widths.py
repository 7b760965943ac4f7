"""The zoo with random layers at the other width: every file that is made streams as it should."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from espdl_hil import Quantization
from espdl_hil.errors import StreamingError
from espdl_hil.espdl import load_graph
from espdl_hil.model import load_models
from espdl_hil.proof.case import Case
from espdl_hil.proof.expected import Expected
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare

pytestmark = pytest.mark.slow
ZOO = load_models([Path(__file__).parents[2] / "models"])
TARGETS = ("esp32s3", "esp32p4")
SEEDS = range(int(os.environ.get("MIXED_SEEDS", "2")))
MAX_REFUSED = 0.1  # by rule: what ESP-DL cannot run


def mixed(name: str, seed: int, store: Store) -> tuple[int, Quantization]:
    """A base width, and about a third of the nodes at the other."""
    random = np.random.default_rng([seed, *name.encode()])
    model, bits = ZOO[name], int(random.choice([8, 16]))
    recipe = Recipe.of(model, "esp32s3", 8)
    made = prepare([recipe], store)[recipe.key]
    assert isinstance(made, Artifacts), made
    nodes = [n.name for n in load_graph(made.offline).nodes if n.op_type not in ADDED]
    chosen = [n for n in nodes if not n.startswith("PPQ_") and random.random() < 1 / 3]
    return bits, Quantization(layer_bits=dict.fromkeys(chosen, 24 - bits))


ADDED = ("InsertZeros", "RequantizeLinear", "Transpose", "QuantizeLinear", "DequantizeLinear")


@pytest.mark.parametrize("seed", SEEDS)
def test_random_mixes_stream_with_0_differ(seed: int, tmp_path: Path) -> None:
    store = Store(tmp_path)
    recipes = {}
    for name, model in ZOO.items():
        bits, given = mixed(name, seed, store)
        for target in TARGETS:
            own = replace(model, quantization=given)
            recipes[name, target] = (own, bits, Recipe.of(own, target, bits))
    found = prepare([recipe for _, _, recipe in recipes.values()], store)
    refused, compared = [], 0
    for (name, target), (model, bits, recipe) in recipes.items():
        made = found[recipe.key]
        if isinstance(made, StreamingError):
            refused.append(f"{name} {target} int{bits} {model.quantization}: {made}")
            continue
        assert isinstance(made, Artifacts), (name, target, bits, model.quantization, made)
        for chunk in model.chunk_frames:
            expected = Expected(Case(target, model, bits, chunk), made)
            steps = zip(expected.cut(expected.offline), expected.trim(expected.stream), strict=True)
            for wanted, observed in steps:
                for output, values in wanted.items():
                    where = (name, target, bits, chunk, output, model.quantization)
                    assert np.array_equal(values, observed[output]), where
                    compared += values.size
    print(f"{compared} elements compared, 0 differ; {len(refused)} of {len(recipes)} refused")
    print("\n".join(refused))
    assert compared > 0
    assert len(refused) <= MAX_REFUSED * len(recipes)
