"""Was the right value in the right place? Caches, recurrent state, inputs, unwritten memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis.cause import Cause, Explanation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.diagnosis.mismatch import Array, Case, Tensors
    from espdl_hil.diagnosis.node_replay import Suspect

MAX_LOST_BYTES = 64
MIN_STALE = 4  # elements that must agree with old memory before it is called that


def cache(suspect: Suspect) -> Explanation | None:
    """A StreamingCache whose kept frames are not those of the chunks before."""
    if suspect.node.op_type != "StreamingCache":
        return None
    source = suspect.inputs[0][suspect.node.inputs[0]]
    kept = suspect.expected[0].size - source.size
    expected = suspect.expected.reshape(len(suspect.numbers), -1)
    observed = suspect.observed.reshape(len(suspect.numbers), -1)
    if not np.array_equal(expected[:, kept:], observed[:, kept:]):
        return None  # the new frames are wrong: no matter of state
    heads = {number: expected[i, :kept] for i, number in enumerate(suspect.numbers)}
    wrong = int(np.flatnonzero((expected != observed).any(1))[0])
    return _of_state(suspect.numbers[wrong], observed[wrong, :kept], heads, "the cache")


def recurrent_input(
    name: str, chunk: int, observed: Array, traces: Sequence[Tensors]
) -> Explanation:
    """A state input that does not hold what the last step put out."""
    states = {number: trace[name].reshape(-1) for number, trace in enumerate(traces)}
    return _of_state(chunk, observed.reshape(-1), states, f"state input {name}")


def _of_state(chunk: int, observed: Array, expected: Mapping[int, Array], what: str) -> Explanation:
    """Name a state by what it holds."""
    if chunk == 0:
        fact = f"{what} is not zero before the first chunk"
        return Explanation(Cause.NOT_RESET, (fact,))
    if not observed.any():
        fact = f"{what} is all zero before chunk {chunk}, as after a reset"
        return Explanation(Cause.DROPPED, (fact,))
    for number, state in expected.items():
        if number != chunk and np.array_equal(state, observed):
            fact = f"before chunk {chunk}, {what} holds what it should hold before chunk {number}"
            return Explanation(Cause.DROPPED, (fact,))
    wrong = int((observed != expected[chunk]).sum())
    fact = f"before chunk {chunk}, {wrong} of {observed.size} elements of {what} are wrong"
    return Explanation(Cause.DROPPED, (fact,))


def recurrence(suspect: Suspect) -> Explanation | None:
    """A GRU or LSTM that starts from zero although it is given a state."""
    if suspect.node.op_type not in ("GRU", "LSTM"):
        return None
    states = [name for name in suspect.node.inputs[5:7] if name in suspect.sources]
    if not states:
        return None
    zeroed = tuple(
        {n: np.zeros_like(t) if n in states else t for n, t in inputs.items()}
        for inputs in suspect.inputs
    )
    if suspect.explained_by(suspect.replay(inputs=zeroed)):
        fact = f"starting each chunk from zero instead of {states[0]} reproduces {suspect.span}"
        return Explanation(Cause.DROPPED, (fact,))
    return None


def graph_input(case: Case, name: str, chunk: int, observed: Array) -> Explanation:
    """A graph input that is not what the host sent for this chunk."""
    sent = [chunk_inputs[name] for chunk_inputs in case.chunks]
    for number, values in enumerate(sent):
        if number != chunk and np.array_equal(values, observed):
            fact = f"the device ran chunk {chunk} on the input {name} of chunk {number}"
            return Explanation(Cause.ORDER, (fact,))
    fact = shifted(sent[chunk], observed) or _bits(sent[chunk], observed)
    return Explanation(Cause.TRANSPORT, (f"input {name} {fact}",))


def wrong_bits(sent: Array, received: Array) -> int:
    """Bits in which two tensors of one shape differ."""
    a, b = (np.ascontiguousarray(t).view(np.uint8).reshape(-1) for t in (sent, received))
    return int(np.bitwise_count(a ^ b).sum())


def _bits(sent: Array, received: Array) -> str:
    a, b = (np.ascontiguousarray(t).view(np.uint8).reshape(-1) for t in (sent, received))
    wrong = np.flatnonzero(a != b)
    bits = wrong_bits(sent, received)
    where = f"bytes {wrong[0]} to {wrong[-1]}" if len(wrong) > 1 else f"byte {wrong[0]}"
    return f"arrived with {bits} wrong bits in {len(wrong)} of {a.size} bytes ({where})"


def received(expected: Array, observed: Array, before: Array | None, name: str) -> Explanation:
    """An output that was right on the device and is wrong on the host."""
    old = left_over(expected, observed, before) or filled(expected, observed)
    if old is not None:
        return old
    fact = shifted(expected, observed) or _bits(expected, observed)
    return Explanation(Cause.TRANSPORT, (f"output {name} {fact}",))


def shifted(sent: Array, received: Array) -> str | None:
    """Whether bytes were lost or doubled on the way; what follows is then the same, displaced."""
    a, b = (np.ascontiguousarray(t).view(np.uint8).reshape(-1) for t in (sent, received))
    start = int(np.argmax(a != b))
    for by in range(1, min(MAX_LOST_BYTES, a.size - start - MIN_STALE) + 1):
        if np.array_equal(a[start + by :], b[start:-by]):
            return f"lost {by} bytes at byte {start}"
        if np.array_equal(a[start:-by], b[start + by :]):
            return f"has {by} bytes too many at byte {start}"
    return None


def left_over(expected: Array, observed: Array, before: Array | None) -> Explanation | None:
    """What differs is what the tensor held before.

    Args:
        expected: What should be there.
        observed: What is there.
        before: What the same tensor held after the step before; None if there was none.
    """
    differs = expected != observed
    count = int(differs.sum())
    if before is None or count < min(MIN_STALE, expected.size):
        return None
    if not np.array_equal(observed[differs], before[differs]):
        return None
    fact = f"all {count} wrong elements are what the tensor held after the step before"
    return Explanation(Cause.UNWRITTEN, (fact,))


def filled(expected: Array, observed: Array) -> Explanation | None:
    """What differs is one byte all over."""
    differs = expected != observed
    count = int(differs.sum())
    pattern = np.unique(np.ascontiguousarray(observed[differs]).view(np.uint8))
    if len(pattern) != 1 or count < min(MIN_STALE, expected.size):
        return None
    fact = f"all {count} wrong elements are filled with byte 0x{int(pattern[0]):02x}"
    return Explanation(Cause.UNWRITTEN, (fact,))


def node_left_over(suspect: Suspect) -> Explanation | None:
    """`left_over` for a node's output, in the first chunk in which it differs."""
    wrong = _first_wrong(suspect)
    before = suspect.observed[wrong - 1] if wrong else None
    return left_over(suspect.expected[wrong], suspect.observed[wrong], before)


def node_filled(suspect: Suspect) -> Explanation | None:
    """`filled` for a node's output, in the first chunk in which it differs."""
    wrong = _first_wrong(suspect)
    return filled(suspect.expected[wrong], suspect.observed[wrong])


def _first_wrong(suspect: Suspect) -> int:
    return int(np.flatnonzero(suspect.differs.reshape(len(suspect.numbers), -1).any(1))[0])
