"""Receptive field and warm-up as predicted, measured on the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
from export_bench import Request
from stream_compare import Stream, compare

from espdl_hil.espdl import load_graph
from espdl_hil.interpreter import load
from espdl_hil.streaming import StreamingPlan

FRAMES = [[1, 4, 24]]


def reach(exported, plan):
    """The widest range of input frames that one output frame depends on, by trying."""
    graph = load_graph(exported.offline)
    session = load(graph, "esp32s3")
    (name,) = plan.frame_axes
    (alignment,) = plan.alignments
    shape = graph.inputs[0].shape
    touched: dict[int, set[int]] = {}
    for seed in range(2):
        rng = np.random.default_rng(seed)
        base = rng.integers(-128, 128, shape).astype(np.int8)
        before = session.step({name: base})[alignment.output]
        for frame in range(shape[plan.frame_axes[name]]):
            changed = base.copy()
            index = [slice(None)] * len(shape)
            index[plan.frame_axes[name]] = frame
            changed[tuple(index)] = -1 - changed[tuple(index)]
            after = session.step({name: changed})[alignment.output]
            moved = np.moveaxis(before != after, alignment.frame_axis, 0)
            for output in np.flatnonzero(moved.reshape(len(moved), -1).any(1)):
                touched.setdefault(int(output), set()).add(frame)
    return max(max(frames) - min(frames) + 1 for frames in touched.values())


@pytest.mark.parametrize(
    ("network", "chunk"),
    [("Residual", 4), ("TwoKernels", 4), ("Strided", 6), ("Transposed", 4), ("Valid", 4)],
)
def test_the_receptive_field_is_as_wide_as_it_measures(export, network, chunk):
    exported = export(Request(network, FRAMES, [2], [chunk]))
    plan = StreamingPlan.from_json(exported.plans[chunk])

    assert reach(exported, plan) == plan.receptive_field


def last_warm_frame(exported, plan):
    """Offline frames up to the last one that differs, over a few stimuli."""
    (alignment,) = plan.alignments
    (chunk,) = plan.chunk_frames.values()
    found = 0
    for seed in range(4):
        stream = Stream(exported.offline, exported.streaming[chunk], plan, "esp32s3", seed)
        whole = stream.run_offline(stream.count)[alignment.output]
        for number, step in enumerate(stream.run()):
            for frame, place in zip(*alignment.span(number), strict=True):
                expected = np.take(whole, frame, alignment.frame_axis)
                observed = np.take(step[alignment.output], place, alignment.frame_axis)
                found = max(found, (frame + 1) * bool((expected != observed).any()))
    return found


@pytest.mark.parametrize(
    ("layers", "frames"),
    [
        ((("valid", 3), ("dw", 3, 1, "none")), 2),
        ((("valid", 3), ("dw", 3, 2, "none"), ("dw", 2, 1, "none")), 5),
        ((("valid", 3), ("subsample", 2), ("dw", 3, 1, "none")), 2),
        ((("valid", 2), ("subsample", 2), ("dw", 3, 1, "none")), 0),
        ((("valid", 3), ("up", 4, 2)), 2),
        ((("valid", 3), ("up", 2, 2)), 0),
        ((("center", 5), ("down", 4, 2)), 1),
    ],
)
def test_the_warm_up_is_as_long_as_it_measures(export, layers, frames):
    exported = export(Request((8, layers, ("none",)), FRAMES, [2], [4]))
    plan = StreamingPlan.from_json(exported.plans[4])

    assert plan.warmup_frames == frames
    assert last_warm_frame(exported, plan) == frames


def test_a_maximum_over_a_cold_cache_is_predicted_by_value(export):
    exported = export(Request("InfinitePool", FRAMES, [2], [4]))
    plan = StreamingPlan.from_json(exported.plans[4])
    (alignment,) = plan.alignments
    stream = Stream(exported.offline, exported.streaming[4], plan, "esp32s3")

    offline = stream.run_offline(stream.count)[alignment.output]
    observed = np.concatenate([step[alignment.output] for step in stream.run()], 1)

    warm = alignment.warmup_frames
    assert warm == 2
    assert (observed[:, :warm] == np.maximum(offline[:, :warm], 0)).all()
    assert (observed[:, :warm] != offline[:, :warm]).any()  # or the prediction would be idle
    assert (observed[:, warm:] == offline[:, warm:]).all()


def test_the_streaming_file_at_full_length_predicts_the_warm_up(export):
    exported = export(Request("InfinitePool", FRAMES, [2], [4]))
    plan = StreamingPlan.from_json(exported.plans[4])

    result = compare(exported.offline, exported.streaming[4], plan, "esp32s3")

    assert result.warm > 0
    assert (result.invariant, result.varying) == (24 * 8, 0)


def test_a_pool_of_positive_values_warms_nothing_up(export):
    spec = (8, (("max", 3, True),), ("none",))
    exported = export(Request(spec, FRAMES, [2], [4]))
    plan = StreamingPlan.from_json(exported.plans[4])

    assert plan.warmup_frames == 0
    assert compare(exported.offline, exported.streaming[4], plan, "esp32s3").equal
