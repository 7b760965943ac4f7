"""What a plan says: caches, edits, refusals. Graphs by hand; no exporter."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from hand_graphs import Builder, plan_of

from espdl_hil.errors import ConfigError, StreamingError
from espdl_hil.operators import OPERATORS
from espdl_hil.streaming import RULES, Clock, StreamingPlan, analyze
from espdl_hil.streaming.examples import EXAMPLES
from espdl_hil.streaming.state import find_state
from espdl_hil.streaming.transfer import HANDLERS, WHOLE
from espdl_hil.streaming.transfer.pointwise import UNARY

T = 24
INPUT = (1, T, 8)


def plan(graph, chunk=4, axes=None, state=None):
    return plan_of(graph, axes or {"x": 1}, chunk, state or {})


def caches(graph, chunk=4, **options):
    return [(c.consumer, c.window, c.frame_axis) for c in plan(graph, chunk, **options).caches]


def test_each_consumer_gets_its_own_cache():
    b = Builder(x=INPUT)
    narrow, wide, plain = b.conv("x", 3, name="n"), b.conv("x", 3, dilation=2, name="w"), "x"
    total = b.node("Add", b.node("Add", narrow, wide), plain)

    result = plan(b.graph(total))

    assert [(c.tensor, c.consumer, c.window) for c in result.caches] == [
        ("x", "n", 3),
        ("x", "w", 5),
    ]
    assert {(e.node, e.value) for e in result.attribute_edits} == {("n", (0, 0)), ("w", (0, 0))}
    assert result.receptive_field == 5
    assert result.state_bytes == (2 + 4) * 8


def test_a_pointwise_convolution_needs_nothing():
    b = Builder(x=INPUT)

    result = plan(b.graph(b.conv("x", 1)))

    assert (result.insertions, result.attribute_edits, result.receptive_field) == ((), (), 1)


def test_a_pad_disappears_into_the_caches_behind_it():
    b = Builder(x=INPUT)
    padded = b.pad("x", [0, 4, 0, 0, 0, 0], name="pad")
    wide = b.conv(padded, 5, pads=(0, 0), name="wide")
    narrow = b.conv(b.slice(padded, 2, 2**31 - 1, name="cut"), 3, pads=(0, 0), name="narrow")

    result = plan(b.graph(b.node("Add", wide, narrow)))

    assert result.removals == ("pad", "cut")
    assert [(c.consumer, c.window) for c in result.caches] == [("wide", 5), ("narrow", 3)]


def test_a_pad_that_also_pads_channels_stays_for_them():
    b = Builder(x=INPUT)
    padded = b.pad("x", [0, 2, 0, 0, 0, 1], name="pad")

    result = plan(b.graph(b.conv(padded, 3, inputs=9, pads=(0, 0))))

    assert result.removals == ()
    assert [(e.node, e.values) for e in result.constant_edits] == [("pad", (0, 0, 0, 0, 0, 1))]


def test_padding_that_nothing_absorbs_becomes_a_delay_line():
    b = Builder(x=INPUT)
    late = b.slice(b.pad("x", [0, 2, 0, 0, 0, 0]), 0, -2)
    total = b.node("Add", late, "x", name="add")

    result = plan(b.graph(total))

    (chain,) = result.insertions
    assert [node.op_type for node in chain.nodes] == ["StreamingCache", "Slice"]
    assert chain.nodes[0].attributes["window_size"] == 3
    assert chain.nodes[1].constants == ((0,), (-2,), (1,), (1,))
    assert chain.nodes[1].shape == (1, 4, 8)


def test_a_pad_at_the_output_is_a_delay_line_too():
    b = Builder(x=INPUT)
    out = b.pad("x", [0, 2, 0, 0, 0, 0], name="pad")

    result = plan(b.graph(out))

    assert result.removals == ()
    assert [c.window for c in result.caches] == [3]
    assert result.alignments[0].latency_frames == 0


def test_time_that_is_not_outermost_moves_to_the_front_and_back():
    b = Builder(x=(1, 6, T, 1))
    out = b.conv2d("x", (1, 2, 1, 0), name="c")

    result = plan(b.graph(out), axes={"x": 2})

    (chain,) = result.insertions
    assert [node.op_type for node in chain.nodes] == ["Transpose", "StreamingCache", "Transpose"]
    assert [node.shape for node in chain.nodes] == [(4, 1, 6, 1), (6, 1, 6, 1), (1, 6, 6, 1)]
    assert chain.nodes[1].attributes == {"window_size": 3, "frame_axis": 0}
    assert result.attribute_edits[0].value == (1, 0, 1, 0)


def test_a_strided_convolution_keeps_its_phase():
    b = Builder(x=INPUT)
    short = b.conv("x", 4, stride=2, pads=(2, 0), name="short")
    full = b.conv("x", 4, stride=2, pads=(3, 0), name="full")

    assert caches(b.graph(b.node("Add", short, full))) == [("short", 3, 1), ("full", 4, 1)]


def test_a_tail_keeps_frames_only_when_a_chunk_is_too_short():
    b = Builder(x=INPUT)
    graph = b.graph(b.node("Flatten", b.slice("x", -3, 2**63 - 1, name="s"), axis=1))

    assert caches(graph, 4) == []
    assert caches(graph, 1) == [("s", 3, 1)]
    alignment = plan(graph, 1).alignments[0]
    assert (alignment.kind, alignment.min_prefix_frames) == ("tail", 3)


@pytest.mark.parametrize("frames", [3, 12, 20])
def test_a_head_over_the_last_frames_may_keep_most_of_them(frames):
    b = Builder(x=INPUT)
    flat = b.node("Flatten", b.slice("x", -frames, 2**63 - 1, name="s"), axis=1)
    filters = b.constant(np.zeros((1, 1, frames * 8, 3)))

    result = plan(b.graph(b.node("Gemm", flat, filters)))

    assert result.alignments[0].min_prefix_frames == frames


def test_a_trimmed_branch_is_not_taken_for_the_last_frames():
    b = Builder(x=INPUT)
    total = b.node("Add", b.slice("x", -20, 2**63 - 1), b.conv("x", 5, pads=(0, 0)))

    result = plan(b.graph(total))

    assert result.alignments[0].kind == "delayed"


def test_a_tail_behind_a_latency_needs_a_longer_prefix():
    b = Builder(x=INPUT)
    late = b.conv("x", 3, pads=(0, 0))

    result = plan(b.graph(b.slice(late, -3, 2**31 - 1)))

    assert result.alignments[0].min_prefix_frames == 5


def test_upsampling_makes_every_chunk_whole():
    b = Builder(x=INPUT)
    spread = b.node("InsertZeros", "x", stride=(2,), output_padding=(0,), name="z")
    out = b.slice(b.conv(spread, 4, pads=(3, 3), name="up"), 0, 48)

    result = plan(b.graph(out))

    assert [(e.node, e.value) for e in result.attribute_edits] == [("z", (1,)), ("up", (0, 0))]
    alignment = result.alignments[0]
    assert (alignment.kind, alignment.out_frames_per_chunk) == ("upsampled", 8)
    assert result.receptive_field == 2


def resized_across(b):
    """A Resize of (1, T, 1, 8) that doubles the axis beside time."""
    b.constants["scales"] = np.array([1, 1, 1, 2], np.float32)  # as (N, C, T, W)
    return b.node("Resize", b.node("Unsqueeze", "x", b.constant([2])), "", "scales")


def resized(b, x="x", factor=2.0, sizes="", **changes):
    mode = {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    }
    b.constants["scales"] = np.array([1, 1, factor], np.float32)  # as (N, C, T)
    return b.node("Resize", x, "", "scales", sizes, name="at", **(mode | changes))


def test_frames_that_are_repeated_stream():
    b = Builder(x=INPUT)
    after = b.conv(resized(b, factor=3.0), 4)

    result = plan(b.graph(after))

    assert [(c.consumer, c.window) for c in result.caches] == [("conv1", 4)]
    alignment = result.alignments[0]
    assert (alignment.kind, alignment.out_frames_per_chunk) == ("upsampled", 12)
    assert (alignment.latency_frames, alignment.warmup_frames) == (0, 0)


def test_frames_that_are_repeated_behind_a_latency_lag_by_as_many():
    b = Builder(x=INPUT)
    late = b.conv("x", 3, pads=(0, 0))

    alignment = plan(b.graph(resized(b, late))).alignments[0]

    assert (alignment.kind, alignment.latency_frames) == ("delayed", 4)


@pytest.mark.parametrize(
    "changes",
    [
        {"factor": 1.5},
        {"factor": 0.5},
        {"mode": "linear"},
        {"coordinate_transformation_mode": "half_pixel"},
        {"nearest_mode": "ceil"},
    ],
    ids=str,
)
def test_other_ways_of_resizing_in_time_do_not_stream(changes):
    b = Builder(x=INPUT)

    with pytest.raises(StreamingError) as caught:
        plan(b.graph(resized(b, **changes)))

    assert (caught.value.rule, caught.value.node) == ("S106", "at")


def test_a_resize_to_a_given_length_knows_the_offline_frame_count():
    b = Builder(x=INPUT)

    with pytest.raises(StreamingError, match=r"S106.*24 frames become 48"):
        plan(b.graph(resized(b, sizes=b.constant([1, 8, 48]))))


def test_reshape_constants_forget_the_offline_length():
    b = Builder(x=INPUT)
    rows = b.reshape("x", [-1, 8], name="rows")
    back = b.reshape(rows, [1, T, 8], name="back")

    result = plan(b.graph(back))

    assert [(e.node, e.values) for e in result.constant_edits] == [("back", (1, -1, 8))]


def test_frames_stacked_by_a_reshape_are_a_stride():
    b = Builder(x=INPUT)

    result = plan(b.graph(b.reshape("x", [1, 6, 32])), chunk=8)

    assert result.total_stride == 4
    assert result.alignments[0].out_frames_per_chunk == 2
    with pytest.raises(StreamingError, match="must be a multiple of 4"):
        plan(b.graph(b.reshape("x", [1, 6, 32])), chunk=6)


def test_several_inputs_at_their_own_rates():
    b = Builder(x=INPUT, y=(1, 2 * T, 8))
    half = b.conv("y", 4, stride=2, pads=(2, 0))

    result = plan_of(b.graph(b.node("Add", "x", half)), {"x": 1, "y": 1}, {"x": 2, "y": 4})

    assert result.alignments[0].out_frames_per_chunk == 2
    assert result.receptive_field == 2  # four frames of y, which has two for each of x


def test_a_plan_survives_json():
    b = Builder(x=(1, 6, T, 1))
    out = b.conv2d("x", (1, 2, 1, 0))
    result = plan(b.graph(out), axes={"x": 2})

    assert StreamingPlan.from_json(result.to_json()) == result


def gru(b, x, h0, direction="forward"):
    weights = [b.constant(np.zeros(3)) for _ in range(3)]
    return b.node(
        "GRU", x, *weights, "", h0, outputs=2, hidden_size=8, direction=direction, name="gru"
    )


def test_state_that_is_named_travels():
    b = Builder(x=(T, 1, 8), h0=(1, 1, 8))
    y, hn = gru(b, "x", "h0")

    result = plan(b.graph(y, hn), axes={"x": 0}, state={"h0": hn})

    assert result.receptive_field is None
    assert result.state_bytes == 8
    assert [a.state_input for a in result.alignments] == ["", "h0"]


REFUSED = {
    "S101": lambda b: b.node("ReduceMean", "x", b.constant([1]), keepdims=1, name="at"),
    "S102": lambda b: b.node("InstanceNormalization", "x", name="at"),
    "S103": lambda b: b.node("GlobalAveragePool", "x", name="at"),
    "S104": lambda b: b.node("MatMul", b.node("Transpose", "x", perm=(0, 2, 1)), "x", name="at"),
    "S105": lambda b: b.conv("x", 3, pads=(1, 1), name="at"),
    "S106": lambda b: resized(b, mode="linear"),
    "S107": lambda b: b.pad("x", [0, 2, 0, 0, 0, 0], mode="reflect", name="at"),
    "S108": lambda b: b.node("Flatten", b.node("Transpose", "x", perm=(0, 2, 1)), name="at"),
    "S109": lambda b: b.slice("x", 0, 3, name="at"),
    "S110": lambda b: b.node("Concat", "x", "x", axis=1, name="at"),
    "S111": lambda b: b.node("ReverseSequence", "x", b.constant([1]), name="at"),
    "S112": lambda b: b.node("TopK", "x", name="at"),
    "S114": lambda b: b.node("Split", "x", b.constant([3, 4]), outputs=2, axis=2, name="at")[0],
    "S115": lambda b: b.conv(b.node("Transpose", "x", perm=(0, 2, 1)), 3, inputs=T, name="at"),
    "S120": lambda b: b.conv("x", 3, stride=3, name="at"),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_what_cannot_stream_is_refused_by_rule_and_node(rule):
    b = Builder(x=INPUT)

    with pytest.raises(StreamingError) as caught:
        plan(b.graph(b.node("Relu", REFUSED[rule](b))))

    assert (caught.value.rule, caught.value.node) == (rule, "at")
    assert caught.value.hint == RULES[rule].edit
    assert str(caught.value).startswith(f"[{rule}] at: {RULES[rule].title}: ")


@pytest.mark.parametrize("op_type", sorted(set(OPERATORS) - set(HANDLERS) - {"StreamingCache"}))
def test_an_operator_of_which_only_the_shape_is_known_is_refused_by_rule(op_type):
    """Adding an operator to ESP-DL's list does not let frames through it unseen."""
    b = Builder(x=(1, T, 2, 8))
    out = b.node(op_type, "x", name="at", blocksize=2)

    with pytest.raises(StreamingError, match=f"operator without streaming rules: {op_type}") as e:
        plan(b.graph(out))

    assert (e.value.rule, e.value.node) == ("S112", "at")


def test_every_operator_that_streams_is_one_that_esp_dl_has():
    refused_anyway = set(WHOLE)
    originals_of_tables = set(UNARY)

    assert set(HANDLERS) - refused_anyway - originals_of_tables <= set(OPERATORS)
    assert "Cos" not in OPERATORS
    b = Builder(x=INPUT)
    with pytest.raises(StreamingError, match=r"\[S114\] at: .*: ESP-DL has no operator Cos"):
        plan(b.graph(b.node("Cos", "x", name="at")))


@pytest.mark.parametrize("op_type", WHOLE)
def test_what_sees_all_frames_is_refused_by_its_own_rule(op_type):
    b = Builder(x=INPUT)
    out = b.node(op_type, "x", b.constant([1]), name="at")

    with pytest.raises(StreamingError, match=f"{op_type} sees all frames") as caught:
        plan(b.graph(out))

    assert caught.value.rule == WHOLE[op_type].id


def test_one_analysis_serves_plan_and_offline_file():
    b = Builder(x=INPUT)
    graph = b.graph(b.reshape(b.reshape("x", [-1, 8]), [1, T, 8], name="back"))

    analysis = analyze(graph, Clock.of({"x": 1}, 4))

    assert analysis.plan == plan(graph)
    assert [(e.node, e.values) for e in analysis.offline_edits] == [("back", (1, -1, 8))]
    assert analysis.shapes["back.0"] == (1, T, 8)


def test_an_analysis_goes_on_behind_a_refusal():
    b = Builder(x=INPUT, y=INPUT)
    first, second = b.conv("x", 3, pads=(1, 1), name="a"), b.conv("y", 3, pads=(1, 1), name="b")

    analysis = analyze(b.graph(first, second), Clock.of({"x": 1, "y": 1}, 4))

    assert [(r.rule, r.node) for r in analysis.refusals] == [("S105", "a"), ("S105", "b")]
    with pytest.raises(StreamingError, match=r"\[S105\] a:"):
        _ = analysis.plan


ALLOWED = {
    "reduction over channels": lambda b: b.node("ReduceMean", "x", b.constant([2]), keepdims=0),
    "softmax over channels": lambda b: b.node("Softmax", "x", axis=2),
    "normalization over channels": lambda b: b.node("LayerNormalization", "x", axis=2),
    "matrix product with a constant": lambda b: b.node("MatMul", "x", b.constant(np.ones((8, 4)))),
    "surplus of symmetric padding cut off": lambda b: b.slice(b.conv("x", 3, pads=(2, 2)), 0, -2),
    "resize beside time only": resized_across,
    "flatten of the last frames": lambda b: b.node("Flatten", b.slice("x", -2, 2**31 - 1)),
    "concat of channels": lambda b: b.node("Concat", "x", "x", axis=2),
    "split of channels": lambda b: b.node("Split", "x", b.constant([4, 4]), outputs=2, axis=2)[1],
    "reduction over the last frames": lambda b: b.node(
        "ReduceMean", b.slice("x", -2, 2**31 - 1), b.constant([1]), keepdims=1
    ),
    "unknown operator on the last frames": lambda b: b.node("TopK", b.slice("x", -2, 2**31 - 1)),
}


@pytest.mark.parametrize("case", ALLOWED)
def test_the_same_away_from_time_streams(case):
    b = Builder(x=INPUT)
    graph = b.graph(ALLOWED[case](b))
    if "unknown" in case:  # its shape is unknown too, so it cannot be aligned by shape
        assert plan(graph).alignments[0].kind == "tail"
    else:
        plan(graph)


def recurrent(rule):
    b = Builder(x=(T, 1, 8), h0=(1, 1, 8))
    if rule == "S111":
        return b.graph(*gru(b, "x", "h0", direction="reverse")), {"h0": "gru.1"}
    if rule == "S113":
        rows = b.node("Transpose", "x", perm=(1, 0, 2))
        late = b.node("Transpose", b.conv(rows, 3, pads=(0, 0)), perm=(1, 0, 2))
        return b.graph(*gru(b, late, "h0")), {"h0": "gru.1"}
    if rule == "S131":
        steps = re.findall(r"2\*\*(-\d)", EXAMPLES[rule].before)
        written, read, left = ((int(step),) for step in steps)
        b.exponents = {"h0": written, "gru.1": left}
        inner = b.node("RequantizeLinear", "h0", name="inner")
        b.exponents[inner] = read
        return b.graph(*gru(b, "x", inner)), {"h0": "gru.1"}
    return b.graph(*gru(b, "x", "h0")), {}


@pytest.mark.parametrize("rule", ["S111", "S113", "S130", "S131"])
def test_recurrence_is_refused_by_rule_and_node(rule):
    graph, state = recurrent(rule)

    with pytest.raises(StreamingError) as caught:
        plan(graph, axes={"x": 0}, state=state)

    assert (caught.value.rule, caught.value.node) == (rule, "gru")


def stacked(swap=False, exponents=None):
    """Two layers whose states are the rows of one input and of one output."""
    b = Builder(x=(T, 1, 8), h0=(2, 1, 8))
    b.exponents = exponents or {}
    rows = [b.slice("h0", row, row + 1, axis=0) for row in (0, 1)]
    weights = [b.constant(np.zeros(3)) for _ in range(3)]
    first = b.node("GRU", "x", *weights, "", rows[0], outputs=2, hidden_size=8, name="first")
    lower = b.node("Squeeze", first[0], b.constant([1]))
    second = b.node("GRU", lower, *weights, "", rows[1], outputs=2, hidden_size=8, name="second")
    last = [first[1], b.node("RequantizeLinear", second[1])]
    hn = b.node("Concat", *(reversed(last) if swap else last), axis=0, name="hn")
    return b.graph(second[0], hn)


def test_layers_may_share_one_state_input():
    result = plan(stacked(), axes={"x": 0}, state={"h0": "hn.0"})

    assert result.state_bytes == 2 * 8
    assert find_state(stacked()) == {"h0": "hn.0"}


def test_layers_whose_states_are_swapped_are_fed_something_else():
    with pytest.raises(StreamingError, match=r"'hn.0' is not its last hidden state") as caught:
        plan(stacked(swap=True), axes={"x": 0}, state={"h0": "hn.0"})

    assert (caught.value.rule, caught.value.node) == ("S130", "first")


def test_a_state_that_is_requantized_on_its_way_is_refused():
    graph = stacked(exponents={"h0": (-7,), "hn.0": (-7,), "first.1": (-6,)})

    with pytest.raises(StreamingError, match="changes exponent on its way: h0") as caught:
        plan(graph, axes={"x": 0}, state={"h0": "hn.0"})

    assert (caught.value.rule, caught.value.node) == ("S131", "first")


def carried(step, size):
    """The stacked state at 16 bits or so, its layers at 8 bits."""
    graph = stacked()
    layers = [
        name for n in graph.nodes if n.op_type == "GRU" for name in (n.inputs[5], n.outputs[1])
    ]
    return replace(
        graph,
        exponents={"h0": (step,), "hn.0": (step,)} | dict.fromkeys(layers, (-7,)),
        itemsizes={"h0": size, "hn.0": size} | dict.fromkeys(layers, 1),
    )


@pytest.mark.parametrize("step", [-7, -9, -15])
def test_a_state_may_lie_in_a_wider_tensor_that_holds_every_value(step):
    assert plan(carried(step, 2), axes={"x": 0}, state={"h0": "hn.0"}).state == {"h0": "hn.0"}


@pytest.mark.parametrize(("step", "size"), [(-6, 2), (-16, 2), (-8, 1)])
def test_a_state_that_is_rounded_or_clipped_on_its_way_is_refused(step, size):
    with pytest.raises(StreamingError, match="changes exponent on its way: h0") as caught:
        plan(carried(step, size), axes={"x": 0}, state={"h0": "hn.0"})

    assert caught.value.rule == "S131"


def test_padding_that_an_output_begins_with_cannot_come_before_the_stream():
    b = Builder(x=INPUT)
    out = b.node("Transpose", b.pad("x", [0, 2, 0, 0, 0, 0]), perm=(0, 2, 1), name="at")

    with pytest.raises(
        StreamingError, match=r"\[S109\] at: .* begins with 2 frame\(s\) of padding"
    ):
        plan(b.graph(out))


def test_state_that_feeds_something_else_is_dropped_state():
    b = Builder(x=(T, 1, 8), h0=(1, 1, 8))
    y, hn = gru(b, "x", "h0")
    graph = b.graph(y, b.node("Relu", hn, name="relu"))

    with pytest.raises(StreamingError, match=r"graph output 'relu.0' is not its last hidden state"):
        plan(graph, axes={"x": 0}, state={"h0": "relu.0"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"y": 1}, 4, {}), "the graph has no input 'y'; it has x"),
        (({"x": 1}, 4, {"x": "y"}), "the graph has no output 'y'; it has relu0.0"),
        (({}, {}, {}), "no input has a frame axis, so there is nothing to stream"),
        (({"x": 3}, 4, {}), r"frame axis 3 of input 'x' is outside \(1, 24, 8\)"),
        (({"x": 1}, 25, {}), "input 'x': a chunk of 25 frames does not fit 24 frames"),
        (({"x": 1}, 0, {}), "input 'x': a chunk of 0 frames does not fit 24 frames"),
    ],
)
def test_arguments_that_do_not_fit_the_graph(arguments, message):
    b = Builder(x=INPUT)

    with pytest.raises(ConfigError, match=message):
        plan_of(b.graph(b.node("Relu", "x")), *arguments)
