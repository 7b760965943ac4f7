"""What the chips compute, one element and one product after the other, in Python's integers.

Written for the tests alone and shares no line with the kernels. All take and return nested lists
or flat ones, as said.
"""

from __future__ import annotations

from math import floor


def half_even(value, shift):
    low, rest = value >> shift, value & ((1 << shift) - 1)
    twice = 2 * rest
    return low + (twice > 1 << shift or (twice == 1 << shift and low % 2 == 1))


def half_up(value, shift):
    return value if shift == 0 else ((value >> (shift - 1)) + 1) >> 1


def rounded(value, shift, chip):
    return half_even(value, shift) if chip == "esp32p4" else half_up(value, shift)


def clip(value, bits):
    return max(-(2 ** (bits - 1)), min(2 ** (bits - 1) - 1, value))


def wrap(value, bits):
    value %= 2**bits
    return value - 2**bits if value >= 2 ** (bits - 1) else value


def lane_bits(chip, bits):
    return {("esp32s3", 8): 20, ("esp32s3", 16): 40, ("esp32p4", 8): 32, ("esp32p4", 16): 64}[
        chip, bits
    ]


def layer(taps, weights, bias, shift, chip, bits, *, channel, channels, depthwise, relu):
    """One output element.

    Args:
        taps: A list of inputs for each tap.
        weights: Likewise, of this channel.
        bias: Of this channel.
        shift: To the right.
        chip: esp32s3 or esp32p4.
        bits: 8 or 16.
        channel: Its number.
        channels: How many there are.
        depthwise: Whether every channel is in a lane.
        relu: Whether negative outputs become 0.
    """
    block = 128 // bits
    if depthwise or channel < channels - channels % block:
        width, step = lane_bits(chip, bits), 1
    else:
        width, step = 40, block
    total = wrap(bias, width)
    for inputs, factors in zip(taps, weights, strict=True):
        for first in range(0, len(inputs), step):
            part = slice(first, first + step)
            total += sum(x * w for x, w in zip(inputs[part], factors[part], strict=True))
            total = clip(total, width)
    result = clip(rounded(total, shift, chip), bits)
    return max(result, 0) if relu else result


def product(a, b, shift, chip):
    """Mul of int16 whose innermost merged dimension fills a register."""
    return clip(rounded(a * b, shift, chip), 16)


def float_product(a, b, shift, chip):
    """Mul of int16 of a shorter one, in C: rounded to the 24 bits of a float32 first."""
    exact = a * b
    spare = max(abs(exact).bit_length() - 24, 0)
    kept = half_even(abs(exact), spare) << spare
    return clip(rounded(-kept if exact < 0 else kept, shift, chip), 16)


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
        if x < 0:
            return clip(rounded(x * slope, shift, chip), 8)
        if made >= taken:
            return clip(rounded(x, made - taken, chip), 8)
        return clip(x * wrap(2 ** (taken - made), 8), 8)
    if chip == "esp32s3":
        return wrap((x * slope) >> shift, 16) if x <= 0 else x
    moved = (x * slope) >> shift if shift >= 0 else (x * slope) << -shift
    return clip(wrap(moved, 32), 16) if x < 0 else x


def requantize(x, coarser, taken, made, chip, *, small=False):
    """RequantizeLinear from *taken* to *made* bits; *small* of 50 elements or fewer."""
    if coarser == 0:
        return clip(x, made)
    if small or (taken == made == 16 and coarser < -14):
        exact = x * 2.0**-coarser
        return clip(round(exact) if chip == "esp32p4" else floor(exact + 0.5), made)
    if coarser > 0:
        return clip(rounded(x, coarser, chip), made)
    narrow = chip == "esp32s3" and taken == made == 8
    moved = x * wrap(2**-coarser, 8 if narrow else 16)
    if chip == "esp32s3" and made == 8:
        moved = wrap(moved, 20)
    return clip(moved, made)


def gate(inputs, weights, shift, chip):
    """A row of int16 gate sums, the length a multiple of 8 and the shift not negative."""
    total = 0
    for first in range(0, len(inputs), 8):
        for x, w in zip(inputs[first : first + 8], weights[first : first + 8], strict=True):
            total += x * w
        total = clip(total, 40)
    if chip == "esp32p4":
        return clip(half_even(total, shift), 16)
    return clip((total + ((1 << shift) >> 1)) >> shift, 16)
