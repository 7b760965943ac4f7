"""Reductions against exact sums and NumPy's float64."""

from __future__ import annotations

import numpy as np
import pytest

KINDS = ["L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"]
AXES = [(0,), (1,), (-1,), (0, 2), (1, 2), (0, 1, 2), ()]


def reference(kind, x, axes):
    """The real result in float64."""
    functions = {
        "L1": lambda v: np.abs(v).sum(axes),
        "L2": lambda v: np.sqrt((v**2).sum(axes)),
        "LogSum": lambda v: np.log(v.sum(axes)),
        "LogSumExp": lambda v: np.log(np.exp(v).sum(axes)),
        "Max": lambda v: v.max(axes),
        "Mean": lambda v: v.mean(axes),
        "Min": lambda v: v.min(axes),
        "Prod": lambda v: v.prod(axes),
        "Sum": lambda v: v.sum(axes),
        "SumSquare": lambda v: (v**2).sum(axes),
    }
    return functions[kind](x.astype(float))


def reduce(lab, kind, x, axes, dtype, exponent, *, keepdims=0, **options):
    others = [lab.indices(*axes)] if axes else []
    return lab.one(f"Reduce{kind}", [x, *others], dtype, exponent, keepdims=keepdims, **options)


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_axis(lab, rng, chip, dtype, kind, axes):
    x = rng.integers(1, 9, (2, 3, 4)).astype(dtype)
    exponent = -3
    out = exponent if kind in ("Max", "Min") else -2
    all_axes = axes or (0, 1, 2)
    found = reduce(lab, kind, lab.q(x, exponent, dtype), axes, dtype, out, chip=chip)
    exact = reference(kind, x * 2.0**exponent, all_axes) * 2.0**-out
    info = np.iinfo(dtype)
    assert (np.abs(found.reshape(np.shape(exact)) - exact.clip(info.min, info.max)) <= 0.51).all()


@pytest.mark.parametrize("kind", KINDS)
def test_kept_axes_have_length_one(lab, kind):
    x = lab.q(np.ones((2, 3, 4)), 0)
    found = reduce(lab, kind, x, (0, 2), np.int8, 0, keepdims=1)
    assert found.shape == (1, 3, 1)


@pytest.mark.parametrize("kind", ["Sum", "L1", "Mean"])
def test_ties(lab, chip, dtype, kind):
    x = lab.q([[1], [3], [5]], 0, dtype)
    found = reduce(lab, kind, x, (1,), dtype, 1, chip=chip)
    assert found.tolist() == ([0, 2, 2] if chip == "esp32p4" else [1, 2, 3])


@pytest.mark.parametrize("kind", ["Sum", "Mean"])
def test_saturation_and_negative_shift(lab, chip, dtype, kind):
    info = np.iinfo(dtype)
    x = lab.q([[info.max] * 3, [info.min] * 3, [2, 2, 2]], 0, dtype)
    found = reduce(lab, kind, x, (1,), dtype, -2, chip=chip)
    assert found.tolist() == [info.max, info.min, 24 if kind == "Sum" else 8]


def test_l1_of_the_smallest_is_exact(lab, dtype):
    info = np.iinfo(dtype)
    found = reduce(lab, "L1", lab.q([[info.min, 0]], 0, dtype), (1,), dtype, 1)
    assert found.tolist() == [-(info.min // 2)]


def test_squares_sum_in_the_wide_accumulator(lab, chip, dtype):
    info = np.iinfo(dtype)
    x = lab.q([[info.min] * 4], 0, dtype)
    bits = 8 * dtype.itemsize
    found = reduce(lab, "SumSquare", x, (1,), dtype, bits + 2, chip=chip)
    assert found.tolist() == [2 ** (2 * bits - bits - 2)]


@pytest.mark.parametrize("kind", KINDS)
def test_float(lab, rng, kind):
    x = np.abs(rng.normal(size=(3, 5))).astype(np.float32) + np.float32(0.5)
    found = reduce(lab, kind, lab.real(x), (1,), np.float32, 0)
    assert np.allclose(found, reference(kind, x, 1), rtol=1e-5)


def test_float_sums_run_in_index_order(lab):
    x = lab.real([[1e8, 1, -1e8, 1]])
    assert reduce(lab, "Sum", x, (1,), np.float32, 0).tolist() == [1.0]


def test_prod_of_int16_takes_near_halves_for_ties_on_the_p4(lab):
    # double rounding of the P4 treats all within 1e-6 of a half as one; float32 would not
    x = lab.q([[3, 1]], 0, np.int16)
    for chip, wanted in (("esp32p4", 2), ("c", 2)):
        assert reduce(lab, "Prod", x, (1,), np.int16, 1, chip=chip).tolist() == [wanted]
    x = lab.q([[1, 1]], 0, np.int16)
    for chip, wanted in (("esp32p4", 0), ("c", 1)):
        assert reduce(lab, "Prod", x, (1,), np.int16, 1, chip=chip).tolist() == [wanted]
