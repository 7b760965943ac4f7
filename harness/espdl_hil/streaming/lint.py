"""Every finding about a model: can it stream, and is this export of it right?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError
from espdl_hil.streaming import rules
from espdl_hil.streaming.conformance import judge
from espdl_hil.streaming.graph import from_espdl
from espdl_hil.streaming.planner import analyze, make_clock
from espdl_hil.streaming.reconstruct import presume_offline
from espdl_hil.streaming.rules import RULES, Finding, Severity, find
from espdl_hil.streaming.state import find_state
from espdl_hil.streaming.timing import Flow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.errors import StreamingError
    from espdl_hil.espdl import Graph
    from espdl_hil.streaming.analysis import Clock, Walk
    from espdl_hil.streaming.graph import NeutralGraph

_ORDER = (Severity.ERROR, Severity.WARNING, Severity.NOTE)
_PRESUMED = frozenset(  # what a presumed offline model says nothing about
    rule.id
    for rule in (
        rules.NONCAUSAL,
        rules.FOLDED,
        rules.ABSOLUTE,
        rules.SKEWED,
        rules.REWIRED,
        rules.COLD_HISTORY,
    )
)


def lint(
    streaming: Graph,
    offline: Graph | None = None,
    *,
    frame_axes: Mapping[str, int] | None = None,
    state: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Judge a streaming file, whoever made it.

    Args:
        streaming: The streaming file.
        offline: The offline file of the same calibration. Without it every window is taken for
            causal, and padding, latency and constants can only be judged as far as the file
            contradicts itself.
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
    clock = make_clock(frame_axes, chunks, state)
    if offline is None:
        findings = _lint_alone(graph, clock)
    else:
        _require_offline(offline)
        walk, refusals = analyze(from_espdl(offline), clock)
        findings = _judged(walk, refusals, graph) + _notes(walk)
    return _sorted(findings + _test_values(streaming))


def has_caches(graph: Graph) -> bool:
    """Whether a file is a streaming file, as far as that shows."""
    return any(node.op_type == "StreamingCache" for node in graph.nodes)


def _require_offline(graph: Graph) -> None:
    if has_caches(graph):
        raise ConfigError(
            f"{graph.path} has streaming caches, expected the offline file",
            hint="lint STREAMING --offline OFFLINE",
        )


def _judged(walk: Walk, refusals: list[StreamingError], graph: NeutralGraph) -> list[Finding]:
    findings = _refused(refusals)
    return findings + judge(walk, graph, frozenset(finding.node for finding in findings))


def _lint_alone(graph: NeutralGraph, clock: Clock) -> list[Finding]:
    """Judge a file by the offline model that it seems to come from."""
    walk, refusals = analyze(presume_offline(graph, clock), clock)
    picks = {node.name for node in graph.nodes if node.op_type in ("Slice", "Gather")}
    return [
        finding
        for finding in _judged(walk, refusals, graph)
        if finding.rule not in _PRESUMED
        and not (finding.rule == rules.OFFLINE_CONSTANT.id and finding.node in picks)
    ]


def lint_offline(
    offline: Graph,
    frame_axes: Mapping[str, int],
    chunk_frames: Mapping[str, int] | int,
    state: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Judge whether an offline file can stream, before anything is converted.

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
    walk, refusals = analyze(graph, make_clock(frame_axes, chunk_frames, state))
    return _sorted(_refused(refusals) + _notes(walk))


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


def _refused(refusals: list[StreamingError]) -> list[Finding]:
    findings = []
    for refusal in refusals:
        rule = RULES[refusal.rule]
        message = refusal.message.split(f"{rule.title}: ", 1)[-1]
        findings.append(find(rule, refusal.node, message, "all"))
    return findings


def _notes(walk: Walk) -> list[Finding]:
    """What to expect of a right conversion."""
    notes = list(walk.notes)
    pools = any(note.rule == rules.POOL_START.id for note in notes)
    for name in walk.graph.outputs:
        timing = walk.timing[name]
        producer = walk.graph.producers.get(name)
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
