"""What the chips compute, one product after the other, for many elements side by side.

Written for the tests alone and shares no line with the kernels. Everything takes and returns int64
arrays, element by element; only the sums of `layer` and `gates` walk, in the order of the chips.
"""

from __future__ import annotations

import numpy as np


def half_even(value, shift):
    low = value >> shift
    twice = 2 * (value - (low << shift))
    return low + ((twice > 1 << shift) | ((twice == 1 << shift) & (low % 2 == 1)))


def half_up(value, shift):
    return np.where(shift == 0, value, ((value >> np.maximum(shift - 1, 0)) + 1) >> 1)


def rounded(value, shift, chip):
    return half_even(value, shift) if chip == "esp32p4" else half_up(value, shift)


def clip(value, bits):
    return np.minimum(np.maximum(value, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1)


def wrap(value, bits):
    if bits == 64:
        return value
    value = value % 2**bits
    return np.where(value >= 2 ** (bits - 1), value - 2**bits, value)


def lane_bits(chip, bits):
    return {("esp32s3", 8): 20, ("esp32s3", 16): 40, ("esp32p4", 8): 32, ("esp32p4", 16): 64}[
        chip, bits
    ]


def layer(taps, weights, bias, shift, chip, bits, *, depthwise, relu):
    """All outputs (P, N) of a layer.

    Args:
        taps: (K, P, C), the inputs of each tap at each place.
        weights: (N, K, C), or (N, K, 1) of a depthwise layer.
        bias: (N,).
        shift: (N,), to the right.
        chip: esp32s3 or esp32p4.
        bits: 8 or 16.
        depthwise: Whether every channel is in a lane, and has an input of its own.
        relu: Whether negative outputs become 0.
    """
    block, channels, places = 128 // bits, len(weights), taps.shape[1]
    in_lanes = channels if depthwise else channels - channels % block
    width = lane_bits(chip, bits)
    start = np.concatenate([wrap(bias[:in_lanes], width), wrap(bias[in_lanes:], 40)])
    lanes, tails = (
        np.repeat(part[None], places, 0) for part in (start[:in_lanes], start[in_lanes:])
    )
    for inputs, factors in zip(taps, weights.swapaxes(0, 1), strict=True):
        if depthwise:
            lanes = clip(lanes + inputs * factors[:, 0], width)
            continue
        for x, w in zip(inputs.T, factors[:in_lanes].T, strict=True):
            lanes = clip(lanes + x[:, None] * w, width)
        for first in range(0, inputs.shape[1], block):
            part = slice(first, first + block)
            tails = clip(tails + inputs[:, part] @ factors[in_lanes:, part].T, 40)
    result = clip(rounded(np.concatenate([lanes, tails], 1), shift, chip), bits)
    return np.maximum(result, 0) if relu else result


def product(a, b, shift, chip):
    """Mul of int16 whose innermost merged dimension fills a register."""
    return clip(rounded(a * b, shift, chip), 16)


def float_product(a, b, shift, chip):
    """Mul of int16 of a shorter one, in C: rounded to the 24 bits of a float32 first."""
    exact = a * b
    length = np.frexp(np.abs(exact).astype(np.float64))[1]  # exact: 31 bits at most
    spare = np.maximum(length - 24, 0).astype(np.int64)
    kept = half_even(np.abs(exact), spare) << spare
    return clip(rounded(np.sign(exact) * kept, shift, chip), 16)


def innermost(first, second):
    """Length of the innermost loop once neighbouring axes that broadcast alike are one.

    From the right: an axis joins as long as it, and all that were joined, are of one kind: both
    inputs have it, or the same one lacks it. Axes of one element are of every kind.
    """
    rank = max(len(first), len(second))
    pairs = list(
        zip((1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second, strict=True)
    )
    kind, length = None, 1
    for a, b in reversed(pairs):
        mine = None if a == b == 1 else "both" if a == b else "first" if b == 1 else "second"
        if None not in (kind, mine) and kind != mine:
            break
        kind, length = kind or mine, length * max(a, b)
    return length


def prelu(x, slope, exponents, bits, chip):
    """PRelu; *exponents* of input, slope and output."""
    taken, of_slope, made = exponents
    shift = made - taken - of_slope
    if bits == 8:
        below = clip(rounded(x * slope, shift, chip), 8)
        if made >= taken:
            return np.where(x < 0, below, clip(rounded(x, made - taken, chip), 8))
        return np.where(x < 0, below, clip(x * wrap(2 ** (taken - made), 8), 8))
    if chip == "esp32s3":
        return np.where(x <= 0, wrap((x * slope) >> shift, 16), x)
    moved = (x * slope) >> shift if shift >= 0 else (x * slope) << -shift
    return np.where(x < 0, clip(wrap(moved, 32), 16), x)


def requantize(x, coarser, taken, made, chip, *, small=False):
    """RequantizeLinear from *taken* to *made* bits; *small* of 50 elements or fewer."""
    if coarser == 0:
        return clip(x, made)
    if small or (taken == made == 16 and coarser < -14):
        exact = x * 2.0**-coarser
        whole = np.rint(exact) if chip == "esp32p4" else np.floor(exact + 0.5)
        return clip(whole.astype(np.int64), made)
    if coarser > 0:
        return clip(rounded(x, coarser, chip), made)
    narrow = chip == "esp32s3" and taken == made == 8
    moved = x * wrap(2**-coarser, 8 if narrow else 16)
    if chip == "esp32s3" and made == 8:
        moved = wrap(moved, 20)
    return clip(moved, made)


def gates(inputs, weights, shift, chip):
    """Int16 gate sums (P, N) of rows (P, C) and (N, C), C a multiple of 8, the shift 0 or more."""
    total = np.zeros((len(inputs), len(weights)), np.int64)
    for first in range(0, inputs.shape[1], 8):
        part = slice(first, first + 8)
        total = clip(total + inputs[:, part] @ weights[:, part].T, 40)
    if chip == "esp32p4":
        return clip(half_even(total, shift), 16)
    return clip((total + ((1 << shift) >> 1)) >> shift, 16)
