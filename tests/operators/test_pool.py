"""AveragePool, GlobalAveragePool, MaxPool."""

from __future__ import annotations

import numpy as np
import pytest

CHANNELS = (1, 7, 8, 9, 15, 16, 17, 31, 33)


def draw(rng, dtype, shape):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def window_sums(x, kernel, strides, pads):
    """Exact sums of valid elements; x (H, W, C)."""
    padded = np.pad(x.astype(np.int64), ((pads[0], pads[2]), (pads[1], pads[3]), (0, 0)))
    views = np.lib.stride_tricks.sliding_window_view(padded, kernel, (0, 1))
    return views[:: strides[0], :: strides[1]].sum((-1, -2))


@pytest.mark.parametrize("channels", CHANNELS)
def test_average_divides_by_the_whole_window(lab, rng, chip, dtype, channels):
    x = draw(rng, dtype, (6, 7, channels))
    options = {"kernel_shape": (3, 2), "strides": (2, 1), "pads": (1, 0, 1, 1)}
    found = lab.one("AveragePool", [lab.q(x[None], -4, dtype)], dtype, -4, chip=chip, **options)[0]
    sums = window_sums(x, (3, 2), (2, 1), (1, 0, 1, 1)).astype(np.float32)
    scaled = sums * (np.float32(2.0**-4) * (np.float32(1) / np.float32(6)) * np.float32(2.0**4))
    wanted = np.rint(scaled) if chip == "esp32p4" else np.floor(scaled + np.float32(0.5))
    assert np.array_equal(found, wanted)


def test_average_rounds_ties_and_saturates(lab, chip, dtype):
    info = np.iinfo(dtype)
    x = np.array([[1, 0], [3, 0], [-1, 0], [info.max, info.max], [info.min, info.min]])

    def average(pair, exponent):
        pooled = [lab.q(pair.reshape(1, 2, 1), -4, dtype)]
        return lab.one("GlobalAveragePool", pooled, dtype, exponent, chip=chip).item()

    halves = [0, 2, 0] if chip == "esp32p4" else [1, 2, 0]
    assert [average(pair, -4) for pair in x] == [*halves, info.max, info.min]
    assert [average(pair, -6) for pair in x[3:]] == [info.max, info.min]


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("spatial", [1, 2])
def test_global_average_is_the_mean(lab, rng, chip, dtype, channels, spatial):
    x = draw(rng, dtype, (1, *(5, 3)[:spatial], channels))
    found = lab.one("GlobalAveragePool", [lab.q(x, -4, dtype)], dtype, -4, chip=chip)
    axes = tuple(range(1, 1 + spatial))
    assert found.shape == (1,) * (1 + spatial) + (channels,)
    assert (np.abs(found - x.mean(axes, keepdims=True)) <= 0.51).all()


@pytest.mark.parametrize("channels", CHANNELS)
def test_maximum_ignores_pads(lab, rng, chip, dtype, channels):
    x = -np.abs(draw(rng, dtype, (1, 9, channels)) // 2) - 1  # all negative: a zero would win
    options = {"kernel_shape": (3,), "strides": (2,), "pads": (2, 1)}
    found = lab.one("MaxPool", [lab.q(x, -4, dtype)], dtype, -4, chip=chip, **options)[0]
    wanted = [x[0, max(0, t * 2 - 2) : t * 2 + 1].max(0) for t in range(5)]
    assert np.array_equal(found, wanted)


def test_float_average(lab, rng):
    x = rng.normal(size=(1, 5, 4)).astype(np.float32)
    options = {"kernel_shape": (2,), "strides": (1,), "pads": (0, 0)}
    found = lab.one("AveragePool", [lab.real(x)], np.float32, 0, **options)
    assert np.array_equal(found, (x[:, :-1] + x[:, 1:]) * np.float32(0.5))
    mean = lab.one("GlobalAveragePool", [lab.real(x)], np.float32, 0)
    assert np.allclose(mean, x.mean(1, keepdims=True), rtol=1e-5, atol=1e-7)
