"""Why two runs differ that should have been equal: a cause, a next step, a repro bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.compare import EXACT, Outcome, StreamVerdict, Tolerance
from espdl_hil.diagnosis import Cause, Diagnosis, diagnose
from espdl_hil.diagnosis.cause import Explanation, Place
from espdl_hil.diagnosis.deviation import known_deviations
from espdl_hil.diagnosis.mismatch import Mismatch, Offline
from espdl_hil.errors import DeviceError
from espdl_hil.proof.comparison import aligned_verdict
from espdl_hil.proof.package import offline_name, streaming_name
from espdl_hil.proof.probe import DeviceProbe, canary_remarks
from espdl_hil.report import Repro, write_repro

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from espdl_hil.compare import Tensors
    from espdl_hil.device.model import Model
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.espdl import Graph
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.comparison import Comparison
    from espdl_hil.proof.expected import Expected
    from espdl_hil.proof.observed import Observer
    from espdl_hil.streaming import StreamingPlan


def mismatch_of(
    case: Case,
    plan: StreamingPlan,
    verdict: StreamVerdict,
    *,
    graph: Graph,
    streaming: bool,
    chunks: Sequence[Tensors],
    observed: Sequence[Tensors],
    steps: Sequence[StepResult] = (),
    tolerance: Tolerance = EXACT,
    offline: tuple[Graph, Tensors] | None = None,
) -> Mismatch:
    """Collect what a diagnosis needs.

    Args:
        case: Which model, on which target, at which width.
        plan: How the streaming file relates to the offline one.
        verdict: The comparison that failed.
        graph: What ran: the streaming file or the offline file.
        streaming: Whether it was the streaming file, whose state is fed back.
        chunks: What each step was to be given, in order; without state inputs.
        observed: The outputs of each step as they were compared.
        steps: What the device said of the steps, in the same order.
        tolerance: Of the comparison.
        offline: Offline file and whole stimulus, if the offline model says what is expected;
            None if the interpreter's run of the same file does.
    """
    axes = {a.output: a.frame_axis for a in plan.alignments}
    outputs = [info.name for info in graph.outputs]
    return Mismatch(
        model=case.model.name,
        target=case.target,
        bits=case.bits,
        graph=graph,
        chunks=chunks,
        observed=observed,
        verdict=verdict,
        frame_axes={name: axes[name] if axes.get(name, -1) >= 0 else None for name in outputs},
        tolerance=tolerance,
        state=plan.state if streaming else {},
        offline=Offline(*offline, plan.latency_frames, plan.warmup_frames) if offline else None,
        unwritten=canary_remarks(steps),
        vector_unit={
            number: Cause.MISALIGNED if found.misaligned else Cause.ROUNDING_LOST
            for number, step in enumerate(steps)
            if (found := step.vector_unit) is not None and found.late
        },
    )


def explain(mismatch: Mismatch, loaded: AbstractContextManager[Model] | None) -> Diagnosis:
    """Look for the cause on the device and on the host; by outputs alone if the device fails.

    *loaded* enters to the same artifact, freshly loaded on the device, its state bound; None if the
    device is gone.
    """
    if loaded is None:
        return diagnose(mismatch)
    try:
        with loaded as model:
            return diagnose(mismatch, DeviceProbe(model, mismatch.chunks))
    except DeviceError as error:
        found = diagnose(mismatch)
        lost = f"the device failed while it was looked into: {error.message}"
        facts = (*found.explanation.facts, lost)
        return replace(found, explanation=replace(found.explanation, facts=facts))


def diagnose_comparison(
    comparison: Comparison, expected: Expected, observer: Observer
) -> Diagnosis:
    """Look for the cause on the host, and on the device by running the model again."""
    streaming = comparison.streaming
    whole = (expected.offline_graph, expected.whole)
    mismatch = mismatch_of(
        expected.case,
        expected.plan,
        comparison.verdict,
        graph=expected.streaming_graph if streaming else expected.offline_graph,
        streaming=streaming,
        chunks=expected.chunks if streaming else [expected.whole],
        observed=comparison.observed,
        steps=comparison.steps,
        tolerance=comparison.tolerance,
        offline=whole if comparison.against == "offline" else None,
    )
    return explain(mismatch, observer.loaded(streaming=streaming))


def diagnose_chip(comparison: Comparison, expected: Expected) -> Diagnosis | None:
    """Say whether all that differs is predicted of the chip, which takes other kernels for chunks.

    None if an element differs otherwise than predicted; the offline run is right.
    """
    made = expected.chip_made if comparison.against == "offline" else None
    if made is None:
        return None
    wanted, seen = made.allow(comparison.expected), comparison.observed
    if aligned_verdict(expected, wanted, seen, comparison.tolerance).outcome is not Outcome.PASSED:
        return None
    first, node = comparison.verdict.first, made.nodes[0]
    where = Place() if first is None else Place(first.chunk, first.frame, first.channel)
    facts = (
        str(made),
        "the interpreter predicts each of these elements, and the values of all others",
        "with one kernel for all sizes both files give the same",
    )
    step = f"{made.edit}; or chip_rounding='accept': docs/operators.md, Code by size"
    place = replace(where, operator=node.operator, node=node.node)
    return _diagnosed(comparison, expected.case, place, Explanation(Cause.CHIP, facts, step))


def diagnose_emulator(
    comparison: Comparison, expected: Expected, observer: Observer, emulator: str
) -> Diagnosis | None:
    """Say whether all that differs is known of an emulator; both files are run again for that.

    None if nothing emulates the chip (an empty name), a node of either file differs that no known
    deviation covers, or the device is gone.
    """
    case, facts = expected.case, list[str]()
    if not emulator:
        return None
    for streaming in (False, True):
        graph = expected.streaming_graph if streaming else expected.offline_graph
        chunks = expected.chunks if streaming else [expected.whole]
        state = expected.plan.state if streaming else {}
        try:
            with observer.loaded(streaming=streaming) as model:
                probe = DeviceProbe(model, chunks)
                found = known_deviations(emulator, case.target, graph, chunks, state, probe)
        except DeviceError:
            return None
        if found is None:
            return None
        facts += found
    if not facts:
        return None
    return _diagnosed(
        comparison, case, Place(), Explanation(Cause.EMULATOR, tuple(dict.fromkeys(facts)))
    )


def _diagnosed(
    comparison: Comparison, case: Case, place: Place, explanation: Explanation
) -> Diagnosis:
    summary = str(comparison.verdict)
    return Diagnosis(case.model.name, case.target, case.bits, summary, place, explanation)


def bundle_comparison(
    comparison: Comparison,
    expected: Expected,
    diagnosis: Diagnosis,
    *,
    folder: Path,
    substrate: str,
    versions: Mapping[str, str],
) -> Path:
    """Write everything that the mismatch needs to be seen again; returns the bundle's path.

    Raises:
        OSError: it cannot be written.
    """
    case, streaming, aligned = expected.case, comparison.streaming, comparison.against == "offline"
    offline = expected.artifacts.offline
    main = expected.streaming_path if streaming else offline
    repro = Repro(
        id=case.id,
        target=case.target,
        model=streaming_name(case) if streaming else offline_name(case),
        substrate=substrate,
        artifacts={file.name: file.read_bytes() for file in {main, offline}},
        main=main.name,
        stimulus=expected.chunks if streaming else [expected.whole],
        expected=comparison.expected,
        observed=comparison.observed,
        frame_axes=expected.frame_axes if aligned else expected.axes(comparison.expected[0]),
        skip_frames=expected.skip_frames if aligned else {},
        silent_chunks=sorted(expected.silent_chunks) if aligned else (),
        state=expected.plan.state if streaming else {},
        tolerance=comparison.tolerance,
        versions=versions,
        diagnosis=diagnosis.to_json(),
    )
    return write_repro(folder, repro)
