"""From a comparison that failed to its diagnosis: collects what is known, and asks the device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.compare import EXACT, StreamVerdict, Tolerance
from espdl_hil.diagnosis import Cause, Diagnosis, diagnose
from espdl_hil.diagnosis.mismatch import Mismatch, Offline
from espdl_hil.errors import DeviceError
from espdl_hil.proof.probe import DeviceProbe, canary_remarks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from espdl_hil.compare import Tensors
    from espdl_hil.device.model import Model
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.espdl import Graph
    from espdl_hil.proof.case import Case
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
    """Look for the cause on the device and on the host.

    Args:
        mismatch: What differs.
        loaded: Enters to the same artifact, freshly loaded on the device, its state bound; None if
            the device is gone.

    Returns:
        The diagnosis; of the outputs alone if the device fails while it is looked into.
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
