"""From a verdict that did not pass to its diagnosis and repro bundle."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espdl_hil import interpreter
from espdl_hil.compare import EXACT, StreamVerdict
from espdl_hil.diagnosis import Diagnosis, diagnose
from espdl_hil.diagnosis.mismatch import Case, Facts, Offline
from espdl_hil.errors import HarnessError
from espdl_hil.proof.package import offline_name, streaming_name
from espdl_hil.proof.probe import DeviceProbe, canary_remark
from espdl_hil.report import Repro, write_repro

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from espdl_hil.proof.hil import Hil

    Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Mismatch:
    """One comparison that failed, and what it was made of.

    Attributes:
        what: Which comparison, in words.
        streaming: Whether the streaming model ran, chunk by chunk, or the offline one, whole.
        chunks: What each step was given.
        expected: What each step should have given.
        observed: What each step gave.
        verdict: The comparison.
        against_offline: Whether the offline model says what is expected, or the interpreter.
    """

    what: str
    streaming: bool
    chunks: Sequence[Tensors]
    expected: Sequence[Tensors]
    observed: Sequence[Tensors]
    verdict: StreamVerdict
    against_offline: bool = False


def diagnose_mismatch(hil: Hil, mismatch: Mismatch) -> Diagnosis | None:
    """Look for the cause on the device and on the host.

    Returns:
        The diagnosis; None when the device failed while it was looked into.
    """
    try:
        with _probing(hil, mismatch) as probe:
            return diagnose(_case(hil, mismatch, probe))
    except HarnessError:
        return None


def bundle(hil: Hil, mismatch: Mismatch, diagnosis: Diagnosis | None, folder: Path) -> Path:
    """Write everything that the mismatch needs to be seen again.

    Args:
        hil: The case.
        mismatch: What differs.
        diagnosis: What was found.
        folder: Where bundles go.

    Returns:
        Path of the bundle.
    """
    expected, case = hil.expected, hil.case
    files = expected.artifacts
    path = files.streaming[case.chunk_frames] if mismatch.streaming else files.offline
    compared = mismatch.against_offline
    repro = Repro(
        id=case.id,
        target=case.target,
        model=streaming_name(case) if mismatch.streaming else offline_name(case),
        device_kind=hil.dut.info.kind,
        artifacts={file.name: file.read_bytes() for file in {path, files.offline}},
        main=path.name,
        stimulus=mismatch.chunks,
        expected=mismatch.expected,
        observed=mismatch.observed,
        frame_axes=expected.frame_axes if compared else hil.axes(mismatch.expected[0]),
        skip_frames=expected.skip_frames if compared else {},
        silent_chunks=sorted(expected.silent_chunks) if compared else (),
        state=expected.plan.state if mismatch.streaming else {},
        tolerance=hil.tolerance,
        versions=hil.versions,
        diagnosis=diagnosis.to_json() if diagnosis else None,
    )
    return write_repro(folder, repro)


@contextlib.contextmanager
def _probing(hil: Hil, mismatch: Mismatch) -> Iterator[DeviceProbe]:
    with hil.loaded(streaming=mismatch.streaming) as model:
        yield DeviceProbe(model, mismatch.chunks)


def _case(hil: Hil, mismatch: Mismatch, probe: DeviceProbe) -> Case:
    expected, case, plan = hil.expected, hil.case, hil.expected.plan
    offline = Offline(
        expected.offline_graph,
        expected.whole,
        plan.total_stride,
        plan.latency_frames,
        plan.warmup_frames,
    )
    return Case(
        model=case.model.name,
        target=case.target,
        bits=case.bits,
        graph=expected.streaming_graph if mismatch.streaming else expected.offline_graph,
        chunks=mismatch.chunks,
        observed=mismatch.observed,
        verdict=mismatch.verdict,
        load=interpreter.load,
        frame_axes=hil.axes(mismatch.expected[0]),
        state=plan.state if mismatch.streaming else {},
        offline=offline if mismatch.against_offline else None,
        tolerance=hil.tolerance if mismatch.against_offline else EXACT,
        probe=probe,
        facts=Facts(unwritten=_unwritten(hil, mismatch), lane_warnings=expected.lane_warnings),
    )


def _unwritten(hil: Hil, mismatch: Mismatch) -> Mapping[int, str]:
    seen = hil.observe()
    steps = seen.stream_steps if mismatch.streaming else [seen.offline_step]
    return {number: remark for number, step in enumerate(steps) if (remark := canary_remark(step))}
