"""Why a case failed: device, interpreter and artifacts put before ``compare.diagnose``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness import interpreter
from harness.compare import diagnose
from harness.compare.case import Case as Evidence
from harness.compare.case import Facts, Finding, Look, Offline
from harness.espdl import load_graph
from harness.report import Repro, write_repro

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from harness.compare import Diagnosis, StreamVerdict
    from harness.device.model import Model
    from harness.device.tensors import Unwritten
    from harness.espdl import Graph
    from harness.plugin.expected import Expected
    from harness.streaming import StreamingPlan
    from harness.wire.messages import WatchMode

    Tensors = Mapping[str, NDArray[Any]]

WATCHES = 64  # tensors looked at in one run of the stream; fewer if the device keeps fewer


class DeviceProbe:
    """Looks into a streaming model on a device, by running its stream again with watches.

    Args:
        open_model: Loads the model, its state bound and cold, and unloads it afterwards.
        chunks: Inputs of each step.
    """

    def __init__(
        self, open_model: Callable[[], AbstractContextManager[Model]], chunks: Sequence[Tensors]
    ) -> None:
        self._open_model = open_model
        self._chunks = chunks

    def digests(self, names: Sequence[str], chunks: int) -> list[Look]:
        """CRC-32 of tensors at each of the first chunks; as many runs as the watches take."""
        from harness.wire.messages import WatchMode

        return self._look(names, chunks, WatchMode.DIGEST)

    def values(self, names: Sequence[str], chunks: int) -> list[Look]:
        """The tensors themselves."""
        from harness.wire.messages import WatchMode

        return self._look(names, chunks, WatchMode.VALUE)

    def _look(self, names: Sequence[str], chunks: int, mode: WatchMode) -> list[Look]:
        with self._open_model() as model:
            described = model.describe()
            known = {spec.name for spec in (*described.inputs, *described.outputs)}
            wanted = [name for name in names if name in known | set(model.intermediates())]
            seen: list[dict[str, Any]] = [{} for _ in range(chunks)]
            while True:
                count = _watch(model, wanted, mode)
                steps = model.stream(self._chunks[:chunks], reset=True)
                for tensors, step in zip(seen, steps, strict=True):
                    tensors |= step.watched
                wanted = wanted[count:]
                if not wanted:
                    break
        return [
            Look(step.outputs, tensors, describe_unwritten(step.unwritten))
            for step, tensors in zip(steps, seen, strict=True)
        ]


def _watch(model: Model, names: Sequence[str], mode: WatchMode) -> int:
    """Watch as many of *names* as the device takes, from the first; returns how many."""
    from harness.device.errors import RequestError

    count = min(WATCHES, len(names))
    while True:
        try:
            model.watch(names[:count], mode)
            return count
        except RequestError:
            if count <= 1:
                raise
            count //= 2


def describe_unwritten(unwritten: Unwritten | None) -> str:
    """What a step left unwritten, in words; empty when nothing."""
    if unwritten is None:
        return ""
    return f"{unwritten.nbytes} bytes of {unwritten.output} from byte {unwritten.offset}"


def diagnose_case(
    expected: Expected,
    verdict: StreamVerdict,
    stream: Sequence[Tensors],
    *,
    probe: DeviceProbe | None,
    facts: Facts | None = None,
) -> Diagnosis:
    """Say why the stream of a case is not what it should be.

    Args:
        expected: The case with its artifacts and stimulus.
        verdict: The judgement that failed.
        stream: What the device gave, one entry a chunk, every graph output.
        probe: The device; None if it is gone.
        facts: What is known beforehand, if anything; lint's findings are added.

    Raises:
        HarnessError: the device failed while it was looked into.
    """
    artifacts, plan, case = expected.artifacts, expected.plan, expected.case
    graph, whole = load_graph(_streaming(expected)), load_graph(artifacts.offline)
    offline = Offline(
        whole,
        expected.whole,
        total_stride=plan.total_stride,
        latency_frames=plan.latency_frames,
        warmup_frames=plan.warmup_frames,
    )
    return diagnose(
        Evidence(
            model=case.model.name,
            target=case.target,
            bits=case.bits,
            graph=graph,
            chunks=expected.chunks,
            observed=stream,
            verdict=verdict,
            load=interpreter.load,
            frame_axes=expected.frame_axes,
            state=plan.state,
            offline=offline,
            probe=probe,
            facts=replace(facts or Facts(), findings=lint_errors(graph, whole, plan)),
        )
    )


def lint_errors(streaming: Graph, offline: Graph, plan: StreamingPlan) -> tuple[Finding, ...]:
    """What lint says of an export, as a diagnosis takes it; warnings explain no difference."""
    from harness.streaming import Severity, lint

    findings = lint(streaming, offline, frame_axes=plan.frame_axes, state=plan.state)
    return tuple(
        Finding(found.rule, found.node, found.message, found.edit)
        for found in findings
        if found.severity is Severity.ERROR
    )


def bundle_case(
    directory: Path,
    expected: Expected,
    stream: Sequence[Tensors],
    *,
    device_kind: str,
    versions: Mapping[str, str],
    diagnosis: Diagnosis | None,
) -> Path:
    """Write the repro bundle of a case whose stream is not what the interpreter gives.

    Args:
        directory: ``hil-report/repro``.
        expected: The case with its artifacts and stimulus.
        stream: What the device gave.
        device_kind: Where, ``simulated`` or ``serial``.
        versions: Component to version.
        diagnosis: What was found; None without.

    Returns:
        The bundle; ``python -m harness replay`` runs it again.
    """
    case, artifacts = expected.case, expected.artifacts
    files = {path.name: path.read_bytes() for path in (artifacts.offline, _streaming(expected))}
    return write_repro(
        directory,
        Repro(
            id=case.id,
            target=case.target,
            model=case.model.name,
            device_kind=device_kind,
            artifacts=files,
            main=_streaming(expected).name,
            stimulus=expected.chunks,
            expected=expected.stream,
            observed=stream,
            frame_axes=expected.frame_axes,
            state=expected.plan.state,
            versions=versions,
            diagnosis=None if diagnosis is None else diagnosis.to_json(),
        ),
    )


def _streaming(expected: Expected) -> Path:
    return expected.artifacts.streaming[expected.case.chunk_frames]
