"""From a stream that went wrong to its cause: locate, then try what would reproduce it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.compare import compare
from espdl_hil.diagnosis import arithmetic
from espdl_hil.diagnosis import state as memory
from espdl_hil.diagnosis import weights as constants
from espdl_hil.diagnosis.accumulator import sums_of
from espdl_hil.diagnosis.cause import Cause, Diagnosis, Explanation, Place, counted
from espdl_hil.diagnosis.export_fault import explain_export
from espdl_hil.diagnosis.first_divergence import Rerun, maker, rerun
from espdl_hil.diagnosis.history import StreamHistory
from espdl_hil.diagnosis.replay import HostRun, agree, crop, same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.compare import Array, Tensors
    from espdl_hil.diagnosis.mismatch import Mismatch, Probe
    from espdl_hil.diagnosis.node_replay import NodeReplay

Found = tuple[Place, Explanation]


def diagnose(mismatch: Mismatch, probe: Probe | None = None) -> Diagnosis:
    """Say why a stream differs from what it should be.

    The device is compared with the interpreter first. If they differ, the first tensor that does is
    found by running the stream again with digests of every tensor, and its node is executed again
    under other arithmetic, constants and states until one reproduces every element observed. If
    the second run is clean, other histories of the stream are tried on the host. If device and
    interpreter agree, the streaming artifact itself is compared with the offline one.

    Args:
        mismatch: The stream, with a verdict that did not pass.
        probe: The device, to look into; None if it is gone.

    Returns:
        The cause, ``UNEXPLAINED`` if nothing reproduces what was observed.

    Raises:
        HarnessError: the device failed while it was looked into, or the interpreter refuses the
            artifact.
    """
    given = mismatch.chunks[: len(mismatch.observed)]  # a stream may have ended early
    mismatch = replace(mismatch, chunks=given)
    traces = HostRun(mismatch.graph, mismatch.target, mismatch.state).trace(given)
    names = [info.name for info in mismatch.graph.outputs]
    outputs = [{name: trace[name] for name in names} for trace in traces]
    pairs = enumerate(zip(outputs, mismatch.observed, strict=False))
    wrong = [number for number, pair in pairs if not agree(*pair)]
    if wrong:
        place, found = _on_device(mismatch, probe, traces, outputs, wrong)
    elif mismatch.offline is not None:
        place, found = explain_export(mismatch, mismatch.offline)
    else:
        fact = "device and interpreter agree in every element"
        place, found = Place(), Explanation(Cause.UNEXPLAINED, (fact,))
    summary = str(mismatch.verdict)
    return Diagnosis(mismatch.model, mismatch.target, mismatch.bits, summary, place, found)


def _on_device(
    mismatch: Mismatch,
    probe: Probe | None,
    traces: Sequence[Tensors],
    outputs: Sequence[Tensors],
    wrong: list[int],
) -> Found:
    """The device does not compute what the interpreter computes."""
    seen = rerun(mismatch, probe, traces) if probe is not None else None
    again = (
        {i: look.unwritten for i, look in enumerate(seen.looks) if look.unwritten} if seen else {}
    )
    remarks = {**mismatch.unwritten, **again}
    flagged = next((number for number in wrong if remarks.get(number)), None)
    if flagged is not None:
        fact = f"the device's canary in chunk {flagged}: {remarks[flagged]}"
        return _output_place(mismatch, outputs, flagged), Explanation(Cause.UNWRITTEN, (fact,))
    disturbed = next((number for number in wrong if number in mismatch.vector_unit), None)
    if disturbed is not None:
        fact = (
            f"after chunk {disturbed} the device found modes of its vector unit changed: other "
            "code used it while the model ran"
        )
        cause = mismatch.vector_unit[disturbed]
        return _output_place(mismatch, outputs, disturbed), Explanation(cause, (fact,))
    if seen is not None and (first := seen.first()) is not None:
        return _in_rerun(mismatch, seen, *first)
    notes = ("the second run was right: the fault is not in artifact or arithmetic",)
    history = StreamHistory(mismatch, outputs)
    found = history.explain(by_elimination=seen is not None)
    facts = (*found.facts, *(notes if seen else ()))
    return _output_place(mismatch, outputs, wrong[0]), replace(found, facts=facts)


def _in_rerun(mismatch: Mismatch, seen: Rerun, chunk: int, name: str) -> Found:
    """Explain the first tensor that the second run shows wrong."""
    if any(info.name == name for info in mismatch.graph.inputs):
        observed = seen.values(name)[chunk]
        place = _place_of(seen.traces[chunk][name], observed, chunk, Place(chunk, tensor=name))
        if name in mismatch.state:
            return place, memory.recurrent_input(name, chunk, observed, seen.traces)
        return place, memory.graph_input(mismatch, name, chunk, observed)
    replay = seen.node_replay(chunk, name)
    found = _node_fault(replay)
    before = seen.count_before(chunk, name)
    are = "is" if before == 1 else "are"
    fact = f"{counted(before, 'tensor')} before it in this chunk {are} right"
    at = replay.numbers.index(chunk)
    node = replay.node
    place = Place.at(mismatch.graph, node, name, chunk)
    place = _place_of(replay.expected[at], replay.observed[at], chunk, place)
    return place, replace(found, facts=(*found.facts, fact))


def _node_fault(replay: NodeReplay) -> Explanation:
    """Try every cause that a node can have, the more specific ones first."""
    found = memory.cache(replay)
    if found is None:
        sums = sums_of(replay)
        found = (
            memory.left_over(replay)
            or arithmetic.rounding(replay, sums)
            or arithmetic.exponent(replay, sums)
            or constants.table(replay)
            or arithmetic.saturation(replay, sums)
            or memory.recurrence(replay)
            or constants.weights(replay, sums)
            or memory.filled(replay)
            or memory.output_buffer(replay)
            or constants.channels(replay, sums)
        )
    if found is not None:
        return found
    count = int(replay.differs.sum())
    fact = (
        f"its inputs are right and {count} of {replay.expected.size} elements are not; no other "
        "rounding, exponent, limit, constant or state reproduces them"
    )
    return Explanation(Cause.UNEXPLAINED, (fact,))


def _output_place(mismatch: Mismatch, expected: Sequence[Tensors], chunk: int) -> Place:
    for name, observed in mismatch.observed[chunk].items():
        values = crop(expected[chunk][name], observed)
        if not same(values, observed):
            node = maker(mismatch.graph, name)
            place = Place.at(mismatch.graph, node, name, chunk)
            axis = mismatch.frame_axes.get(name, 1)
            return _place_of(values, observed, chunk, place, axis)
    return Place(chunk)


def _place_of(
    expected: Array, observed: Array, chunk: int, place: Place, axis: int | None = 1
) -> Place:
    """Complete a place with the frame and channel of the first difference."""
    if expected.shape != observed.shape or expected.ndim < 2:
        return place
    frames = 0 if axis is None else expected.shape[axis]
    found = compare(expected, observed, frame_axis=axis, first_frame=chunk * frames).first
    if found is None:
        return place
    return replace(place, frame=found.frame, channel=found.channel)
