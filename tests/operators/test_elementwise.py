"""Add, Sub, Mul and comparisons: saturation, ties, broadcasting, float32 products."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError

SHAPES = [
    ((2, 3, 4), (2, 3, 4)),
    ((2, 3, 4), (4,)),
    ((2, 3, 4), (1, 3, 1)),
    ((1,), (2, 3)),
    ((4, 1, 5), (1, 3, 1)),
    ((2, 1, 3, 1), (1, 4, 1, 5)),
    ((1, 6, 33), (1, 1, 33)),
]


def draw(rng, dtype, shape):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.mark.parametrize(("first", "second"), SHAPES, ids=str)
@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul"])
def test_broadcasting(lab, rng, chip, dtype, kind, first, second):
    a, b = draw(rng, dtype, first), draw(rng, dtype, second)
    x, y = a.astype(np.int64), b.astype(np.int64)
    if kind == "Mul":
        shift = 7 if dtype.itemsize == 1 else 15
        found = lab.one(
            kind, [lab.q(a, -5, dtype), lab.q(b, -6, dtype)], dtype, -11 + shift, chip=chip
        )
        products = x * y
        if chip == "c" or max(first[-1], second[-1]) < 8:
            # C rounds the product of two int16 to float32 before it is scaled
            products = products.astype(np.float32).astype(object)
        wanted = lab.requantized(products, shift, chip, dtype)
    else:
        found = lab.one(kind, [lab.q(a, -5, dtype), lab.q(b, -5, dtype)], dtype, -5, chip=chip)
        info = np.iinfo(dtype)
        wanted = (x + y if kind == "Add" else x - y).clip(info.min, info.max)
    assert np.array_equal(found, wanted)


def test_sums_saturate_at_both_ends(lab, chip, dtype):
    info = np.iinfo(dtype)
    a = lab.q([info.max, info.min, info.min], -3, dtype)
    b = lab.q([1, -1, info.min], -3, dtype)
    found = lab.one("Add", [a, b], dtype, -3, chip=chip)
    assert found.tolist() == [info.max, info.min, info.min]
    found = lab.one("Sub", [b, a], dtype, -3, chip=chip)
    assert found.tolist() == [1 - info.max, info.max, 0]


def test_sums_ignore_exponents_so_unequal_ones_are_refused(lab):
    with pytest.raises(UnsupportedOpError, match="different exponents"):
        lab.one("Add", [lab.q([1], -3), lab.q([1], -4)], np.int8, -3)


def test_products_saturate_at_both_ends(lab, chip, dtype):
    info = np.iinfo(dtype)
    a = lab.q([info.max, info.min], -3, dtype)
    found = lab.one("Mul", [a, lab.q([100], -3, dtype)], dtype, -6, chip=chip)
    assert found.tolist() == [info.max, info.min]


def test_products_round_ties(lab, chip, dtype):
    found = lab.one(
        "Mul", [lab.q([-5, -3, -1, 1, 3, 5], -3, dtype), lab.q([1], -3, dtype)], dtype, -5,
        chip=chip,
    )  # fmt: skip
    wanted = [-2, -2, 0, 0, 2, 2] if chip == "esp32p4" else [-2, -1, 0, 1, 2, 3]
    assert found.tolist() == wanted


def test_negative_shift_of_a_product(lab, dtype):
    a = lab.q([3, -3], 0, dtype)
    assert lab.one("Mul", [a, lab.q([2], 0, dtype)], dtype, -3).tolist() == [48, -48]


def test_an_int16_product_is_rounded_to_float32_first(lab):
    # 32767 * 32767 = 2**30 - 2**16 + 1 is no float32; the last bit is lost before the shift
    product = Fraction(int(np.float32(32767 * 32767)))
    found = lab.one(
        "Mul", [lab.q([32767], -8, np.int16), lab.q([32767], -8, np.int16)], np.int16, -1
    )
    assert found.tolist() == [lab.rounded(product / 2**15, "c")]


@pytest.mark.parametrize(
    ("kind", "compare"),
    [
        ("Equal", np.equal),
        ("Greater", np.greater),
        ("GreaterOrEqual", np.greater_equal),
        ("Less", np.less),
        ("LessOrEqual", np.less_equal),
    ],
)
@pytest.mark.parametrize(("first", "second"), SHAPES[:4], ids=str)
def test_comparisons(lab, rng, chip, dtype, kind, compare, first, second):
    a, b = (rng.integers(-2, 3, shape).astype(dtype) for shape in (first, second))
    found = lab.one(kind, [lab.q(a, -2, dtype), lab.q(b, -2, dtype)], np.bool_, 0, chip=chip)
    assert found.dtype == np.bool_
    assert np.array_equal(found, compare(a, b))


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul"])
def test_float(lab, rng, kind):
    a, b = rng.normal(size=(3, 4)).astype("f4"), rng.normal(size=(4,)).astype("f4")
    combine = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[kind]
    found = lab.one(kind, [lab.real(a), lab.real(b)], np.float32, 0)
    assert np.array_equal(found, combine(a, b))


def test_refuses_shapes_that_do_not_broadcast(lab):
    with pytest.raises(UnsupportedOpError, match="do not broadcast"):
        lab.one("Add", [lab.q(np.ones((2, 3))), lab.q(np.ones((2, 2)))], np.int8, 0)
