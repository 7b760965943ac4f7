from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil.compare import EXACT, Tolerance
from espdl_hil.diagnosis.first_divergence import Rerun
from espdl_hil.diagnosis.mismatch import Look
from espdl_hil.diagnosis.replay import digest

EXPECTED = [
    {"x": np.array([[1, 2]], np.int8), "f": np.array([[0.5, 2.0]], np.float32)},
    {"x": np.array([[3, 4]], np.int8), "f": np.array([[1.5, 3.0]], np.float32)},
]


class Probe:
    """Holds tensors, and counts how often values are asked for."""

    def __init__(self, held):
        self.held, self.asked = held, []

    def digests(self, names, chunks):
        return [Look({n: digest(t) for n, t in held.items()}) for held in self.held]

    def values(self, names, chunks):
        self.asked += names
        return [Look({n: held[n] for n in names}) for held in self.held]


def rerun(changes, tolerance=EXACT):
    held = [dict(step) for step in EXPECTED]
    for chunk, name, value in changes:
        held[chunk][name] = value
    probe = Probe(held)
    mismatch = SimpleNamespace(tolerance=tolerance)
    return Rerun(mismatch, probe, ("x", "f"), probe.digests((), 2), EXPECTED), probe


def test_the_earliest_chunk_comes_first_then_the_order_of_execution():
    wrong = np.array([[9, 9]], np.int8)
    found, _ = rerun([(1, "x", wrong), (0, "f", np.array([[7.0, 7.0]], np.float32))])
    assert found.first() == (0, "f")
    assert found.count_before(0, "f") == 1
    assert found.agrees(0, "x")
    assert not found.agrees(1, "x")
    assert rerun([])[0].first() is None


def test_values_of_integers_are_not_fetched_to_find_a_difference():
    found, probe = rerun([(1, "x", np.array([[3, 5]], np.int8))])
    assert found.first() == (1, "x")
    assert probe.asked == []


@pytest.mark.parametrize(("factor", "agrees"), [(1 + 3e-7, True), (1 + 1e-5, False)])
def test_floats_are_compared_by_value(factor, agrees):
    near = (EXPECTED[1]["f"] * np.float32(factor)).astype(np.float32)
    found, probe = rerun([(1, "f", near)])
    assert found.agrees(1, "f") is agrees
    assert found.agrees(1, "f") is agrees
    assert probe.asked == ["f"]  # once


@pytest.mark.parametrize(("off", "agrees"), [(1, True), (2, False)])
def test_a_tolerance_holds_inside_the_graph_too(off, agrees):
    found, _ = rerun([(0, "x", EXPECTED[0]["x"] + np.int8(off))], Tolerance(max_lsb=1))
    assert found.agrees(0, "x") is agrees


def test_what_the_device_cannot_show_is_taken_for_right():
    found, _ = rerun([])
    found.looks[0].seen.pop("x")
    assert found.agrees(0, "x")
    assert found.count_before(0, "f") == 0
