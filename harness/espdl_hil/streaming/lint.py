"""Every finding about a model: can it stream, and is this export of it right?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError
from espdl_hil.streaming import rules
from espdl_hil.streaming.analysis import analyze
from espdl_hil.streaming.clock import Clock
from espdl_hil.streaming.conformance import check_conformance
from espdl_hil.streaming.findings import Finding, Severity, find
from espdl_hil.streaming.graph import from_espdl
from espdl_hil.streaming.reconstruct import reconstruct_offline
from espdl_hil.streaming.rules import finding_of
from espdl_hil.streaming.state import find_state
from espdl_hil.streaming.timing import Flow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl import Graph
    from espdl_hil.streaming.analysis import Analysis
    from espdl_hil.streaming.graph import NeutralGraph

_ORDER = (Severity.ERROR, Severity.WARNING, Severity.NOTE)
_RECONSTRUCTED = frozenset(  # what a reconstructed offline model says nothing about
    rule.id
    for rule in (
        rules.NONCAUSAL,
        rules.FOLDED,
        rules.ABSOLUTE,
        rules.SKEWED,
        rules.REWIRED,
        rules.COLD_HISTORY,
        rules.UNRUNNABLE,
    )
)


def lint(
    streaming: Graph,
    offline: Graph | None = None,
    *,
    frame_axes: Mapping[str, int] | None = None,
    state: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Find what is wrong with a streaming file, whoever made it.

    Args:
        streaming: The streaming file.
        offline: The offline file of the same calibration. Without it every window is taken for
            causal, and padding, latency and constants show only as far as the file contradicts
            itself.
        frame_axes: Time axis of each graph input that has one, in the file's layout; found
            from the lengths that differ if it is not given, else axis 1 of every input that
            no recurrent state feeds.
        state: Recurrent state: graph input to the graph output that feeds it; found from
            the wiring of GRU and LSTM nodes if it is not given.

    Returns:
        Findings, errors first; empty if the stream equals the offline model.

    Raises:
        ConfigError: the two files do not belong together.
    """
    graph = from_espdl(streaming)
    state = find_state(graph) if state is None else state
    if frame_axes is None:
        frame_axes = (
            find_axes(streaming, offline)
            if offline
            else dict.fromkeys((name for name in graph.inputs if name not in state), 1)
        )
    lengths = {info.name: info.shape for info in streaming.inputs}
    chunks = {name: lengths[name][axis] for name, axis in frame_axes.items()}
    clock = Clock.of(frame_axes, chunks, state)
    if offline is None:
        return _sorted(_lint_alone(graph, clock) + _test_values(streaming))
    _require_offline(offline)
    return check_export(analyze(from_espdl(offline), clock), streaming)


def check_export(analysis: Analysis, streaming: Graph) -> list[Finding]:
    """Find what is wrong with a streaming file, given the analysis of its offline graph.

    Args:
        analysis: Of the offline file or of the exporter's own graph, for the file's chunk.
        streaming: The streaming file.

    Returns:
        Findings, errors first; empty if the stream equals the offline model.
    """
    findings = _conformance(analysis, from_espdl(streaming))
    return _sorted(findings + _notes(analysis) + _test_values(streaming))


def has_caches(graph: Graph) -> bool:
    """Whether a file is a streaming file, as far as that shows."""
    return any(node.op_type == "StreamingCache" for node in graph.nodes)


def _require_offline(graph: Graph) -> None:
    if has_caches(graph):
        raise ConfigError(
            f"{graph.path} has streaming caches, expected the offline file",
            hint="lint STREAMING --offline OFFLINE",
        )


def _conformance(analysis: Analysis, graph: NeutralGraph) -> list[Finding]:
    refused = [finding_of(refusal) for refusal in analysis.refusals]
    return refused + check_conformance(analysis, graph)


def _lint_alone(graph: NeutralGraph, clock: Clock) -> list[Finding]:
    """Check a file against the offline model that it seems to come from."""
    analysis = analyze(reconstruct_offline(graph, clock), clock)
    picks = {node.name for node in graph.nodes if node.op_type in ("Slice", "Gather")}
    return [
        finding
        for finding in _conformance(analysis, graph)
        if finding.rule not in _RECONSTRUCTED
        and not (finding.rule == rules.OFFLINE_CONSTANT.id and finding.node in picks)
    ]


def lint_offline(
    offline: Graph,
    frame_axes: Mapping[str, int],
    chunk_frames: Mapping[str, int] | int,
    state: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Find why an offline file cannot stream, before anything is converted.

    Args:
        offline: The offline file.
        frame_axes: Time axis of each graph input that has one, in the file's layout.
        chunk_frames: Frames of each of these inputs in one chunk, or one number for all.
        state: As in ``lint``.

    Returns:
        Findings, errors first.

    Raises:
        ConfigError: an input or output that the arguments name is not there.
    """
    _require_offline(offline)
    graph = from_espdl(offline)
    state = find_state(graph) if state is None else state
    analysis = analyze(graph, Clock.of(frame_axes, chunk_frames, state))
    return _sorted([finding_of(refusal) for refusal in analysis.refusals] + _notes(analysis))


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: _ORDER.index(finding.severity))


def find_axes(streaming: Graph, offline: Graph) -> dict[str, int]:
    """The axis of each input along which two files of one model differ.

    Raises:
        ConfigError: none differs, or an input differs in more than its length.
    """
    before = {info.name: info.shape for info in offline.inputs}
    axes = {}
    for info in streaming.inputs:
        if info.name not in before:
            raise ConfigError(
                f"{streaming.path} has an input {info.name!r} that {offline.path} lacks",
                hint="give a streaming file and the offline file of the same model",
            )
        shape = before[info.name]
        changed = [i for i, size in enumerate(info.shape) if size != shape[i]]
        if len(changed) > 1 or len(shape) != len(info.shape):
            raise ConfigError(f"input {info.name!r} is {shape} offline and {info.shape} streaming")
        if changed:
            axes[info.name] = changed[0]
    if not axes:
        raise ConfigError(
            f"{streaming.path} and {offline.path} take inputs of the same length",
            hint="say which axis is time",
        )
    return axes


def _notes(analysis: Analysis) -> list[Finding]:
    """What to expect of a right conversion."""
    notes = list(analysis.notes)
    pools = any(note.rule == rules.POOL_START.id for note in notes)
    for name in sorted(analysis.graph.outputs):  # exporters keep no order
        timing = analysis.timing[name]
        producer = analysis.graph.producers.get(name)
        if not isinstance(timing, Flow) or producer is None:
            continue
        if timing.delay > 0:
            message = f"output {name} lags by {timing.delay} frame(s)"
            notes.append(find(rules.LATENCY, producer.name, message))
        if timing.warmup > 0 and not pools:
            message = f"the first {timing.warmup} frame(s) of output {name} may differ"
            notes.append(find(rules.WARMUP, producer.name, message, f"first {timing.warmup}"))
    return notes


def _test_values(streaming: Graph) -> list[Finding]:
    declared = {info.name: info.shape for info in streaming.inputs}
    return [
        find(
            rules.TEST_VALUES,
            "",
            f"input {name} takes {declared[name]}, its test value is {value.shape}",
        )
        for name, value in streaming.test_inputs.items()
        if name in declared and value.shape != declared[name]
    ]
