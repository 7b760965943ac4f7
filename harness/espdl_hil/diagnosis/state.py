"""Was the right value in the right place? Caches, recurrent state, inputs, unwritten memory."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis.cause import KEEP_CACHE, Cause, Explanation, counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.compare import Array, Tensors
    from espdl_hil.diagnosis.mismatch import Mismatch
    from espdl_hil.diagnosis.node_replay import NodeReplay

MAX_LOST_BYTES = 64
FEW_BITS = 16  # that many wrong bits are damage, not other numbers
MIN_OLD = 4  # elements that must agree with old memory before it is called that


def cache(replay: NodeReplay) -> Explanation | None:
    """A StreamingCache whose kept frames are not those of the chunks before."""
    if replay.node.op_type != "StreamingCache":
        return None
    source = replay.inputs[0][replay.node.inputs[0]]
    kept = replay.expected[0].size - source.size
    expected = replay.expected.reshape(len(replay.numbers), -1)
    observed = replay.observed.reshape(len(replay.numbers), -1)
    if not np.array_equal(expected[:, kept:], observed[:, kept:]):
        return None  # the new frames are wrong: no matter of state
    heads = {number: expected[i, :kept] for i, number in enumerate(replay.numbers)}
    wrong = int(np.flatnonzero((expected != observed).any(1))[0])
    found = _of_state(replay.numbers[wrong], observed[wrong, :kept], heads, "the cache")
    return replace(found, next_step=KEEP_CACHE if found.cause is Cause.DROPPED else "")


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
    are = "is" if wrong == 1 else "are"
    fact = f"before chunk {chunk}, {wrong} of {observed.size} elements of {what} {are} wrong"
    return Explanation(Cause.DROPPED, (fact,))


def recurrence(replay: NodeReplay) -> Explanation | None:
    """A GRU or LSTM that starts from zero although it is given a state."""
    if replay.node.op_type not in ("GRU", "LSTM"):
        return None
    states = [name for name in replay.node.inputs[5:7] if name in replay.sources]
    if not states:
        return None
    zeroed = tuple(
        {n: np.zeros_like(t) if n in states else t for n, t in inputs.items()}
        for inputs in replay.inputs
    )
    if replay.explained_by(replay.again(inputs=zeroed)):
        fact = f"starting each chunk from zero instead of {states[0]} reproduces {replay.span}"
        return Explanation(Cause.DROPPED, (fact,))
    return None


def graph_input(mismatch: Mismatch, name: str, chunk: int, observed: Array) -> Explanation:
    """A graph input that is not what the host sent for this chunk."""
    sent = [chunk_inputs[name] for chunk_inputs in mismatch.chunks]
    for number, values in enumerate(sent):
        if number != chunk and np.array_equal(values, observed):
            fact = f"the device ran chunk {chunk} on the input {name!r} of chunk {number}"
            return Explanation(Cause.ORDER, (fact,))
    fact = _shifted(sent[chunk], observed) or _bits(sent[chunk], observed)
    return Explanation(Cause.BUFFER, (f"graph input {name!r} {fact}",))


def _bytes(tensor: Array) -> Array:
    raw: Array = np.ascontiguousarray(tensor).view(np.uint8).reshape(-1)
    return raw


def _wrong_bits(sent: Array, received: Array) -> int:
    """Bits in which two tensors of one shape differ."""
    return int(np.bitwise_count(_bytes(sent) ^ _bytes(received)).sum())


def _bits(sent: Array, received: Array) -> str:
    wrong = np.flatnonzero(_bytes(sent) != _bytes(received))
    bits = counted(_wrong_bits(sent, received), "wrong bit")
    where = f"bytes {wrong[0]} to {wrong[-1]}" if len(wrong) > 1 else f"byte {wrong[0]}"
    return f"has {bits} in {len(wrong)} of {sent.nbytes} bytes ({where})"


def _shifted(sent: Array, received: Array) -> str | None:
    """Whether bytes were lost or doubled on the way; what follows is then the same, displaced."""
    a, b = _bytes(sent), _bytes(received)
    start = int(np.argmax(a != b))
    for by in range(1, min(MAX_LOST_BYTES, a.size - start - MIN_OLD) + 1):
        if np.array_equal(a[start + by :], b[start:-by]):
            return f"lost {counted(by, 'byte')} at byte {start}"
        if np.array_equal(a[start:-by], b[start + by :]):
            return f"has {counted(by, 'byte')} too many at byte {start}"
    return None


def left_over(replay: NodeReplay) -> Explanation | None:
    """What differs in a node's output is what it held after the step before."""
    wrong = _wrong(replay)[0]
    before = replay.observed[wrong - 1] if wrong else None
    return _held_before(replay.expected[wrong], replay.observed[wrong], before)


def _held_before(expected: Array, observed: Array, before: Array | None) -> Explanation | None:
    differs = expected != observed
    count = int(differs.sum())
    if before is None or count < min(MIN_OLD, expected.size):
        return None
    if not np.array_equal(observed[differs], before[differs]):
        return None
    fact = f"all {count} wrong elements are what the tensor held after the step before"
    return Explanation(Cause.UNWRITTEN, (fact,))


def filled(replay: NodeReplay) -> Explanation | None:
    """What differs in a node's output is one byte all over."""
    wrong = _wrong(replay)[0]
    return _one_byte(replay.expected[wrong], replay.observed[wrong])


def _one_byte(expected: Array, observed: Array) -> Explanation | None:
    differs = expected != observed
    count = int(differs.sum())
    pattern = np.unique(_bytes(observed[differs]))
    if len(pattern) != 1 or count < min(MIN_OLD, expected.size):
        return None
    fact = f"all {count} wrong elements are filled with byte 0x{int(pattern[0]):02x}"
    return Explanation(Cause.UNWRITTEN, (fact,))


def output_buffer(replay: NodeReplay) -> Explanation | None:
    """A graph output that is the right one with a few bits or bytes damaged, at one step."""
    if replay.output not in {info.name for info in replay.mismatch.graph.outputs}:
        return None
    wrong = _wrong(replay)
    expected, observed = replay.expected[wrong[0]], replay.observed[wrong[0]]
    if len(wrong) > 1 or not is_damage(expected, observed):
        return None
    return damaged_output(expected, observed, None, replay.output)


def damaged_output(
    expected: Array, observed: Array, before: Array | None, name: str
) -> Explanation:
    """An output that is wrong among right ones; *before* is what it was in the step before."""
    old = _held_before(expected, observed, before) or _one_byte(expected, observed)
    if old is not None:
        return old
    fact = _shifted(expected, observed) or _bits(expected, observed)
    return Explanation(Cause.BUFFER, (f"graph output {name!r} {fact}",))


def is_damage(expected: Array, observed: Array) -> bool:
    """Whether few bits differ, or bytes are displaced: other numbers differ in many."""
    return _wrong_bits(expected, observed) <= FEW_BITS or _shifted(expected, observed) is not None


def _wrong(replay: NodeReplay) -> list[int]:
    """Indices of the chunks in which anything differs, in order."""
    flat = replay.differs.reshape(len(replay.numbers), -1)
    return [int(i) for i in np.flatnonzero(flat.any(1))]
