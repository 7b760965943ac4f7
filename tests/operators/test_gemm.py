"""Gemm and MatMul against sums in Python integers."""

from __future__ import annotations

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError

CHANNELS = {"int8": (1, 15, 16, 17, 31, 33), "int16": (1, 7, 8, 9, 15, 17)}


def draw(rng, dtype, shape):
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


def gemm(lab, chip, x, w, bias=None, *, shift, activation="Linear"):
    """Run a Gemm; x (..., C) at -4, w (C, N) at -7."""
    stored = lab.packed(w.T[:, None, None], -7, chip)
    inputs = [lab.q(x, -4, x.dtype), stored]
    if bias is not None:
        wide = np.int32 if x.dtype.itemsize == 1 else np.int64
        inputs.append(lab.const(bias, -11, wide))
    return lab.one("Gemm", inputs, x.dtype, -11 + shift, chip=chip, activation=activation)


@pytest.mark.parametrize("index", range(6))
def test_channels_around_the_packing_block(lab, rng, chip, dtype, index):
    n = CHANNELS[dtype.name][index]
    x, w = draw(rng, dtype, (2, 3, 21)), draw(rng, dtype, (21, n))
    bias = rng.integers(-(2**14), 2**14, n)
    shift = 9 if dtype.itemsize == 1 else 18
    wanted = lab.requantized(x.astype(object) @ w.astype(object) + bias, shift, chip, dtype)
    assert np.array_equal(gemm(lab, chip, x, w, bias, shift=shift), wanted)
    relu = gemm(lab, chip, x, w, bias, shift=shift, activation="Relu")
    assert np.array_equal(relu, wanted.clip(0))


def test_saturates_at_both_ends(lab, chip, dtype):
    info = np.iinfo(dtype)
    x = np.array([[info.max], [info.min]], dtype)
    found = gemm(lab, chip, x, np.full((1, 16), info.max, dtype), shift=1)
    assert found[:, 0].tolist() == [info.max, info.min]


def test_exact_ties(lab, chip, dtype):
    x = np.array([[-3], [-1], [1], [3]], dtype)
    found = gemm(lab, chip, x, np.ones((1, 16), dtype), shift=1)
    wanted = [-2, 0, 0, 2] if chip == "esp32p4" else [-1, 0, 1, 2]
    assert found[:, 5].tolist() == wanted


def test_negative_shift(lab, dtype):
    x = np.array([[5], [-5]], dtype)
    assert gemm(lab, "c", x, np.ones((1, 1), dtype), shift=-2)[:, 0].tolist() == [20, -20]


def matmul(lab, chip, x, w, *, shift, constant=True):
    second = lab.packed_matrices(w, -7, chip)
    if not constant:
        second = lab.q(second.array, -7, x.dtype)
    return lab.one(
        "MatMul",
        [lab.q(x, -4, x.dtype), second],
        x.dtype,
        -11 + shift,
        chip=chip,
        activation="Linear",
    )


@pytest.mark.parametrize("constant", [True, False], ids=["constant", "computed"])
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((4, 13), (13, 33)),
        ((13,), (13, 17)),
        ((13,), (13,)),
        ((4, 13), (13,)),
        ((3, 4, 13), (13, 16)),
        ((3, 4, 13), (3, 13, 9)),
        ((1, 4, 13), (3, 13, 9)),
        ((2, 3, 4, 13), (1, 3, 13, 7)),
        ((13,), (2, 13, 5)),
    ],
    ids=str,
)
def test_matmul_broadcasts_like_numpy(lab, rng, chip, dtype, first, second, constant):
    x, w = draw(rng, dtype, first), draw(rng, dtype, second)
    shift = 9 if dtype.itemsize == 1 else 18
    found = matmul(lab, chip, x, w, shift=shift, constant=constant)
    sums = np.matmul(x.astype(np.int64), w.astype(np.int64))
    wanted = lab.requantized(sums, shift, chip, dtype)
    assert np.array_equal(found.reshape(wanted.shape), wanted)


def test_a_computed_operand_in_native_layout_is_refused(lab):
    graph = lab.graph(
        "MatMul",
        [lab.q(np.ones((2, 3)), -4), lab.q(np.ones((3, 2)), -4)],
        [(np.int8, -4)],
        activation="Linear",
        input1_layout="native_kn",
    )
    from espdl_hil.interpreter import load

    with pytest.raises(UnsupportedOpError, match="multiplies other elements"):
        load(graph, "esp32s3")
