"""Why two runs differ that should have been equal: a cause, a next step, a repro bundle."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.compare import Outcome, compare_streams
from espdl_hil.diagnosis import Diagnosis
from espdl_hil.diagnosis.cause import Cause, Explanation, Place
from espdl_hil.diagnosis.deviation import known_deviations
from espdl_hil.errors import DeviceError
from espdl_hil.proof.explain import explain, mismatch_of
from espdl_hil.proof.package import offline_name, streaming_name
from espdl_hil.proof.probe import DeviceProbe
from espdl_hil.report import Repro, write_repro

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from espdl_hil.proof.comparison import Comparison
    from espdl_hil.proof.expected import Expected
    from espdl_hil.proof.observed import Observer


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

    Args:
        comparison: A stream that differs from the offline run; the offline run is right.
        expected: The case.

    Returns:
        The diagnosis; None if an element differs otherwise than predicted.
    """
    made = expected.chip_made if comparison.against == "offline" else None
    if made is None:
        return None
    again = compare_streams(
        made.allow(comparison.expected),
        comparison.observed,
        comparison.tolerance,
        frame_axes=expected.frame_axes,
        skip_frames=expected.skip_frames,
        silent_chunks=expected.silent_chunks,
    )
    if again.outcome is not Outcome.PASSED:
        return None
    first, node = comparison.verdict.first, made.nodes[0]
    where = Place() if first is None else Place(first.chunk, first.frame, first.channel)
    facts = (
        str(made),
        "the interpreter predicts each of these elements, and the values of all others",
        "with one kernel for all sizes both files give the same",
    )
    step = f"{made.edit}; or chip_rounding='accept': docs/operators.md, Code by size"
    case = expected.case
    return Diagnosis(
        case.model.name,
        case.target,
        case.bits,
        str(comparison.verdict),
        replace(where, operator=node.operator, node=node.node),
        Explanation(Cause.CHIP, facts, step),
    )


def diagnose_emulator(
    comparison: Comparison, expected: Expected, observer: Observer, emulator: str
) -> Diagnosis | None:
    """Say whether all that differs is known of an emulator.

    Args:
        comparison: What differs.
        expected: The case; both its files are run again, and every node of them is judged.
        observer: Runs them.
        emulator: Name and version; empty if nothing emulates the chip.

    Returns:
        The diagnosis; None if a node differs that no known deviation covers, or the device is gone.
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
    explanation = Explanation(Cause.EMULATOR, tuple(dict.fromkeys(facts)))
    summary = str(comparison.verdict)
    return Diagnosis(case.model.name, case.target, case.bits, summary, Place(), explanation)


def bundle_comparison(
    comparison: Comparison,
    expected: Expected,
    diagnosis: Diagnosis,
    *,
    folder: Path,
    substrate: str,
    versions: Mapping[str, str],
) -> Path:
    """Write everything that the mismatch needs to be seen again.

    Args:
        comparison: What differs.
        expected: The case.
        diagnosis: What was found.
        folder: Where bundles go.
        substrate: What the device is made of.
        versions: Component to version.

    Returns:
        Path of the bundle.
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
