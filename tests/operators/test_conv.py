"""Conv, dense and depthwise, against sums in Python integers."""

from __future__ import annotations

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError
from espdl_hil.operators import accumulate, conv, depthwise

CHANNELS = {"int8": (1, 15, 16, 17, 31, 33), "int16": (1, 7, 8, 9, 15, 17)}


def expected(x, w, bias, shift, chip, lab, *, strides, dilations, pads, relu=False):
    """Convolution by its definition. x (H, W, C), w (N, KH, KW, C or 1), C 1 for depthwise."""
    n, kh, kw, c = w.shape
    top, left, bottom, right = pads
    padded = np.pad(x.astype(object), ((top, bottom), (left, right), (0, 0)))
    oh = (padded.shape[0] - dilations[0] * (kh - 1) - 1) // strides[0] + 1
    ow = (padded.shape[1] - dilations[1] * (kw - 1) - 1) // strides[1] + 1
    sums = np.zeros((oh, ow, n), object) + np.asarray(bias, object)
    for i in range(kh):
        for j in range(kw):
            rows = slice(i * dilations[0], i * dilations[0] + (oh - 1) * strides[0] + 1, strides[0])
            cols = slice(j * dilations[1], j * dilations[1] + (ow - 1) * strides[1] + 1, strides[1])
            taken, taps = padded[rows, cols], w[:, i, j].astype(object)
            sums += taken * taps[:, 0] if c == 1 and n == x.shape[2] else taken @ taps.T
    found = lab.requantized(sums, shift, chip, x.dtype)
    return found.clip(0) if relu else found


def bias_of(values, exponent, dtype, lab):
    return lab.const(values, exponent, np.int32 if dtype.itemsize == 1 else np.int64)


def convolve(lab, chip, x, w, bias=None, *, shift=6, exponents=(-8,), depthwise=False, **kwargs):
    """Run a 2-D Conv; x (H, W, C) at exponent -5, w (N, KH, KW, C) at *exponents*."""
    channels = w.shape[0]
    pads = kwargs.get("pads", (0, 0, 0, 0))
    inputs = [
        lab.q(x[None], -5, x.dtype),
        lab.packed(w, exponents, chip, depthwise=depthwise),
    ]
    if bias is not None:
        inputs.append(bias_of(bias, tuple(-5 + e for e in exponents), x.dtype, lab))
    return lab.one(
        "Conv",
        inputs,
        x.dtype,
        -5 + max(exponents) + shift,
        chip=chip,
        group=channels if depthwise else 1,
        kernel_shape=w.shape[1:3],
        pads=pads,
        strides=kwargs.get("strides", (1, 1)),
        dilations=kwargs.get("dilations", (1, 1)),
        activation=kwargs.get("activation", "Linear"),
    )[0]


def draw(rng, dtype, shape):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("index", range(6))
def test_output_channels_around_the_packing_block(lab, rng, chip, dtype, index):
    channels = CHANNELS[dtype.name][index]
    x, w = draw(rng, dtype, (5, 6, 3)), draw(rng, dtype, (channels, 3, 2, 3))
    bias = rng.integers(-(2**14), 2**14, channels)
    shift = 9 if dtype.itemsize == 1 else 17
    found = convolve(lab, chip, x, w, bias, shift=shift, pads=(1, 0, 1, 1), strides=(2, 1))
    wanted = expected(
        x, w, bias, shift, chip, lab, strides=(2, 1), dilations=(1, 1), pads=(1, 0, 1, 1)
    )
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("index", range(1, 6))
@pytest.mark.parametrize("taps_path", [False, True], ids=["as dense", "by taps"])
def test_depthwise_channels_around_the_packing_block(
    lab, rng, chip, dtype, index, taps_path, monkeypatch
):
    if taps_path:
        monkeypatch.setattr(conv, "DENSE_MACS", 0)
        monkeypatch.setattr(depthwise, "BLOCK_ELEMENTS", 64)
    channels = CHANNELS[dtype.name][index]
    x, w = draw(rng, dtype, (7, 5, channels)), draw(rng, dtype, (channels, 3, 3, 1))
    bias = rng.integers(-(2**14), 2**14, channels)
    shift = 8 if dtype.itemsize == 1 else 16
    geometry = {"strides": (1, 2), "dilations": (2, 1), "pads": (2, 1, 1, 1)}
    found = convolve(lab, chip, x, w, bias, shift=shift, depthwise=True, **geometry)
    assert np.array_equal(found, expected(x, w, bias, shift, chip, lab, **geometry))


@pytest.mark.parametrize("channels", [15, 16, 17, 33])
def test_one_spatial_axis_causal_and_dilated(lab, rng, chip, dtype, channels):
    x, w = draw(rng, dtype, (1, 11, channels)), draw(rng, dtype, (8, 3, channels))
    shift = 10 if dtype.itemsize == 1 else 18
    found = lab.one(
        "Conv",
        [
            lab.q(x, -5, dtype),
            lab.const(lab.packed(w[:, None], -8, chip).array.reshape(3, channels, 8), -8, dtype),
        ],
        dtype,
        -13 + shift,
        chip=chip,
        kernel_shape=(3,),
        pads=(4, 0),
        strides=(1,),
        dilations=(2,),
        activation="Linear",
    )[0]
    wanted = expected(
        x[0][:, None], w[:, :, None], 0, shift, chip, lab,
        strides=(1, 1), dilations=(2, 1), pads=(4, 0, 0, 0),
    )  # fmt: skip
    assert np.array_equal(found, wanted[:, 0])


def test_saturates_at_both_ends(lab, chip, dtype):
    info = np.iinfo(dtype)
    x = np.array([info.max, info.min], dtype).reshape(2, 1, 1)
    found = convolve(lab, chip, x, np.full((16, 1, 1, 1), info.max, dtype), shift=0)
    assert (found[0] == info.max).all()
    assert (found[1] == info.min).all()


def test_exact_ties(lab, chip, dtype):
    x = np.array([-5, -3, -1, 1, 3, 5], dtype).reshape(6, 1, 1)
    found = convolve(lab, chip, x, np.ones((16, 1, 1, 1), dtype), shift=1)
    wanted = [-2, -2, 0, 0, 2, 2] if chip == "esp32p4" else [-2, -1, 0, 1, 2, 3]
    assert found[:, 0, 3].tolist() == wanted


def test_negative_shift_multiplies_and_saturates(lab, dtype):
    info = np.iinfo(dtype)
    x = np.array([3, -3, info.max, info.min], dtype).reshape(4, 1, 1)
    found = convolve(lab, "c", x, np.ones((1, 1, 1, 1), dtype), shift=-3)
    assert found[:, 0, 0].tolist() == [24, -24, info.max, info.min]


def test_a_negative_shift_is_refused_where_the_vector_unit_has_none(lab, dtype):
    x = np.ones((1, 1, 1), dtype)
    with pytest.raises(UnsupportedOpError, match="shifted left"):
        convolve(lab, "esp32s3", x, np.ones((1, 1, 1, 1), dtype), shift=-1)


def test_relu_comes_before_saturation(lab, rng, chip, dtype):
    x, w = draw(rng, dtype, (4, 4, 8)), draw(rng, dtype, (17, 2, 2, 8))
    shift = 9 if dtype.itemsize == 1 else 17
    found = convolve(lab, chip, x, w, shift=shift, activation="Relu")
    geometry = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
    assert np.array_equal(found, expected(x, w, 0, shift, chip, lab, relu=True, **geometry))
    assert (found == 0).any()


@pytest.mark.parametrize("deep", [False, True], ids=["dense", "depthwise"])
def test_an_exponent_for_each_channel(lab, rng, dtype, deep):
    channels = 17
    exponents = tuple(-8 - i % 5 for i in range(channels))
    x = draw(rng, dtype, (5, 5, channels if deep else 4))
    w = draw(rng, dtype, (channels, 3, 3, 1 if deep else 4))
    bias = rng.integers(-(2**12), 2**12, channels)
    base = 7 if dtype.itemsize == 1 else 15
    found = convolve(lab, "esp32p4", x, w, bias, shift=base, exponents=exponents, depthwise=deep)
    shifts = [base + max(exponents) - e for e in exponents]
    geometry = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
    assert np.array_equal(found, expected(x, w, bias, shifts, "esp32p4", lab, **geometry))


@pytest.mark.parametrize("deep", [False, True], ids=["dense", "depthwise"])
@pytest.mark.parametrize("path", ["float32", "float64", "integers", "blocks"])
def test_every_arithmetic_path_gives_the_same(lab, rng, chip, path, deep, monkeypatch):
    x = draw(rng, np.int8, (9, 8, 18))
    w = draw(rng, np.int8, (18, 3, 3, 1 if deep else 18))
    bias = rng.integers(-(2**12), 2**12, 18)
    if path != "float32":
        monkeypatch.setattr(accumulate, "FLOAT_EXACT", 1)
    if path == "integers":
        monkeypatch.setattr(accumulate, "DOUBLE_EXACT", 1)
    if path == "blocks":
        monkeypatch.setattr(conv, "BLOCK_ELEMENTS", 256)
        monkeypatch.setattr(conv, "DENSE_MACS", 0)
    geometry = {"strides": (2, 1), "dilations": (1, 2), "pads": (1, 1, 0, 2)}
    found = convolve(lab, chip, x, w, bias, shift=8, depthwise=deep, **geometry)
    assert np.array_equal(found, expected(x, w, bias, 8, chip, lab, **geometry))


def test_sums_beyond_float32_stay_exact(lab, rng, chip):
    x = np.full((1, 1, 2048), -128, np.int8)
    w = np.full((16, 1, 1, 2048), -128, np.int8)
    w[:, 0, 0, 0] = np.arange(16)
    found = convolve(lab, chip, x, w, shift=18)
    if chip == "esp32s3":  # its lanes hold less
        assert (found == 2).all()
        return
    geometry = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}
    assert np.array_equal(found, expected(x, w, 0, 18, chip, lab, **geometry))


def test_the_int32_accumulator_wraps(lab):
    x = np.full((1, 1, 2**17), -128, np.int8)
    w = np.full((1, 1, 1, 2**17), -128, np.int8)
    # 2**31 does not fit: the sum becomes -2**31
    assert convolve(lab, "c", x, w, shift=24)[0, 0, 0] == -128


def test_a_dead_channel_is_zero(lab, chip):
    x = np.full((1, 1, 1), 100, np.int8)
    assert (convolve(lab, chip, x, np.ones((16, 1, 1, 1), np.int8), shift=30) == 0).all()


def test_refuses_a_window_that_the_chip_takes_for_a_whole_one(lab):
    x = np.ones((3, 1, 1), np.int8)
    w = np.ones((1, 4, 1, 1), np.int8)
    with pytest.raises(UnsupportedOpError, match="reads behind the input"):
        convolve(lab, "c", x, w, pads=(0, 0, 1, 0), strides=(2, 1))
    assert convolve(lab, "c", x, w, shift=0, pads=(0, 0, 1, 0)).tolist() == [[[3]]]
