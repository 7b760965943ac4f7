"""From a comparison that did not pass to its diagnosis, on the device and on the host."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from espdl_hil import interpreter
from espdl_hil.compare import EXACT
from espdl_hil.diagnosis import Diagnosis, diagnose
from espdl_hil.diagnosis.mismatch import Case as Mismatch
from espdl_hil.diagnosis.mismatch import Facts, Offline
from espdl_hil.errors import DeviceError, HarnessError
from espdl_hil.proof.probe import DeviceProbe, canary_remark

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from espdl_hil.compare import StreamVerdict, Tolerance
    from espdl_hil.device.model import Model
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.espdl import Graph
    from espdl_hil.proof.case import Case
    from espdl_hil.streaming import StreamingPlan

    Tensors = Any


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
    """Gather what a diagnosis is made from."""
    axes = {a.output: a.frame_axis if a.frame_axis >= 0 else None for a in plan.alignments}
    whole = offline and Offline(
        *offline, plan.total_stride, plan.latency_frames, plan.warmup_frames
    )
    remarks = {n: remark for n, step in enumerate(steps) if (remark := canary_remark(step))}
    return Mismatch(
        model=case.model.name,
        target=case.target,
        bits=case.bits,
        graph=graph,
        chunks=chunks,
        observed=observed,
        verdict=verdict,
        load=interpreter.load,
        frame_axes={name: axes[name] for name in (observed[0] if observed else axes)},
        state=plan.state if streaming else {},
        offline=whole,
        tolerance=tolerance if offline else EXACT,
        facts=Facts(unwritten=remarks),
    )


def explain(mismatch: Mismatch, loaded: AbstractContextManager[Model] | None) -> Diagnosis | None:
    """Look for the cause; None if the device fails while it is looked into."""
    from dataclasses import replace

    try:
        with loaded or contextlib.nullcontext() as model:
            probe = DeviceProbe(model, mismatch.chunks) if model else None
            return diagnose(replace(mismatch, probe=probe))
    except (DeviceError, HarnessError):
        return None
