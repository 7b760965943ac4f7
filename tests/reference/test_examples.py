"""What fixed limits failed, and what they let pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from seeding import off_by_one, seed

from espdl_hil.model import load_model
from espdl_hil.proof.case import Case
from espdl_hil.proof.comparison import compare_reference
from espdl_hil.proof.expected import Expected
from espdl_hil.quantize import Recipe, Store, prepare

HERE = Path(__file__).parent
CASES = [("examples", 16), ("steep", 16), ("steep", 8)]


@pytest.fixture(scope="module")
def made():
    models = {name: load_model(HERE / f"{name}.py") for name, _ in CASES}
    cases = {
        (name, bits): Case("esp32s3", models[name], bits, models[name].chunk_frames[0])
        for name, bits in CASES
    }
    recipes = {key: Recipe.of(case.model, case.target, case.bits) for key, case in cases.items()}
    artifacts = prepare(list(recipes.values()), Store())
    return {key: (case, artifacts[recipes[key].key]) for key, case in cases.items()}


def compare(expected):
    """What a device that computes as the interpreter does gets for its offline run."""
    return compare_reference(expected, expected.offline, "simulated")


@pytest.mark.parametrize("key", CASES)
def test_float_steps_and_what_is_behind_them_pass(made, key):
    found = compare(Expected(*made[key]))

    assert found.passed, str(found)
    assert found.verdict.elements > 0
    assert any(entry.kind == "derived" for entry in found.ledger)


def test_one_lsb_becomes_36_behind_a_table_and_is_explained(made):
    found = compare(Expected(*made["steep", 16]))

    assert (found.verdict.differing, found.verdict.max_lsb) == (2, 36)
    used = {entry.where: (entry.used, entry.allowed) for entry in found.ledger if entry.used}
    assert used["LayerNormalization '/norm/LayerNormalization'"] == ("1 LSB", "1 LSB")
    assert used["output 'a'"] == ("36 LSB", "36 LSB")
    assert "1 of 1 LSB at LayerNormalization" in found.check.tolerance


@pytest.mark.parametrize(
    ("key", "operator"),
    [
        *((("examples", 16), name) for name in ("GRU", "Gemm", "Softmax", "LUT", "Add")),
        *((("steep", 16), name) for name in ("LayerNormalization", "LUT")),
        (("steep", 8), "LayerNormalization"),
    ],
)
def test_a_rounding_fault_in_one_node_fails_and_is_named(made, key, operator, monkeypatch):
    expected = Expected(*made[key])
    node = next(node for node in expected.offline_graph.nodes if node.op_type == operator)
    seed(monkeypatch, node, off_by_one)

    found = compare(expected)

    assert not found.passed
    assert f"{operator} {node.name!r}" in found.check.error


def test_a_device_that_computes_the_table_otherwise_fails(made):
    """More than the file's own nodes make of it, in an element that differs already."""
    expected = Expected(*made["steep", 16])
    outputs = {name: value.copy() for name, value in expected.offline.items()}
    reference = expected.artifacts.reference["a"]
    outputs["a"][outputs["a"] != reference] += 37

    assert not compare_reference(expected, outputs, "simulated").passed
