"""LayerNormalization, RMSNormalization, LpNormalization against float64."""

from __future__ import annotations

import numpy as np
import pytest

WIDTHS = ["int8", "int16", "float32"]
EXPONENT = {"int8": -4, "int16": -11, "float32": 0}
OUT = {"int8": -5, "int16": -12, "float32": 0}


def draw(rng, width, shape):
    if width == "float32":
        return rng.normal(0, 2, shape).astype(np.float32)
    info = np.iinfo(width)
    return rng.integers(info.min // 2, info.max // 2, shape).astype(width)


def operand(lab, values, exponent, *, constant=False):
    return lab.Q(values, (0 if values.dtype == np.float32 else exponent,), constant)


def close(found, wanted, width):
    if width == "float32":
        return np.allclose(found, wanted, rtol=1e-5, atol=1e-5)
    info = np.iinfo(width)
    scaled = (wanted * 2.0 ** -OUT[width]).clip(info.min, info.max)
    return bool((np.abs(found - scaled) <= 0.51 + 2e-5 * np.abs(scaled)).all())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("axis", [-1, -2, 1])
@pytest.mark.parametrize("others", [0, 1, 2])
def test_layer_norm(lab, rng, chip, width, axis, others):
    x = draw(rng, width, (3, 4, 17))
    inner = x.shape[axis:]
    factors = [draw(rng, width, inner) for _ in range(others)]
    exponent = EXPONENT[width]
    inputs = [operand(lab, x, exponent)]
    inputs += [operand(lab, v, exponent - 2, constant=True) for v in factors]
    found = lab.run(
        "LayerNormalization", inputs, [(width, OUT[width])] * 3, chip=chip, axis=axis,
        epsilon=1e-5,
    )  # fmt: skip
    values = x.astype(float) * 2.0**exponent
    axes = tuple(range(values.ndim))[axis:]
    mean = values.mean(axes, keepdims=True)
    inverse = 1 / np.sqrt(values.var(axes, keepdims=True) + 1e-5)
    gain, bias = [v.astype(float) * 2.0 ** inputs[1].exponents[0] for v in factors] + [1, 0][
        others:
    ]
    assert close(found[0], (values - mean) * inverse * gain + bias, width)
    assert close(found[1], mean, width)
    assert close(found[2], inverse, width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("axis", [-1, 1])
def test_rms_norm(lab, rng, chip, width, axis):
    x = draw(rng, width, (3, 4, 17))
    gain = rng.normal(1, 0.2, x.shape[axis:]).astype(np.float32)
    inputs = [operand(lab, x, EXPONENT[width]), lab.real(gain, constant=True)]
    found = lab.one(
        "RMSNormalization", inputs, np.dtype(width), OUT[width], chip=chip, axis=axis,
        epsilon=1e-5,
    )  # fmt: skip
    values = x.astype(float) * 2.0 ** EXPONENT[width]
    axes = tuple(range(values.ndim))[axis:]
    wanted = values / np.sqrt((values**2).mean(axes, keepdims=True) + 1e-5) * gain
    assert close(found, wanted, width)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("axis", [0, -1])
def test_lp_norm(lab, rng, chip, width, power, axis):
    x = draw(rng, width, (5, 18))
    x[0] = x[:, 0] = 0  # a slice without a norm stays zero
    found = lab.one(
        "LpNormalization", [operand(lab, x, -3)], np.dtype(width), OUT[width], chip=chip,
        axis=axis, p=power,
    )  # fmt: skip
    values = x.astype(float)
    norm = (np.abs(values) ** power).sum(axis, keepdims=True) ** (1 / power)
    assert close(found, np.divide(values, norm, where=norm > 0, out=np.zeros_like(values)), width)


@pytest.mark.parametrize("dtype", ["int8", "int16"])
def test_saturation_at_both_ends(lab, chip, dtype):
    info = np.iinfo(dtype)
    x = lab.q([-100] + [0] * 8 + [100], -3, dtype)
    out = -7 if dtype == "int8" else -15
    found = lab.one(
        "LayerNormalization", [x], np.dtype(dtype), out, chip=chip, axis=-1, epsilon=1e-5
    )
    assert (found[0], found[-1]) == (info.min, info.max)
