"""Rounding, shifting and saturation against Python's exact arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from espdl_hil.operators import NodeProblem, numeric
from espdl_hil.targets import TARGETS, Rounding

EVEN, UP = Rounding.HALF_EVEN, Rounding.HALF_UP


@given(st.integers(-(2**52), 2**52), st.integers(-8, 40), st.sampled_from(["esp32p4", "c"]))
def test_shift_right_round_is_exact(lab, value, shift, chip):
    found = numeric.shift_right_round(np.array([value]), np.array([shift]), TARGETS[chip].rounding)
    assert found[0] == lab.rounded(Fraction(value) / Fraction(2) ** shift, chip)


@pytest.mark.parametrize(
    ("rounding", "wanted"), [(EVEN, [-2, -2, 0, 0, 2, 2]), (UP, [-2, -1, 0, 1, 2, 3])]
)
def test_halves(rounding, wanted):
    values = np.float32([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5])
    assert numeric.quantized(values, rounding, np.dtype(np.int8)).tolist() == wanted
    assert values[0] == np.float32(-2.5), "the argument is not changed"


def test_half_up_adds_in_float32_first():
    below = np.nextafter(np.float32(0.5), np.float32(0))
    assert numeric.quantized(below, UP, np.dtype(np.int8)) == 1
    assert numeric.quantized(below, EVEN, np.dtype(np.int8)) == 0


@pytest.mark.parametrize("rounding", [EVEN, UP])
def test_saturation_and_nan(rounding):
    values = np.float32([np.inf, -np.inf, np.nan, 1e30, -1e30, 127.4, -128.4])
    found = numeric.quantized(values, rounding, np.dtype(np.int8))
    assert found.tolist() == [127, -128, 127, 127, -128, 127, -128]


def test_sequential_sum_keeps_the_order_of_a_loop():
    values = np.float32([1e8, 1, -1e8, 1])
    assert numeric.sequential_sum(values[None])[0] == 1.0  # 1e8 + 1 is 1e8 in float32


def test_sqrt_newton_is_the_square_root_and_keeps_zero():
    values = np.float32([0, 1e-12, 0.25, 2, 12345.5])
    with np.errstate(all="ignore"):
        found = numeric.sqrt_newton(values)
    assert found[0] == 0
    assert np.allclose(found[2:], np.sqrt(values[2:]), rtol=1e-6)
    # it stops once a step changes less than 1e-5, far above the root of a tiny number
    assert found[1] > 2e-6


def test_sqrt_newton_refuses_to_hang(monkeypatch):
    monkeypatch.setattr(numeric, "HALF", np.float32(-0.5))  # a root that never settles
    with pytest.raises(NodeProblem, match="would hang"):
        numeric.sqrt_newton(np.float32([2]))


@given(st.floats(-80, 80, width=32))
def test_exp32_is_correctly_rounded(x):
    found = numeric.exp32(np.array([x], np.float32))[0]
    assert found == np.float32(np.exp(np.float64(np.float32(x))))


@pytest.mark.parametrize("exponent", [-30, -7, 0, 5, 30])
def test_scales(exponent):
    assert numeric.scale_of(exponent) == 2.0**exponent
    assert numeric.scale_of(-exponent) == 2.0**-exponent
