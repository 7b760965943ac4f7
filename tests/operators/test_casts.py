"""QuantizeLinear, DequantizeLinear, RequantizeLinear."""

from __future__ import annotations

import numpy as np
import pytest

KINDS = ("QuantizeLinear", "DequantizeLinear", "RequantizeLinear")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shift", [-3, 0, 1, 4, 9])
@pytest.mark.parametrize("out", [np.int8, np.int16])
def test_integers_to_integers(lab, chip, dtype, kind, out, shift):
    info = np.iinfo(dtype)
    x = np.arange(info.min, info.max + 1, 1 if dtype.itemsize == 1 else 7).astype(dtype)
    found = lab.one(kind, [lab.q(x, -8, dtype)], out, -8 + shift, chip=chip, width="S8")
    assert np.array_equal(found, lab.requantized(x, shift, chip, out))


def test_ties(lab, chip, dtype):
    x = lab.q([-5, -3, -1, 1, 3, 5], -4, dtype)
    found = lab.one("RequantizeLinear", [x], dtype, -3, chip=chip)
    wanted = [-2, -2, 0, 0, 2, 2] if chip == "esp32p4" else [-2, -1, 0, 1, 2, 3]
    assert found.tolist() == wanted


def test_from_float(lab, chip, dtype):
    info = np.iinfo(dtype)
    x = lab.real([0.25, 0.75, -0.25, -0.75, 1e9, -1e9, np.inf, -np.inf, np.nan])
    found = lab.one("QuantizeLinear", [x], dtype, -1, chip=chip)
    ties = [0, 2, 0, -2] if chip == "esp32p4" else [1, 2, 0, -1]
    assert found.tolist() == [*ties, info.max, info.min, info.max, info.min, info.max]


def test_to_float(lab, chip, dtype):
    info = np.iinfo(dtype)
    x = lab.q([info.min, -1, 0, 1, info.max], -5, dtype)
    found = lab.one("DequantizeLinear", [x], np.float32, 0, chip=chip, width="F32")
    assert found.tolist() == [v * 2.0**-5 for v in (info.min, -1, 0, 1, info.max)]
