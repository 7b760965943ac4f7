"""Faults of the stream's course: chunks out of order, and bytes damaged on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis import Cause
from faults.device import Flaw
from faults.kinds import Injection, Random, Register, pick

if TYPE_CHECKING:
    from espdl_hil.diagnosis.mismatch import Array
    from faults.subjects import Subject

KINDS = Register()


# -- order -----------------------------------------------------------------------------------


class _Order(Flaw):
    """Chunks run in another order than they were sent."""

    def __init__(self, order: list[list[int]], *, passing: bool = True) -> None:
        self._order = order
        self.passing = passing

    def order(self, count: int) -> list[list[int]]:
        return self._order


def _usual(subject: Subject) -> list[list[int]]:
    return [[number] for number in range(len(subject.chunks))]


@KINDS.kind("chunks swapped", "order", Cause.ORDER)
def swapped(subject: Subject, rng: Random) -> Injection:
    order = _usual(subject)
    a, b = rng.choice(len(order), 2, replace=False)
    order[a], order[b] = order[b], order[a]
    return Injection(_Order(order))


@KINDS.kind("chunk repeated", "order", Cause.ORDER)
def repeated(subject: Subject, rng: Random) -> Injection:
    """A chunk runs again in place of the next, and all that follow are one late."""
    count = len(subject.chunks)
    at = int(rng.integers(1, count))
    order = [[i if i < at else i - 1] for i in range(count)]
    return Injection(_Order(order, passing=bool(rng.integers(2))))


@KINDS.kind("chunk lost", "order", Cause.ORDER)
def lost(subject: Subject, rng: Random) -> Injection:
    count = len(subject.chunks)
    at = int(rng.integers(0, count - 1))
    return Injection(_Order([[i if i < at else min(i + 1, count - 1)] for i in range(count)]))


@KINDS.kind("step run twice", "order", Cause.ORDER)
def run_twice(subject: Subject, rng: Random) -> Injection:
    """Not the first one: to run that twice is to forget a reset."""
    order = _usual(subject)
    at = int(rng.integers(1, len(order)))
    order[at] = [at, at]
    return Injection(_Order(order))


class _Kept(Flaw):
    """The input buffer still holds the chunk before."""

    def __init__(self, subject: Subject, at: int) -> None:
        self._before, self._at = subject.chunks[at - 1], at

    def sent(self, chunk: int, name: str, value: Array) -> Array:
        return self._before[name] if chunk == self._at else value


@KINDS.kind("input buffer kept", "firmware", Cause.ORDER)
def input_kept(subject: Subject, rng: Random) -> Injection:
    return Injection(_Kept(subject, int(rng.integers(1, len(subject.chunks)))))


# -- transport -------------------------------------------------------------------------------


def _damaged(value: Array, seed: int, bits: int) -> Array:
    rng = np.random.default_rng(seed)
    raw = np.ascontiguousarray(value).view(np.uint8).reshape(-1).copy()
    for place in rng.choice(8 * raw.size, min(bits, 8 * raw.size), replace=False):
        raw[place // 8] ^= 1 << (place % 8)
    return raw.view(value.dtype).reshape(value.shape)


class _Sent(Flaw):
    """Bits of one input of one chunk arrive flipped."""

    def __init__(self, subject: Subject, rng: Random, bits: int, *, passing: bool) -> None:
        self.passing = passing
        self._at = int(rng.integers(len(subject.chunks)))
        self._name = pick(rng, list(subject.chunks[0]))
        self._seed, self._bits = int(rng.integers(1 << 30)), bits

    def sent(self, chunk: int, name: str, value: Array) -> Array:
        if chunk != self._at or name != self._name:
            return value
        return _damaged(value, self._seed, self._bits)


@KINDS.kind("input bit", "transport", Cause.TRANSPORT)
def input_bit(subject: Subject, rng: Random) -> Injection:
    return Injection(_Sent(subject, rng, 1, passing=True))


@KINDS.kind("input bytes, each time", "transport", Cause.TRANSPORT)
def input_bytes(subject: Subject, rng: Random) -> Injection:
    return Injection(_Sent(subject, rng, 12, passing=False))


class _Returned(Flaw):
    """Bits of one output arrive flipped, or a byte of it is lost."""

    def __init__(self, subject: Subject, rng: Random, bits: int) -> None:
        self._at, self._bits = int(rng.integers(len(subject.chunks))), bits
        self._seed, self._start = int(rng.integers(1 << 30)), int(rng.integers(8))
        self.passing = bits > 0 or bool(rng.integers(2))

    def returned(self, chunk: int, name: str, value: Array, before: Array) -> Array:
        if chunk != self._at:
            return value
        if self._bits:
            return _damaged(value, self._seed, self._bits)
        raw = np.ascontiguousarray(value).view(np.uint8).reshape(-1).copy()
        raw[self._start : -1] = raw[self._start + 1 :]
        return raw.view(value.dtype).reshape(value.shape)


@KINDS.kind("output bits", "transport", Cause.TRANSPORT)
def output_bits(subject: Subject, rng: Random) -> Injection:
    return Injection(_Returned(subject, rng, int(rng.integers(1, 9))))


@KINDS.kind("output byte lost", "transport", Cause.TRANSPORT)
def output_byte_lost(subject: Subject, rng: Random) -> Injection:
    return Injection(_Returned(subject, rng, 0))
