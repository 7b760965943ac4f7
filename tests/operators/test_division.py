"""Div, Pow and Mod."""

from __future__ import annotations

import numpy as np
import pytest


def test_div_by_zero_saturates_by_sign(lab, chip, dtype):
    info = np.iinfo(dtype)
    a = lab.q([5, -5, 0, 0, 7], -3, dtype)
    b = lab.q([0, 0, 0, 3, 2], -3, dtype)
    found = lab.one("Div", [a, b], dtype, -1, chip=chip)
    assert found[:4].tolist() == [info.max, info.min, 0, 0]
    assert found[4] == 7


def test_div_rounds_ties(lab, chip, dtype):
    a = lab.q([-5, -3, -1, 1, 3, 5], 0, dtype)
    found = lab.one("Div", [a, lab.q([2] * 6, 0, dtype)], dtype, 0, chip=chip)
    assert found.tolist() == ([-2, -2, 0, 0, 2, 2] if chip == "esp32p4" else [-2, -1, 0, 1, 2, 3])


def test_div_saturates_at_both_ends(lab, chip, dtype):
    info = np.iinfo(dtype)
    a = lab.q([info.max, info.min], 0, dtype)
    found = lab.one("Div", [a, lab.q([1, 1], 0, dtype)], dtype, -4, chip=chip)
    assert found.tolist() == [info.max, info.min]


@pytest.mark.parametrize(
    ("first", "second"), [((3, 5), (3, 5)), ((3, 5), (5,)), ((3, 5), (3, 1)), ((1, 5), (4, 1, 5))]
)
def test_div_broadcasts(lab, rng, chip, dtype, first, second):
    a = rng.integers(-100, 101, first).astype(dtype)
    b = rng.integers(1, 101, second).astype(dtype)
    found = lab.one("Div", [lab.q(a, -4, dtype), lab.q(b, -4, dtype)], dtype, -3, chip=chip)
    exact = a.astype(float) / b * 8
    assert found.shape == exact.shape
    assert (np.abs(found - exact.clip(*_limits(dtype))) <= 0.5 + 1e-4).all()


def _limits(dtype):
    info = np.iinfo(dtype)
    return info.min, info.max


def test_one_divisor_for_a_row_multiplies_by_its_reciprocal(lab, dtype):
    # float32(1 / 49) * 24.5 is just below one half, 24.5 / 49 is one half exactly
    rows = lab.q([[49], [49]], 0, dtype)
    dividends = lab.q([[49, 49, 98], [1, 2, 3]], -1, dtype)
    by_row = lab.one("Div", [dividends, rows], dtype, 0)
    wanted = np.float32([[24.5, 24.5, 49], [0.5, 1, 1.5]]) * (np.float32(1) / np.float32(49))
    assert by_row.tolist() == np.floor(wanted + np.float32(0.5)).tolist()


def test_the_int8_table_of_a_single_operand_has_its_own_zeros(lab, chip):
    divisor = lab.q([-1, 0, 1, 4], 0)
    found = lab.one("Div", [lab.const([-8], 0), divisor], np.int8, 0, chip=chip)
    assert found.tolist() == [8, -128, -8, -2]
    found = lab.one("Div", [lab.const([8], 0), divisor], np.int8, 0, chip=chip)
    assert found.tolist() == [-8, 127, 8, 2]
    found = lab.one("Div", [lab.q([0, 7, -8], 0), lab.const([2], 0)], np.int8, 0, chip=chip)
    assert found.tolist() == [0, 4, -4]


def test_float_div(lab, rng):
    a, b = rng.normal(size=(2, 3)).astype("f4"), rng.normal(size=(2, 1)).astype("f4")
    found = lab.one("Div", [lab.real(a), lab.real(b)], np.float32, 0)
    assert np.array_equal(found, a * (np.float32(1) / b))
    found = lab.one("Div", [lab.real(a), lab.real(a + 1)], np.float32, 0)
    assert np.array_equal(found, a / (a + 1))


def test_pow(lab, chip, dtype):
    base = lab.q([-4, -3, 0, 3, 4, 100], -1, dtype)
    exponent = lab.const([2], 0, dtype)
    found = lab.one("Pow", [base, exponent], dtype, -1, chip=chip)
    half = 4 if chip == "esp32p4" else 5  # 2.25 at an LSB of 0.5 is 4.5
    assert found.tolist() == [8, half, 0, half, 8, min(5000, np.iinfo(dtype).max)]


def test_pow_of_two_computed_operands(lab, chip, dtype):
    base, exponent = lab.q([[2], [4]], -1, dtype), lab.q([0, 1, 2, 3], 0, dtype)
    found = lab.one("Pow", [base, exponent], dtype, 0, chip=chip)
    assert found.tolist() == [[1, 1, 1, 1], [1, 2, 4, 8]]


def test_mod_has_the_sign_of_the_dividend(lab, chip, dtype):
    a = lab.q([7, -7, 7, -7, 5], -2, dtype)
    b = lab.q([3, 3, -3, -3, 0], -2, dtype)
    found = lab.one("Mod", [a, b], dtype, -2, chip=chip, fmod=1)
    assert found.tolist() == [1, -1, 1, -1, 0]


def test_mod_requantizes_with_ties_and_saturation(lab, chip, dtype):
    info = np.iinfo(dtype)
    a, b = lab.q([1, 3, info.max - 1], 0, dtype), lab.q([info.max], 0, dtype)
    found = lab.one("Mod", [a, b], dtype, 1, chip=chip, fmod=1)
    assert found.tolist()[:2] == ([0, 2] if chip == "esp32p4" else [1, 2])
    found = lab.one("Mod", [a, b], dtype, -2, chip=chip, fmod=1)
    assert found.tolist() == [4, 12, info.max]


def test_float_mod_and_pow(lab):
    a, b = np.float32([5.5, -5.5, 1]), np.float32([2, 2, 0])
    found = lab.one("Mod", [lab.real(a), lab.real(b)], np.float32, 0, fmod=1)
    assert found.tolist() == [1.5, -1.5, 0]
    found = lab.one("Pow", [lab.real([2, 9]), lab.real([3, 0.5])], np.float32, 0)
    assert found.tolist() == [8, 3]
