"""Functions of one element, look-up tables, Clip, Relu, PRelu, Neg."""

from __future__ import annotations

import math

import numpy as np
import pytest

from espdl_hil.operators import tables

FUNCTIONS = {
    "Sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "Tanh": math.tanh,
    "Swish": lambda x: x / (1 + math.exp(-x)),
    "HardSwish": lambda x: x * min(1, max(0, 0.166667 * x + 0.5)),
    "HardSigmoid": lambda x: min(1, max(0, 0.2 * x + 0.5)),
    "Elu": lambda x: x if x >= 0 else math.expm1(x),
    "Exp": math.exp,
}
ALPHA = {"HardSigmoid": {"alpha": 0.2, "beta": 0.5}, "Elu": {"alpha": 1.0}}


def every(dtype):
    info = np.iinfo(dtype)
    return np.arange(info.min, info.max + 1, dtype=np.int64).astype(dtype)


@pytest.mark.parametrize("kind", sorted(FUNCTIONS))
def test_every_input_is_the_function_to_one_lsb(lab, chip, dtype, kind):
    exponent = -4 if dtype.itemsize == 1 else -12
    out = -5 if dtype.itemsize == 1 else -11
    x = every(dtype)
    options = ALPHA.get(kind, {})
    found = lab.one(kind, [lab.q(x, exponent, dtype)], dtype, out, chip=chip, **options)
    info = np.iinfo(dtype)
    exact = np.array([FUNCTIONS[kind](float(v) * 2.0**exponent) * 2.0**-out for v in x])
    # a float step may push a near tie over the edge, never further
    assert (np.abs(found - exact.clip(info.min, info.max)) <= 0.51).all()


@pytest.mark.parametrize("kind", sorted(FUNCTIONS))
def test_float(lab, rng, kind):
    x = rng.normal(0, 2, 50).astype(np.float32)
    found = lab.one(kind, [lab.real(x)], np.float32, 0, **ALPHA.get(kind, {}))
    wanted = [FUNCTIONS[kind](float(v)) for v in x]
    assert np.allclose(found, wanted, rtol=2e-6, atol=1e-6)


def test_exp_saturates_above_and_log_below(lab, chip, dtype):
    info = np.iinfo(dtype)
    x = lab.q([info.max], 0, dtype)
    assert lab.one("Exp", [x], dtype, 0, chip=chip)[0] == info.max
    assert lab.one("Log", [lab.q([0], 0, dtype)], dtype, -4, chip=chip)[0] == info.min


def test_sqrt_and_log(lab, chip, dtype):
    x = lab.q([1, 4, 9, 100], 0, dtype)
    assert lab.one("Sqrt", [x], dtype, 0, chip=chip).tolist() == [1, 2, 3, 10]
    assert lab.one("Log", [x], dtype, -4, chip=chip).tolist() == [0, 22, 35, 74]


def test_relu_copies_or_requantizes_with_ties(lab, chip, dtype):
    info = np.iinfo(dtype)
    x = lab.q([info.min, -1, 0, 1, 3, 5, info.max], -3, dtype)
    same = lab.one("Relu", [x], dtype, -3, chip=chip)
    assert same.tolist() == [0, 0, 0, 1, 3, 5, info.max]
    coarse = lab.one("Relu", [x], dtype, -2, chip=chip)
    assert coarse.tolist()[3:6] == ([0, 2, 2] if chip == "esp32p4" else [1, 2, 3])
    fine = lab.one("Relu", [x], dtype, -6, chip=chip)
    assert fine.tolist()[3:] == [8, 24, 40, info.max]


def test_leaky_relu_at_both_ends(lab, chip, dtype):
    info = np.iinfo(dtype)
    x = lab.q([info.min, -8, 8, info.max], -3, dtype)
    found = lab.one("LeakyRelu", [x], dtype, -4, chip=chip, alpha=0.25)
    assert found.tolist() == [info.min // 2, -4, 16, info.max]


def test_clip_clips_then_requantizes(lab, chip, dtype):
    x = lab.q([-100, -21, -3, 3, 21, 100], -3, dtype)
    bounds = [lab.const(-20, -3, dtype), lab.const(21, -3, dtype)]
    assert lab.one("Clip", [x, *bounds], dtype, -3, chip=chip).tolist() == [
        -20, -20, -3, 3, 21, 21,
    ]  # fmt: skip
    coarse = lab.one("Clip", [x, *bounds], dtype, -2, chip=chip).tolist()
    assert coarse == ([-10, -10, -2, 2, 10, 10] if chip == "esp32p4" else [-10, -10, -1, 2, 11, 11])
    assert lab.one("Clip", [x, bounds[0]], dtype, -3, chip=chip).max() == 100


def test_clip_bounds_may_be_computed(lab):
    x, low = lab.q([-100, 100], -3), lab.q(-20, -3)
    found = lab.one("Clip", [x, low, lab.const(20, -3)], np.int8, -3)
    assert found.tolist() == [-20, 20]


def test_clip_of_floats(lab):
    bounds = [lab.real(-1, constant=True), lab.real(1, constant=True)]
    found = lab.one("Clip", [lab.real([-3, 0.5, 3]), *bounds], np.float32, 0)
    assert found.tolist() == [-1, 0.5, 1]


def test_neg_of_the_smallest_is_the_largest(lab, chip, dtype):
    info = np.iinfo(dtype)
    found = lab.one("Neg", [lab.q([info.min, -1, 0, 5], -3, dtype)], dtype, -3, chip=chip)
    assert found.tolist() == [info.max, 1, 0, -5]


@pytest.mark.parametrize("channels", [1, 15, 16, 17])
def test_prelu_floors_in_c_and_rounds_on_chips_at_int8(lab, rng, chip, dtype, channels):
    x = rng.integers(-100, 101, (1, 2, 3, channels)).astype(dtype)
    slopes = rng.integers(-100, 101, (channels, 1, 1)).astype(dtype)
    found = lab.one(
        "PRelu", [lab.q(x, -3, dtype), lab.const(slopes, -6, dtype)], dtype, -3, chip=chip
    )
    products = x.astype(int) * slopes.reshape(-1)
    if dtype == np.int8 and chip != "c":
        negative = lab.requantized(products, 6, chip, dtype)
    else:
        info = np.iinfo(dtype)
        negative = (products >> 6).clip(info.min, info.max)
    assert np.array_equal(found, np.where(x < 0, negative, x))


def test_prelu_of_int16_wraps_on_the_s3(lab, chip):
    x = np.full((1, 1, 1, 1), -30000, np.int16)
    slope = lab.const(np.full((1, 1, 1), -30000), -13, np.int16)
    found = lab.one("PRelu", [lab.q(x, -3, np.int16), slope], np.int16, -3, chip=chip)
    shifted = 30000 * 30000 >> 13
    wrapped = (shifted + 2**15) % 2**16 - 2**15
    assert found.item() == (wrapped if chip == "esp32s3" else 32767)


@pytest.mark.parametrize(("finer", "factor"), [(1, 2), (6, 64), (7, -128), (8, 0)])
def test_prelu_of_int8_rescales_what_is_positive_by_8_bits(lab, finer, factor):
    x = lab.q(np.array([1, 3], np.int8).reshape(1, 1, 1, 2), -3)
    slopes = lab.const(np.zeros((2, 1, 1)), -20)
    found = lab.one("PRelu", [x, slopes], np.int8, -3 - finer, chip="esp32s3")
    assert found.ravel().tolist() == np.clip([factor, 3 * factor], -128, 127).tolist()


@pytest.mark.parametrize("kind", ["LUT", "Gelu", "Sigmoid", "Clip", "Relu"])
@pytest.mark.parametrize("size", [7, 2 * tables.PAIR_ELEMENTS])
def test_int8_tables(lab, rng, chip, kind, size):
    table = rng.integers(-128, 128, 256).astype(np.int8)
    x = rng.integers(-128, 128, size).astype(np.int8)
    found = lab.one(kind, [lab.q(x, -3)], np.int8, -5, chip=chip, table=lab.const(table, -5))
    assert np.array_equal(found, table[x.astype(int) + 128])


@pytest.mark.parametrize("step_bits", [1, 5, 8])
def test_int16_tables_take_the_nearest_entry(lab, rng, chip, step_bits):
    step = 2**step_bits
    table = rng.integers(-(2**15), 2**15, 65536 // step + 1).astype(np.int16)
    x = every(np.int16)
    found = lab.one(
        "LUT", [lab.q(x, -3, np.int16)], np.int16, -5, chip=chip,
        table=lab.const(table, -5, np.int16),
    )  # fmt: skip
    wanted = [lab.rounded(lab_fraction(v + 32768, step), chip) for v in range(-32768, 32768)]
    assert np.array_equal(found, table[wanted])


def lab_fraction(value, step):
    from fractions import Fraction

    return Fraction(value, step)


def test_a_table_that_clips_becomes_a_clip(rng):
    x = rng.integers(-128, 128, 100).astype(np.int8)
    y = np.empty_like(x)
    tables.lookup(x, y, tables.tabulate(lambda v: np.clip(v, -5, 50), x.dtype))()
    assert np.array_equal(y, x.clip(-5, 50))


def test_the_identity_table_copies(rng):
    x = rng.integers(-128, 128, 100).astype(np.int8)
    y = np.empty_like(x)
    tables.lookup(x, y, tables.every_value(x.dtype))()
    assert np.array_equal(y, x)
