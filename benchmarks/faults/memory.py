"""Faults of the firmware core and of state: what is kept, cleared or not written."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis import Cause
from espdl_hil.diagnosis.mismatch import Facts
from faults.device import Flaw
from faults.kinds import Injection, NoPlace, Random, Register, caches, pick

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from espdl_hil.diagnosis.mismatch import Array, Tensors
    from espdl_hil.espdl import Node
    from faults.subjects import Subject

KINDS = Register()


# -- state -----------------------------------------------------------------------------------


class _Dirty(Flaw):
    """Chunks ran before, and the reset was forgotten."""

    passing = True

    def __init__(self, chunks: Sequence[Tensors]) -> None:
        self._chunks = chunks

    def left_over(self, subject: Subject) -> Sequence[Tensors]:
        return self._chunks


@KINDS.kind("reset forgotten", "state", Cause.NOT_RESET)
def reset_forgotten(subject: Subject, rng: Random) -> Injection:
    count = int(rng.integers(1, len(subject.chunks) + 1))
    return Injection(_Dirty(subject.chunks[:count]))


@KINDS.kind("reset forgotten, other stream", "state", Cause.NOT_RESET)
def other_stream(subject: Subject, rng: Random) -> Injection:
    return Injection(
        _Dirty(
            [
                {n: rng.permutation(v.reshape(-1)).reshape(v.shape) for n, v in chunk.items()}
                for chunk in subject.chunks
            ]
        )
    )


class _Cleared(Flaw):
    """Caches are cleared when they should not be, or not when they should."""

    def __init__(self, when: Callable[[int, Node], bool], *, before: bool = False) -> None:
        self._when, self._before = when, before

    def loses_state(self, chunk: int, node: Node) -> bool:
        return self._when(chunk, node)

    def left_over(self, subject: Subject) -> Sequence[Tensors]:
        return subject.chunks if self._before else ()


@KINDS.kind("reset misses a cache", "firmware", Cause.NOT_RESET)
def reset_misses(subject: Subject, rng: Random) -> Injection:
    kept = pick(rng, caches(subject.graph)).name
    return Injection(_Cleared(lambda c, n: c == 0 and n.name != kept, before=True))


@KINDS.kind("state dropped each chunk", "state", Cause.DROPPED)
def dropped_always(subject: Subject, rng: Random) -> Injection:
    return Injection(_Cleared(lambda c, n: True))


@KINDS.kind("state dropped once", "state", Cause.DROPPED)
def dropped_once(subject: Subject, rng: Random) -> Injection:
    at = int(rng.integers(1, len(subject.chunks)))
    flaw = _Cleared(lambda c, n: c == at)
    flaw.passing = bool(rng.integers(2))
    return Injection(flaw)


@KINDS.kind("one cache dropped", "firmware", Cause.DROPPED)
def one_dropped(subject: Subject, rng: Random) -> Injection:
    lost, at = pick(rng, caches(subject.graph)).name, int(rng.integers(1, len(subject.chunks)))
    return Injection(_Cleared(lambda c, n: c >= at and n.name == lost))


class _NotAdvanced(Flaw):
    """A cache still holds the frames of the chunk before the last."""

    def __init__(self, name: str, at: int) -> None:
        self._name, self._at = name, at

    def node(self, chunk: int, node: Node, inputs: Tensors, output: Array, before: Array) -> Array:
        if node.name != self._name or chunk != self._at:
            return output
        kept = output.size - inputs[node.inputs[0]].size
        stale = output.copy().reshape(-1)
        stale[:kept] = before.reshape(-1)[:kept]
        return stale.reshape(output.shape)


@KINDS.kind("cache not advanced", "firmware", Cause.DROPPED)
def not_advanced(subject: Subject, rng: Random) -> Injection:
    cache = pick(rng, caches(subject.graph))
    return Injection(_NotAdvanced(cache.name, int(rng.integers(2, len(subject.chunks)))))


class _Unbound(Flaw):
    """The firmware does not feed recurrent state back."""

    def fed_back(self, chunk: int, name: str, value: Array) -> Array:
        return np.zeros_like(value)


@KINDS.kind("state binding skipped", "firmware", Cause.DROPPED)
def binding_skipped(subject: Subject, rng: Random) -> Injection:
    if not subject.state:
        raise NoPlace
    return Injection(_Unbound())


# -- what is not written ---------------------------------------------------------------------


def _mixed(right: Array, wrong: Array, seed: int) -> Array:
    """*right* with a run of elements of *wrong*, 16 to half of them."""
    rng = np.random.default_rng(seed)
    shortest = min(16, right.size)
    length = int(rng.integers(shortest, max(right.size // 2, shortest) + 1))
    start = int(rng.integers(right.size - length + 1))
    mixed = right.copy().reshape(-1)
    mixed[start : start + length] = wrong.reshape(-1)[start : start + length]
    return mixed.reshape(right.shape)


class _NotCopied(Flaw):
    """A part of an output still holds the values of the step before, or a canary."""

    def __init__(self, at: int, seed: int, *, canary: bool, passing: bool) -> None:
        self.passing = passing
        self._at, self._seed, self._canary = at, seed, canary

    def returned(self, chunk: int, name: str, value: Array, before: Array) -> Array:
        if chunk != self._at:
            return value
        if self._canary:
            noise = np.random.default_rng(self._seed).bytes(value.nbytes)
            before = np.frombuffer(noise, value.dtype)
        return _mixed(value, before, self._seed)


@KINDS.kind("output not copied", "firmware", Cause.UNWRITTEN)
def output_not_copied(subject: Subject, rng: Random) -> Injection:
    at, seed = int(rng.integers(1, len(subject.chunks))), int(rng.integers(1 << 30))
    return Injection(_NotCopied(at, seed, canary=False, passing=bool(rng.integers(2))))


@KINDS.kind("output canary", "firmware", Cause.UNWRITTEN)
def output_canary(subject: Subject, rng: Random) -> Injection:
    """The canary stays, and the device says so."""
    at, seed = int(rng.integers(len(subject.chunks))), int(rng.integers(1 << 30))
    facts = Facts(unwritten={at: "64 bytes of output from byte 0"})
    return Injection(_NotCopied(at, seed, canary=True, passing=False), facts)


class _NodeNotWritten(Flaw):
    """A part of a node's output still holds the values of the step before."""

    def __init__(self, name: str, at: int, seed: int) -> None:
        self._name, self._at, self._seed = name, at, seed

    def node(self, chunk: int, node: Node, inputs: Tensors, output: Array, before: Array) -> Array:
        if node.name != self._name or chunk != self._at:
            return output
        return _mixed(output, before, self._seed)


@KINDS.kind("node output not written", "firmware", Cause.UNWRITTEN)
def node_not_written(subject: Subject, rng: Random) -> Injection:
    node = pick(rng, [n for n in subject.graph.nodes if n.op_type != "StreamingCache"])
    at, seed = int(rng.integers(1, len(subject.chunks))), int(rng.integers(1 << 30))
    return Injection(_NodeNotWritten(node.name, at, seed))
