"""Following the frame axis through reshapes, against what numpy does to the frames."""

from __future__ import annotations

import doctest
import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest

from espdl_hil.streaming.transfer import layout
from espdl_hil.streaming.transfer.layout import follow_axis


def test_examples():
    assert doctest.testmod(layout).failed == 0


def concatenates(before, after, axis, new_axis, factor):
    """Whether reshaping two chunks and joining them is reshaping both joined."""
    chunk = [*before]
    chunk[axis] = before[axis] // 2
    target = [*after]
    target[new_axis] = int(Fraction(chunk[axis]) * factor)
    whole = np.arange(math.prod(before)).reshape(before)
    halves = np.split(whole, 2, axis)
    joined = np.concatenate([half.reshape(target) for half in halves], new_axis)
    return np.array_equal(joined, whole.reshape(after))


@pytest.mark.parametrize("seed", range(300))
def test_a_followed_axis_concatenates_as_before(seed):
    rng = random.Random(seed)
    sizes = [rng.choice((1, 2, 3, 4, 6)) for _ in range(rng.randint(1, 3))]
    axis = rng.randrange(len(sizes) + 1)
    before = (*sizes[:axis], 24, *sizes[axis:])
    after = regrouped(rng, before)

    found = follow_axis(before, after, axis)

    if found is None:
        assert not any(
            concatenates(before, after, axis, new, Fraction(after[new], before[axis]))
            for new in range(len(after))
            if after[new] % 2 == 0
        )
    else:
        new_axis, factor = found
        assert after[new_axis] == before[axis] * factor
        if (12 * factor).denominator == 1:
            assert concatenates(before, after, axis, new_axis, factor)


def regrouped(rng, shape):
    """The same number of elements, axes merged and split at random."""
    factors = [p for size in shape for p in primes(size)] or [1]
    cuts = sorted(rng.sample(range(len(factors) + 1), min(rng.randint(0, 3), len(factors))))
    parts = [factors[a:b] for a, b in itertools.pairwise([0, *cuts, len(factors)])]
    return tuple(math.prod(part) for part in parts)


def primes(number):
    for prime in (2, 3):
        while number % prime == 0:
            yield prime
            number //= prime
