"""The kernels against a plain sequential model of the chips, on random elements.

A few of each in every run; a million an operator, and 200 heavy layers a kind, with ``-m slow``.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from espdl_hil.interpreter import load
from espdl_hil.operators import cell
from espdl_hil.operators.broadcast import merged_loops
from espdl_hil.targets import TARGETS

from . import sequential

CHIPS = ("esp32s3", "esp32p4")
KINDS = ("conv", "depthwise", "gemm", "matmul")
ELEMENTWISE = ("Mul", "PRelu", "RequantizeLinear", "gates")
FEW, ROUNDS = 800, 5
MANY = 10**6


def draw(rng, dtype, shape):
    """Full range, with many values at both ends."""
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max + 1, shape)
    ends = rng.choice([info.min, info.max], shape)
    return np.where(rng.random(shape) < 0.1, ends, values).astype(dtype)


def heavy(rng, dtype, shape):
    """Values of one sign for a while, so that sums run away and come back."""
    length = int(np.prod(shape))
    sign = np.repeat(rng.choice([-1, 1], length // 61 + 1), 61)[:length].reshape(shape)
    info = np.iinfo(dtype)
    sizes = rng.integers(0, info.max + 1, shape)
    return np.where(rng.random(shape) < 0.8, sizes * sign, draw(rng, dtype, shape)).astype(dtype)


def full(rng, dtype, shape):
    """Large values of one sign for very long, so that sums of int16 leave 40 bits."""
    length, info = int(np.prod(shape)), np.iinfo(dtype)
    sign = np.repeat(rng.choice([-1, 1], length // 3001 + 1), 3001)[:length].reshape(shape)
    return (sign * rng.integers(info.max - info.max // 16, info.max + 1, shape)).astype(dtype)


def values_of(rng, dtype, shape, load_of):
    if load_of == "heavy":
        return heavy(rng, dtype, shape)
    if load_of == "full":
        return full(rng, dtype, shape)
    if load_of == "light":
        return (draw(rng, dtype, shape) // 16).astype(dtype)
    return draw(rng, dtype, shape)


class Layer:
    """A random layer: its graph, an input, and the sequential model's output."""

    def __init__(self, lab, rng, kind, chip, dtype, load_of):
        self.lab, self.kind, self.chip, self.dtype = lab, kind, chip, np.dtype(dtype)
        self.bits = 8 * self.dtype.itemsize
        self.depthwise = kind == "depthwise"
        deep = load_of == "full"
        if kind in ("gemm", "matmul"):
            self.kernel = self.strides = self.dilations = (1, 1)
            self.pads = (0, 0, 0, 0)
            height, width = 1, int(rng.integers(1, rng.choice([3, 24, 200])))
            depth = int(rng.choice([777, 1100] if deep else [3, 33, 64, 130, 260]))
        else:
            self.kernel = tuple(int(v) for v in rng.integers(1, 4, 2))
            if self.depthwise:
                sides = [27, 30] if deep else [1, 2, 5, 7, 9]
                self.kernel = tuple(int(v) for v in rng.choice(sides, 2))
            self.strides = tuple(int(v) for v in rng.integers(1, 4, 2))
            self.dilations = tuple(int(v) for v in rng.integers(1, 3, 2))
            spans = [d * (k - 1) + 1 for d, k in zip(self.dilations, self.kernel, strict=True)]
            most = rng.choice([3, 8, 24])
            height, width = (span + int(rng.integers(0, most)) for span in spans)
            pads = [int(rng.integers(0, min(span, 3))) for span in spans]
            self.pads = (*pads, *pads)
            depth = int(rng.choice([3, 8, 17, 32, 48]))
            if deep and not self.depthwise:
                depth = -(-777 // (self.kernel[0] * self.kernel[1]))
        self.channels = depth if self.depthwise else int(rng.choice([1, 7, 8, 13, 16, 19, 40]))
        self.x = values_of(rng, self.dtype, (height, width, depth), load_of)
        inner = 1 if self.depthwise else depth
        self.w = values_of(rng, self.dtype, (self.channels, *self.kernel, inner), load_of)
        self.per_channel = chip == "esp32p4" and kind != "matmul" and rng.random() < 0.5
        top = 14 if self.bits == 8 else 30
        if load_of == "light":
            top -= 8
        low = top - 4
        count = self.channels if self.per_channel else 1
        self.shift = np.broadcast_to(rng.integers(low, top + 1, count), self.channels)
        self.stored_shift = tuple(int(s) for s in self.shift[:count])
        bias_bits = 19 if self.bits == 8 else 38
        self.bias = rng.integers(-(2**bias_bits), 2**bias_bits, self.channels)
        self.bias[rng.random(self.channels) < 0.3] = 0
        if kind == "matmul":
            self.bias[:] = 0
        self.relu = bool(rng.random() < 0.3)

    def graph(self):
        lab, wide = self.lab, np.int32 if self.bits == 8 else np.int64
        activation = "Relu" if self.relu else "Linear"
        exponents = tuple(-s for s in self.stored_shift)
        bias = lab.const(self.bias, -20, wide)
        if self.kind == "matmul":
            x = lab.q(self.x[0], 0, self.dtype)
            w = lab.packed_matrices(self.w[:, 0, 0].T.copy(), exponents[0], self.chip)
            return lab.graph("MatMul", [x, w], [(self.dtype, 0)], activation=activation)
        if self.kind == "gemm":
            x = lab.q(self.x[0], 0, self.dtype)
            w = lab.packed(self.w, exponents, self.chip)
            return lab.graph("Gemm", [x, w, bias], [(self.dtype, 0)], activation=activation)
        filters = lab.packed(self.w, exponents, self.chip, depthwise=self.depthwise)
        return lab.graph(
            "Conv",
            [lab.q(self.x[None], 0, self.dtype), filters, bias],
            [(self.dtype, 0)],
            group=self.channels if self.depthwise else 1,
            kernel_shape=self.kernel,
            strides=self.strides,
            dilations=self.dilations,
            pads=self.pads,
            activation=activation,
        )

    def expected(self):
        top, left, bottom, right = self.pads
        x = np.pad(self.x.astype(np.int64), ((top, bottom), (left, right), (0, 0)))
        (sh, sw), (dh, dw), (kh, kw) = self.strides, self.dilations, self.kernel
        oh = (x.shape[0] - dh * (kh - 1) - 1) // sh + 1
        ow = (x.shape[1] - dw * (kw - 1) - 1) // sw + 1
        rows, columns = sh * np.arange(oh)[:, None], sw * np.arange(ow)
        taps = [x[rows + i * dh, columns + j * dw] for i in range(kh) for j in range(kw)]
        return sequential.layer(
            np.stack(taps).reshape(kh * kw, oh * ow, -1),
            self.w.astype(np.int64).reshape(self.channels, kh * kw, -1),
            self.bias,
            self.shift,
            self.chip,
            self.bits,
            depthwise=self.depthwise,
            relu=self.relu,
        )

    def check(self):
        """Compare; returns elements and how many saturated in their accumulators."""
        session = load(self.graph(), self.chip)
        shape = self.x[None].shape if self.kind in ("conv", "depthwise") else self.x[0].shape
        found = session.step({"x0": self.x.reshape(shape)})["y0"]
        assert np.array_equal(found.ravel(), self.expected().ravel()), vars(self)
        return found.size, sum(lane.saturated for lane in session.lane_saturations)


def layers(lab, rng, kind, chip, dtype, *, count, elements=0, load_of=None):
    """Check as many random layers, and at least so many elements; returns them, and saturated."""
    total = saturated = done = 0
    while done < count or total < elements:
        chosen = load_of or rng.choice(["heavy", "light", "any", "full"], p=[0.3, 0.3, 0.3, 0.1])
        found = Layer(lab, rng, kind, chip, dtype, chosen).check()
        total, saturated, done = total + found[0], saturated + found[1], done + 1
    return total, saturated


@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("kind", KINDS)
def test_layers(lab, rng, kind, chip, dtype):
    elements, saturated = layers(lab, rng, kind, chip, dtype, count=6)
    assert elements
    if (chip, dtype.name) == ("esp32p4", "int8"):
        assert saturated == 0


@pytest.mark.parametrize("kind", KINDS)
def test_heavy_layers_of_the_s3_saturate(lab, rng, kind):
    assert layers(lab, rng, kind, "esp32s3", np.int8, count=20, load_of="heavy")[1] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_int16_saturate(lab, rng, kind):
    assert layers(lab, rng, kind, "esp32s3", np.int16, count=4, load_of="full")[1] > 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_200_heavy_layers_of_the_s3(lab, rng, kind):
    elements, saturated = layers(lab, rng, kind, "esp32s3", np.int8, count=200, load_of="heavy")
    assert saturated > elements / 200


def elementwise(lab, rng, chip, dtype, count):
    """Operator, observed and expected elements, of every element-wise operator."""
    yield from muls(lab, rng, chip, count)
    yield from prelus(lab, rng, chip, dtype, count)
    yield from requantized(lab, rng, chip, dtype, count)
    yield from gates(rng, chip, count)


def muls(lab, rng, chip, count):
    columns = int(rng.choice([rng.integers(1, 8), rng.integers(8, 40)]))
    first = (count // columns + 1, columns)
    for second in (first, (first[0], 1), (1, columns)):
        vector = sequential.innermost(first, second) >= 8
        compute = sequential.product if vector else sequential.float_product
        a, b = draw(rng, np.int16, first), draw(rng, np.int16, second)
        shift = int(rng.integers(0, 24))
        observed = lab.one(
            "Mul", [lab.q(a, 0, np.int16), lab.q(b, 0, np.int16)], np.int16, shift, chip=chip
        )
        yield "Mul", observed, compute(a.astype(np.int64), b.astype(np.int64), shift, chip)


def prelus(lab, rng, chip, dtype, count):
    bits = 8 * dtype.itemsize
    channels = int(rng.integers(1, 40))
    x = draw(rng, dtype, (1, count // channels + 1, 1, channels))
    slopes = draw(rng, dtype, channels)
    low = -6 if (chip, bits) == ("esp32p4", 16) else 0
    shift = int(rng.integers(low, 9 if bits == 8 else 20))
    made = int(rng.integers(-8, 4)) if bits == 8 else 0
    exponents = (0, made - shift, made)
    stored = lab.const(slopes.reshape(-1, 1, 1), exponents[1], dtype)
    observed = lab.one("PRelu", [lab.q(x, 0, dtype), stored], dtype, made, chip=chip)
    wide = (side.astype(np.int64) for side in (x, slopes))
    yield "PRelu", observed, sequential.prelu(*wide, exponents, bits, chip)


def requantized(lab, rng, chip, dtype, count):
    for made in (np.int8, np.int16):
        for size in (50, -(-count // 16) * 16):
            coarser = int(rng.integers(-17, 14))
            x = draw(rng, dtype, size)
            observed = lab.one(
                "RequantizeLinear", [lab.q(x, 0, dtype)], made, coarser, chip=chip, width="S8"
            )
            bits = (8 * dtype.itemsize, 8 * np.dtype(made).itemsize)
            wide = x.astype(np.int64)
            expected = sequential.requantize(wide, coarser, *bits, chip, small=size <= 50)
            yield "RequantizeLinear", observed, expected


def test_axes_that_broadcast_alike_are_one_loop(rng):
    """On shapes of up to 5 axes, among them many of one element."""
    for _ in range(3000):
        whole = rng.choice([1, 2, 3, 5], rng.integers(1, 6))
        sides = [np.where(rng.random(len(whole)) < 0.3, 1, whole).tolist() for _ in range(2)]
        first, second = tuple(sides[0]), tuple(sides[1][rng.integers(0, len(whole)) :])
        loops = merged_loops(first, second)
        assert max(loops[-1]) == sequential.innermost(first, second), (first, second)


class Bound:
    """As much of a node as gate sums ask for."""

    def __init__(self, chip):
        self.target, self.rounding = TARGETS[chip], TARGETS[chip].rounding

    def input(self, index=0):
        return self

    dtype = np.dtype(np.int16)
    is_float = False


def gates(rng, chip, count):
    for length in (8, 64, 1024):
        rows = min(count // 8 + 1, 2**20 // length)
        x, w = heavy(rng, np.int16, (8, length)), heavy(rng, np.int16, (rows, length))
        shift = int(rng.integers(0, 27))
        node = cell.Cell(Bound(chip), rows, rows, 1, 0, ())
        observed = node._sums(x, w.astype(np.float64), shift)
        wide = (side.astype(np.int64) for side in (x, w))
        yield "gates", observed, sequential.gates(*wide, shift, chip)


def elements_that_agree(lab, rng, chip, dtype, *, rounds, count):
    """Compared elements by operator."""
    total = Counter()
    for _ in range(rounds):
        for operator, observed, expected in elementwise(lab, rng, chip, dtype, count):
            assert np.array_equal(observed, expected), operator
            total[operator] += expected.size
    return total


@pytest.mark.parametrize("chip", CHIPS)
def test_element_by_element(lab, rng, chip, dtype):
    total = elements_that_agree(lab, rng, chip, dtype, rounds=ROUNDS, count=FEW)
    assert all(total[operator] >= FEW * ROUNDS for operator in ELEMENTWISE)


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
def test_a_million_elements(lab, rng, chip, dtype):
    total = elements_that_agree(lab, rng, chip, dtype, rounds=200, count=MANY // 200)
    assert all(total[operator] >= MANY for operator in ELEMENTWISE)


@pytest.mark.slow
@pytest.mark.parametrize("chip", CHIPS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_million_elements_of_layers(lab, rng, kind, chip, dtype):
    assert layers(lab, rng, kind, chip, dtype, count=400, elements=MANY)[0] >= MANY


def test_another_rounding_lane_or_order_is_noticed(lab, rng, monkeypatch):
    from espdl_hil.operators import lanes

    monkeypatch.setitem(lanes.LANE_BITS, ("esp32s3", 1), 21)
    with pytest.raises(AssertionError):
        layers(lab, rng, "gemm", "esp32s3", np.int8, count=20, load_of="heavy")
    monkeypatch.undo()
    monkeypatch.setattr(sequential, "half_up", sequential.half_even)
    with pytest.raises(AssertionError):
        layers(lab, rng, "gemm", "esp32s3", np.int8, count=20, load_of="light")
