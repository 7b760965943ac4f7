"""Softmax and LogSoftmax."""

from __future__ import annotations

import numpy as np
import pytest


def softmax(x, axis):
    exps = np.exp(x - x.max(axis, keepdims=True))
    return exps / exps.sum(axis, keepdims=True)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("kind", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("width", ["int8", "int16", "float32"])
def test_matches_float64(lab, rng, kind, axis, width):
    exponent = {"int8": -5, "int16": -12, "float32": 0}[width]
    x = rng.integers(-100, 100, (3, 4, 7)).astype(width)
    operand = lab.real(x / 30) if width == "float32" else lab.q(x, exponent, x.dtype)
    found = lab.one(kind, [operand], np.float32, 0, axis=axis)
    wanted = softmax(operand.array.astype(float) * 2.0**exponent, axis)
    wanted = np.log(wanted) if kind == "LogSoftmax" else wanted
    assert found.dtype == np.float32
    assert np.allclose(found, wanted, rtol=2e-6, atol=1e-6)


def test_int8_does_not_subtract_the_largest(lab):
    # 127 * 2**0 overflows expf: the chip divides infinity by infinity
    found = lab.one("Softmax", [lab.q([127, 0], 0)], np.float32, 0, axis=-1)
    assert np.isnan(found[0])
    assert found[1] == 0
    found = lab.one("Softmax", [lab.q([127, 0], 0, np.int16)], np.float32, 0, axis=-1)
    assert found.tolist() == [1, 0]


def test_a_scalar(lab):
    assert lab.one("Softmax", [lab.q(5)], np.float32, 0, axis=-1) == 1
    assert lab.one("LogSoftmax", [lab.q(5)], np.float32, 0, axis=-1) == 0
