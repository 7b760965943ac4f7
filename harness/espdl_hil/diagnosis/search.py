"""From a stream that went wrong to its cause: locate, then try what would reproduce it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.compare.difference import compare
from espdl_hil.diagnosis import arithmetic
from espdl_hil.diagnosis import state as memory
from espdl_hil.diagnosis import weights as constants
from espdl_hil.diagnosis.accumulator import sums_of
from espdl_hil.diagnosis.cause import Cause, Diagnosis, Explanation, Place
from espdl_hil.diagnosis.export_fault import explain_plan
from espdl_hil.diagnosis.first_divergence import Rerun, maker, rerun
from espdl_hil.diagnosis.history import Course
from espdl_hil.diagnosis.replay import Stream, agree, crop, same

if TYPE_CHECKING:
    from collections.abc import Sequence

    from espdl_hil.diagnosis.mismatch import Array, Case, Tensors
    from espdl_hil.diagnosis.node_replay import Suspect

Found = tuple[Place, Explanation]


def diagnose(case: Case) -> Diagnosis:
    """Say why a stream differs from what it should be.

    The device is compared with the interpreter first. If they differ, the first tensor that does is
    found by running the stream again with digests of every tensor, and its node is executed again
    under other arithmetic, constants and states until one reproduces every element observed. If
    the second run is clean, other courses of the stream are tried on the host. If device and
    interpreter agree, the streaming artifact itself is compared with the offline one.

    Args:
        case: The stream, with a verdict that did not pass.

    Returns:
        The cause, ``UNEXPLAINED`` if nothing reproduces what was observed.

    Raises:
        HarnessError: the device failed while it was looked into, or the interpreter refuses the
            artifact.
    """
    case = replace(case, chunks=case.chunks[: len(case.observed)])  # a stream may have ended early
    traces = Stream(case).trace(case.chunks)
    outputs = [{info.name: trace[info.name] for info in case.graph.outputs} for trace in traces]
    wrong = _wrong_chunks(outputs, case.observed)
    if wrong:
        place, found = _on_device(case, traces, outputs, wrong)
    elif case.offline is not None:
        place, found = explain_plan(case)
    else:
        fact = "device and interpreter agree in every element"
        place, found = Place(), Explanation(Cause.UNEXPLAINED, (fact,))
    return Diagnosis(case.model, case.target, case.bits, str(case.verdict), place, found)


def _wrong_chunks(expected: Sequence[Tensors], observed: Sequence[Tensors]) -> list[int]:
    pairs = enumerate(zip(expected, observed, strict=False))
    return [number for number, (ours, theirs) in pairs if not agree(ours, theirs)]


def _on_device(
    case: Case, traces: Sequence[Tensors], outputs: Sequence[Tensors], wrong: list[int]
) -> Found:
    """The device does not compute what the interpreter computes."""
    remarks = dict(case.facts.unwritten)
    if case.probe is not None:
        seen = rerun(case, case.probe, traces, len(case.chunks))
        remarks |= {i: look.unwritten for i, look in enumerate(seen.looks) if look.unwritten}
    flagged = [number for number in wrong if remarks.get(number)]
    if flagged and not case.facts.stale:
        fact = f"the device's canary in chunk {flagged[0]}: {remarks[flagged[0]]}"
        return _output_place(case, outputs, flagged[0]), Explanation(Cause.UNWRITTEN, (fact,))
    if case.probe is not None:
        located = _in_rerun(case, seen, outputs)
        if located is not None:
            return located
    place = _output_place(case, outputs, wrong[0])
    if case.facts.stale:
        return place, _stale(case, ())
    again = "the second run was right: the fault is not in artifact or arithmetic"
    found = Course(case, outputs).explain() or Explanation(Cause.UNEXPLAINED, ())
    notes = (again,) if case.probe is not None else ()
    return place, replace(found, evidence=(*found.evidence, *notes, *_line_noise(case)))


def _line_noise(case: Case) -> tuple[str, ...]:
    count = case.facts.damaged_frames
    return (f"{count} packets of this session arrived damaged",) if count else ()


def _in_rerun(case: Case, seen: Rerun, outputs: Sequence[Tensors]) -> Found | None:
    """Explain what the second run shows; None if it is clean."""
    first = seen.first()
    if first is None:
        return _on_return(case, seen, outputs)
    chunk, name = first
    if any(info.name == name for info in case.graph.inputs):
        return _input_fault(case, seen, chunk, name)
    accused = seen.suspect(chunk, name)
    found = _node_fault(accused)
    if case.facts.stale and found.cause is not Cause.WEIGHTS:
        found = _stale(case, found.evidence)
    fact = f"{seen.count_before(chunk, name)} tensors that run before it are right"
    return _node_place(accused, chunk), replace(found, evidence=(*found.evidence, fact))


def _on_return(case: Case, seen: Rerun, outputs: Sequence[Tensors]) -> Found | None:
    """All is right on the device; None if it is right on the host too."""
    received = [seen.received(number) for number in range(len(seen.looks))]
    wrong = _wrong_chunks(outputs, received)
    if not wrong:
        return None
    chunk = wrong[0]
    expected, observed = outputs[chunk], received[chunk]
    name = next(n for n, values in observed.items() if not same(expected[n], values))
    before = received[chunk - 1][name] if chunk else None
    found = memory.received(expected[name], observed[name], before, name)
    fact = "on the device, every tensor including this output is right"
    place = _output_place(case, outputs, chunk)
    return place, replace(found, evidence=(*found.evidence, fact))


def _input_fault(case: Case, seen: Rerun, chunk: int, name: str) -> Found:
    observed = seen.values(name)[chunk]
    place = _place_of(seen.traces[chunk][name], observed, chunk, Place(chunk, tensor=name))
    if name in case.state:
        return place, memory.recurrent_input(name, chunk, observed, seen.traces)
    return place, memory.graph_input(case, name, chunk, observed)


def _node_fault(accused: Suspect) -> Explanation:
    """Try every cause that a node can have, the more specific ones first."""
    found = memory.cache(accused)
    if found is None:
        sums = sums_of(accused)
        found = (
            memory.node_left_over(accused)
            or arithmetic.rounding(accused, sums)
            or arithmetic.exponent(accused, sums)
            or constants.table(accused)
            or arithmetic.saturation(accused, sums)
            or memory.recurrence(accused)
            or constants.weights(accused, sums)
            or memory.node_filled(accused)
        )
    if found is not None:
        return found
    count = int(accused.differs.sum())
    fact = (
        f"its inputs are right and {count} of {accused.expected.size} elements are not; no other "
        "rounding, exponent, limit, constant or state reproduces them"
    )
    return Explanation(Cause.UNEXPLAINED, (fact,))


def _stale(case: Case, evidence: tuple[str, ...]) -> Explanation:
    facts = case.facts
    fact = (
        f"the device runs a model with hash {facts.observed_sha256[:16]}, "
        f"this test flashed {facts.expected_sha256[:16]}"
    )
    return Explanation(Cause.STALE, (fact, *evidence))


def _node_place(accused: Suspect, chunk: int) -> Place:
    at = accused.numbers.index(chunk)
    node = accused.node
    place = Place(chunk, None, None, node.op_type, node.name, accused.output)
    return _place_of(accused.expected[at], accused.observed[at], chunk, place)


def _output_place(case: Case, expected: Sequence[Tensors], chunk: int) -> Place:
    for name, observed in case.observed[chunk].items():
        values = crop(expected[chunk][name], observed)
        if not same(values, observed):
            node = maker(case.graph, name)
            place = Place(chunk, None, None, node.op_type, node.name, name)
            return _place_of(values, observed, chunk, place, case.frame_axes.get(name, 1))
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
