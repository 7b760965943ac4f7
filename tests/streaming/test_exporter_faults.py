"""What esp-ppq's own streaming conversion gets wrong: lint names it, the planner gets it right."""

from __future__ import annotations

import re

import pytest
from export_bench import Request
from stream_compare import compare

from espdl_hil.espdl import load_graph
from espdl_hil.streaming import Finding, Severity, StreamingPlan, lint
from espdl_hil.streaming.examples import EXAMPLES

FRAMES = [[1, 4, 24]]
WITH_STATE = [[1, 4, 24], [1, 1, 8]]


def embeds(example):
    """Whether an example of the exporter's call gives it values to embed."""
    return re.search(r"values_for_test=(\w*)", example)[1] != "None"


# What auto_streaming makes of it: network, request, rule, node; then what the planner does.
FAULTS = {
    "residual": (Request("Residual", FRAMES, [2]), "S202", "/Add", "equal"),
    "two kernels": (Request("TwoKernels", FRAMES, [2]), "S203", "/five/Conv", "equal"),
    "time on H": (Request("TimeOnHeight", [[1, 1, 24, 6]], [2]), "S204", "x_SCache", "equal"),
    "time on W": (Request("TimeOnWidth", [[1, 1, 6, 24]], [3]), "S206", "/conv/Conv", "equal"),
    "symmetric": (Request("Symmetric", FRAMES, [2]), "S105", "/conv/Conv", "S105"),
    "chomp": (Request("Chomp", FRAMES, [2]), "S201", "/conv/Conv", "equal"),
    "pad before a pool": (Request("PoolBehindPad", FRAMES, [2]), "S206", "/Pad", "equal"),
    "shared pad": (Request("SharedPad", FRAMES, [2]), "S206", "/Pad", "equal"),
    "cache of an NCW input": (
        Request("SharedPad", FRAMES, [2]),
        "S204",
        "PPQ_Variable_0_SCache",
        "equal",
    ),
    "transposed convolution": (
        Request("Transposed", FRAMES, [2]),
        "S201",
        "/up/ConvTranspose",
        "equal",
    ),
    "gap of a transposed convolution": (
        Request("Transposed", FRAMES, [2]),
        "S207",
        "PPQ_Operation_0",
        "equal",
    ),
    "stride with less padding": (Request("Transposed", FRAMES, [2]), "S203", "/down/Conv", "equal"),
    "maximum over minus infinity": (
        Request("InfinitePool", FRAMES, [2]),
        "S301",
        "/MaxPool",
        "equal",
    ),
    "average that does not count": (
        Request("UncountedAverage", FRAMES, [2]),
        "S302",
        "/pool/AveragePool",
        "equal",
    ),
    "stride phase": (Request("Strided", FRAMES, [2]), "S120", "/b/Conv", "S120"),
    "mean over time": (Request("MeanOverTime", FRAMES, [2]), "S101", "/ReduceMean", "S101"),
    "softmax over time": (Request("SoftmaxOverTime", FRAMES, [2]), "S102", "/Softmax", "S102"),
    "global pool": (Request("GlobalPool", FRAMES, [2]), "S103", "/GlobalAveragePool", "S103"),
    "reshape": (Request("LinearFrames", [[1, 24, 4]], [1]), "S208", "Reshape_2", "equal"),
    "slice": (Request("Chomp", FRAMES, [2]), "S208", "/Slice", "equal"),
    "gather": (Request("LastFrame", FRAMES, [2]), "S208", "/Gather", "equal"),
    "short tail": (Request("LastFrames", FRAMES, [2]), "S201", "/Slice_1", "equal"),
    "several outputs": (Request("ManyOutputs", FRAMES, [2]), "S202", "/Tanh", "equal"),
    "two rates": (Request("Fusion", [[1, 4, 12], [1, 4, 24]], [2, 2]), "S203", "/b/Conv", "equal"),
    "GRU state": (Request("Recurrent", WITH_STATE, [2, None]), "S130", "/gru/GRU", "S130"),
    "embedded values": (
        Request("Plain", FRAMES, [2], options={"test_values": embeds(EXAMPLES["S214"].before)}),
        "S214",
        "",
        "equal",
    ),
    "leaked table": (
        Request("Plain", FRAMES, [2], options={"leak": [("first", 4, 1, False)]}),
        "S209",
        "input.1_SCache",
        "equal",
    ),
    "axis not outermost": (
        Request("TimeOnWidth", [[1, 1, 6, 24]], [3], options={"table": [("conv", 3, 2, True)]}),
        "S205",
        "x_/conv/Conv_SCache",
        "equal",
    ),
}
CHUNKS = {"short tail": 2, "two rates": 2}


@pytest.mark.parametrize("case", FAULTS)
def test_lint_names_what_auto_streaming_gets_wrong(export, case):
    request, rule, node, _ = FAULTS[case]
    chunk = CHUNKS.get(case, 4)
    request = Request(**{**vars(request), "chunks": [chunk], "auto": [chunk]})
    exported = export(request)

    findings = lint(
        load_graph(exported.auto[chunk]),
        load_graph(exported.offline),
        frame_axes=exported.axes,
        state=exported.state,
    )

    assert (rule, node) in [(finding.rule, finding.node) for finding in findings], findings
    assert [Finding.from_json(data) for data in exported.auto_findings[chunk]] == findings


@pytest.mark.parametrize("case", FAULTS)
def test_the_planner_streams_it_or_refuses(export, case):
    request, _, node, outcome = FAULTS[case]
    chunk = CHUNKS.get(case, 4)
    request = Request(**{**vars(request), "chunks": [chunk], "auto": [chunk]})
    exported = export(request)

    if outcome != "equal":
        rule, at, message = exported.refused[chunk]
        assert (rule, at) == (outcome, node)
        assert "hint:" in message
        return
    plan = StreamingPlan.from_json(exported.plans[chunk])
    result = compare(exported.offline, exported.streaming[chunk], plan, "esp32s3")
    assert result.differing == 0, result.first
    assert result.elements > 0
    findings = lint(
        load_graph(exported.streaming[chunk]), load_graph(exported.offline), state=exported.state
    )
    assert not [finding for finding in findings if finding.severity is Severity.ERROR]
    assert [Finding.from_json(data) for data in exported.findings[chunk]] == findings


def test_lint_accepts_what_auto_streaming_gets_right(export):
    values = embeds(EXAMPLES["S214"].after[0])
    exported = export(Request("Plain", FRAMES, [2], [4], auto=[4], options={"test_values": values}))

    findings = lint(load_graph(exported.auto[4]), load_graph(exported.offline))

    plan = StreamingPlan.from_json(exported.plans[4])
    assert compare(exported.offline, exported.auto[4], plan, "esp32s3").differing == 0
    assert findings == []
