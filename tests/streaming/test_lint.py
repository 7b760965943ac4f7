"""Lint as a whole: what it takes, how it orders, how it reads, how long it needs."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import numpy as np
import pytest
from export_bench import Request

from espdl_hil.errors import ConfigError
from espdl_hil.espdl import Node, Tensor, TensorInfo, load_graph
from espdl_hil.streaming import Severity, lint, lint_offline
from espdl_hil.streaming.examples import EXAMPLES

FRAMES = [[1, 4, 24]]


def rules_of(findings):
    return [finding.rule for finding in findings]


@pytest.fixture
def files(export):
    """Streaming (by the exporter's own conversion) and offline graph of a network."""

    def make(network, chunk=4, shapes=None, axes=None, **options):
        shapes, axes = shapes or FRAMES, axes or [2]
        exported = export(Request(network, shapes, axes, auto=[chunk], **options))
        return load_graph(exported.auto[chunk]), load_graph(exported.offline)

    return make


def test_a_finding_reads_as_one_line(files):
    (finding,) = lint(*files("Residual"))

    assert str(finding) == (
        "S202 error /Add: shared cache: Add /Add meets tensors of 4, 6 frames [all]"
    )
    assert 'streaming="plan"' in finding.edit


def test_errors_come_first(files):
    severities = [finding.severity for finding in lint(*files("UncountedAverage"))]

    assert severities == sorted(severities, key=list(Severity).index)
    assert Severity.NOTE in severities
    assert Severity.ERROR in severities


def test_one_defect_gives_one_finding(files):
    """Two convolutions share one cache; what adds them up is not named again."""
    (finding,) = lint(*files("TwoKernels"))

    assert (finding.rule, finding.node) == ("S203", "/five/Conv")


@pytest.mark.parametrize(
    ("network", "rule", "node"),
    [
        ("Residual", "S202", "/Add"),
        ("TwoKernels", "S203", "/five/Conv"),
        ("PoolBehindPad", "S206", "/Pad"),
        ("Transposed", "S207", "PPQ_Operation_0"),
    ],
)
def test_a_streaming_file_alone_shows_what_contradicts_itself(files, network, rule, node):
    streaming, _ = files(network)

    assert (rule, node) in [(finding.rule, finding.node) for finding in lint(streaming)]


@pytest.mark.parametrize("network", ["Plain", "Upsampled"])
def test_a_right_streaming_file_alone_is_left_in_peace(files, network):
    assert lint(files(network)[0]) == []


@pytest.mark.parametrize("network", ["Residual", "Chomp", "Transposed", "ManyOutputs", "LastFrame"])
def test_a_planned_file_alone_is_left_in_peace(export, network):
    exported = export(Request(network, FRAMES, [2], [4]))

    assert lint(load_graph(exported.streaming[4])) == []


def test_an_offline_file_alone_is_asked_whether_it_can_stream(files):
    _, offline = files("Symmetric")
    (name,) = (info.name for info in offline.inputs)

    findings = lint_offline(offline, {name: 1}, 4)

    assert [(f.rule, f.node) for f in findings] == [("S105", "/conv/Conv")]


def test_every_refusal_of_a_model_is_found_at_once(files):
    _, offline = files("MeanOverTime", chunk=4)
    _, strided = files("Strided", chunk=4)
    (name,) = (info.name for info in strided.inputs)

    assert rules_of(lint_offline(offline, {offline.inputs[0].name: 1}, 4)) == ["S101"]
    assert rules_of(lint_offline(strided, {name: 1}, 3)) == ["S120"]


def test_state_is_found_from_the_wiring_unless_it_is_given(files):
    shapes, axes = [[1, 4, 24], [1, 1, 8]], [2, None]
    streaming, offline = files("Recurrent", shapes=shapes, axes=axes, state=[(1, 1)])

    assert rules_of(lint(streaming, offline)) == []
    assert rules_of(lint(streaming, offline, state={})) == ["S130"]


def test_files_of_different_models_are_a_users_mistake(files):
    streaming, _ = files("Recurrent", shapes=[[1, 4, 24], [1, 1, 8]], axes=[2, None])
    _, other = files("Residual")

    with pytest.raises(ConfigError, match=r"has an input '.*' that .* lacks"):
        lint(streaming, other)


def test_a_streaming_file_is_no_offline_file(files):
    streaming, offline = files("Plain")

    with pytest.raises(ConfigError, match="has streaming caches, expected the offline file"):
        lint(offline, streaming)
    with pytest.raises(ConfigError, match="has streaming caches, expected the offline file"):
        lint_offline(streaming, {streaming.inputs[0].name: 1}, 2)


def test_files_of_one_length_do_not_show_the_time_axis(files):
    _, offline = files("Residual")

    with pytest.raises(ConfigError, match="take inputs of the same length"):
        lint(offline, offline)
    assert rules_of(lint(offline, offline, frame_axes={offline.inputs[0].name: 1})) == ["S206"]


def test_files_that_differ_in_more_than_length(files):
    streaming, offline = files("Residual")
    wrong = replace(offline.inputs[0], shape=(1, 24, 5))

    with pytest.raises(ConfigError, match=r"is \(1, 24, 5\) offline and \(1, 4, 4\) streaming"):
        lint(streaming, replace(offline, inputs=(wrong,)))


def test_a_node_that_only_the_streaming_file_has(files):
    streaming, offline = files("Plain")
    extra = replace(streaming.nodes[-1], name="extra", op_type="TopK")
    extra = replace(extra, inputs=streaming.nodes[-1].outputs, outputs=("extra.0",))

    findings = lint(replace(streaming, nodes=(*streaming.nodes, extra)), offline)

    assert [(f.rule, f.node) for f in findings] == [("S213", "extra")]


def rewired(graph, removed):
    """A graph without some nodes; what read them reads what they read."""
    gone = {node.outputs[0]: node.inputs[0] for node in graph.nodes if node.name in removed}
    nodes = []
    for node in graph.nodes:
        if node.name not in removed:
            inputs = []
            for name in node.inputs:
                while name in gone:
                    name = gone[name]
                inputs.append(name)
            nodes.append(replace(node, inputs=tuple(inputs)))
    return replace(graph, nodes=tuple(nodes))


def test_branches_without_their_delay_line(export):
    exported = export(Request("Valid", FRAMES, [2], [4]))
    streaming, offline = load_graph(exported.streaming[4]), load_graph(exported.offline)
    assert rules_of(lint(streaming, offline)) == ["S303"]
    line = {node.name for node in streaming.nodes if "/Add_" in node.name}

    findings = lint(rewired(streaming, line), offline)

    assert [(f.rule, f.node) for f in findings][:1] == [("S210", "/Add")]
    assert len(line) == 2


def test_an_output_that_lost_frames(files):
    streaming, offline = files("Plain")
    name = streaming.outputs[0].name
    bounds = {
        key: Tensor(TensorInfo(key, np.dtype("<i8"), (1,)), np.array([value]))
        for key, value in {"start": 0, "end": -1, "axis": 1, "step": 1}.items()
    }
    cut = Node("cut", "Slice", (name, *bounds), ("short",))
    shorter = replace(
        streaming,
        nodes=(*streaming.nodes, cut),
        initializers={**streaming.initializers, **bounds},
        outputs=(replace(streaming.outputs[0], name="short"),),
    )

    findings = lint(shorter, offline)

    assert [(f.rule, f.node) for f in findings] == [("S211", "/conv/Conv")]


def test_frames_that_warm_up_are_announced(files):
    spec = (8, (("valid", 3), ("conv", 3, 1, "relu")), ("none",))
    _, offline = files(spec)

    findings = lint_offline(offline, {offline.inputs[0].name: 1}, 4)

    assert [(f.rule, f.frames_affected) for f in findings] == [("S304", "first 2"), ("S303", "")]


def chained(graph, text):
    """The nodes of a file in the order in which a rule's example has them."""
    given = {
        "input": graph.inputs[0].name,
        **{node.name.split("/")[1]: node for node in graph.nodes if "/" in node.name},
    }
    given |= {node.op_type: node for node in graph.nodes if node.op_type == "StreamingCache"}
    names = re.findall(r"(\w+)(?: \(Conv, \d\))?(?: >|$)", text.partition(": ")[2])
    before, *rest = [given[name] for name in names]
    assert len(rest) == len(graph.nodes)
    nodes = []
    for node in rest:
        last = node is rest[-1]
        outputs = (graph.outputs[0].name,) if last else (f"{before}.{len(nodes)}",)
        nodes.append(replace(node, inputs=(before, *node.inputs[1:]), outputs=outputs))
        before = outputs[0]
    return replace(graph, nodes=tuple(nodes))


def test_history_that_earlier_layers_computed_from_zeros(files):
    """A cache two layers too early: the frames are right, but the first ones are cold."""
    streaming, offline = files("Plain")
    example = EXAMPLES["S212"]

    findings = lint(chained(streaming, example.before), offline)

    assert [(f.rule, f.severity, f.frames_affected) for f in findings] == [
        ("S212", Severity.WARNING, "first 2")
    ]
    assert lint(chained(streaming, example.after[0]), offline) == []


@pytest.mark.parametrize("network", ["Transposed", "ManyOutputs", "Chomp"])
def test_lint_takes_milliseconds(files, network):
    pair = files(network)
    spent = []
    for _ in range(5):
        start = time.perf_counter()
        lint(*pair)
        spent.append(time.perf_counter() - start)

    assert min(spent) < 0.05
