"""What float32 decides behind a float node is granted there, and to no node behind it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from seeding import off_by_one, seed

from espdl_hil.model import load_model
from espdl_hil.proof.case import Case
from espdl_hil.proof.comparison import compare_reference
from espdl_hil.proof.expected import Expected
from espdl_hil.quantize import Recipe, Store, prepare
from espdl_hil.reference import ReferenceRecord, judge
from espdl_hil.reference.steps import U
from espdl_hil.targets import DEVKIT_TARGETS, TARGETS, Rounding

MODEL = load_model(Path(__file__).parent / "roots.py")


@pytest.fixture(scope="module")
def made():
    recipes = {target: Recipe.of(MODEL, target, 16) for target in DEVKIT_TARGETS}
    artifacts = prepare(list(recipes.values()), Store())
    return {target: artifacts[recipe.key] for target, recipe in recipes.items()}


@pytest.fixture(params=DEVKIT_TARGETS)
def expected(made, request):
    case = Case(request.param, MODEL, 16, MODEL.chunk_frames[0])
    return Expected(case, made[request.param])


def node_of(expected, operator):
    """The first node of an operator; of two Convs the last, which reads the roots."""
    nodes = [node for node in expected.offline_graph.nodes if node.op_type == operator]
    return nodes[-1]


def quantized(expected, from_tie):
    """What is said of the QuantizeLinear if its input lies beside a tie in every element.

    Args:
        expected: Of the model.
        from_tie: How far above it, of its size: one factor, or one an element.
    """
    node, recorded = node_of(expected, "QuantizeLinear"), expected.artifacts.recorded
    source, result = node.inputs[0], node.outputs[0]
    shape = recorded.values[result].shape
    count = int(np.prod(shape))
    real = (np.arange(count) - count // 2 + 0.5) * (1 + from_tie)
    half_up = TARGETS[expected.case.target].rounding is Rounding.HALF_UP
    rounded = np.floor(real + 0.5) if half_up else np.rint(real)
    exponent = expected.offline_graph.info(result).exponent
    values = {
        source: np.ldexp(real, exponent).astype(np.float32).reshape(shape),
        result: rounded.astype(np.int16).reshape(shape),
    }
    rests = {result: (real - rounded).astype(np.float32).reshape(shape)}
    record = ReferenceRecord(values, rests, {})
    judged = judge(expected.offline_graph, expected.case.target, record, expected.whole)
    return next(found for found in judged if found.tensor == result)


def test_the_bound_holds_beside_every_tie(expected):
    from_tie = np.random.default_rng(0).uniform(-2 * U, 2 * U, 1024 * 16)

    found = quantized(expected, from_tie)

    assert found.within, str(found)
    assert found.differing > 0


@pytest.mark.parametrize("from_tie", [-4 * U, 4 * U])
def test_no_other_step_is_allowed_where_float32_does_not_decide(expected, from_tie, monkeypatch):
    found = quantized(expected, from_tie)

    assert found.within, str(found)
    assert (found.differing, found.bound) == (0, 0)
    seed(monkeypatch, node_of(expected, "QuantizeLinear"), off_by_one)
    assert not quantized(expected, from_tie).within


def test_a_step_that_float32_decides_is_granted_where_it_arises(expected):
    found = compare_reference(expected, expected.offline, "simulated")

    assert found.passed, str(found)
    assert found.verdict.differing > 0  # the file and the reference took different steps
    judged = {node.operator: node for node in expected.judged}  # of two Convs the last
    quantized, behind = judged["QuantizeLinear"], judged["Conv"]
    assert quantized.differing > 0
    assert (quantized.used, quantized.bound) == (1, 1)
    assert quantized.mean_bound < 0.01  # hardly any element is that close to the middle
    assert (behind.differing, behind.bound) == (0, 0)


@pytest.mark.parametrize("operator", ["Sqrt", "QuantizeLinear", "Conv"])
def test_a_fault_at_a_float_node_or_behind_it_is_found_there_alone(expected, operator, monkeypatch):
    node = node_of(expected, operator)
    seed(monkeypatch, node, off_by_one)

    found = compare_reference(expected, expected.offline, "simulated")

    assert not found.passed
    assert f"{operator} {node.name!r}" in found.check.error
    assert [judged.node for judged in expected.judged if not judged.within] == [node.name]
