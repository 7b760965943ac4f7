"""Which offline frames each chunk is compared with."""

from __future__ import annotations

from export_bench import Request

from espdl_hil.streaming import Alignment, StreamingPlan


def alignments(export, network, shapes, axes, chunk, **options):
    exported = export(Request(network, shapes, axes, [chunk], **options))
    return StreamingPlan.from_json(exported.plans[chunk]).alignments


def test_same_length():
    alignment = Alignment("y", "same", 1, out_frames_per_chunk=4, offline_frames=12)

    assert [alignment.span(chunk) for chunk in range(3)] == [
        (range(4), range(4)),
        (range(4, 8), range(4)),
        (range(8, 12), range(4)),
    ]
    assert alignment.describe() == "y: 4 frame(s) a chunk (same)"


def test_a_delayed_stream_begins_with_frames_that_have_no_counterpart():
    alignment = Alignment(
        "y", "delayed", 1, 4, latency_frames=6, warmup_frames=2, offline_frames=18
    )

    spans = [alignment.span(chunk) for chunk in range(6)]

    assert spans[0] == (range(0), range(6, 6))
    assert spans[1] == (range(2), range(2, 4))
    assert spans[5] == (range(14, 18), range(4))
    assert sorted(frame for offline, _ in spans for frame in offline) == list(range(18))
    assert alignment.describe() == (
        "y: 4 frame(s) a chunk (delayed), offline frame m arrives as frame m + 6, "
        "offline frames 0 to 1 warm up"
    )


def test_frames_behind_the_end_of_the_offline_output_are_not_compared():
    alignment = Alignment("y", "same", 1, out_frames_per_chunk=4, offline_frames=6)

    assert alignment.span(1) == (range(4, 6), range(2))
    assert alignment.span(2)[0] == range(8, 8)


def test_kinds_of_several_outputs(export):
    same, strided, tail = alignments(export, "ManyOutputs", [[1, 4, 24]], [2], 4)

    assert (same.kind, same.out_frames_per_chunk) == ("same", 4)
    assert (strided.kind, strided.out_frames_per_chunk) == ("strided", 2)
    assert (tail.kind, tail.frame_axis, tail.min_prefix_frames) == ("tail", -1, 3)
    assert tail.describe().endswith(
        "each chunk against the offline model of the frames so far, from 3 input frames on"
    )


def test_an_upsampled_output(export):
    (alignment,) = alignments(export, "Upsampled", [[1, 4, 24]], [2], 4)

    assert (alignment.kind, alignment.out_frames_per_chunk) == ("upsampled", 8)
    assert alignment.frame_axis == 2  # the file keeps (1, C, T) here


def test_an_unpadded_model_is_delayed(export):
    (alignment,) = alignments(export, "Valid", [[1, 4, 24]], [2], 4)

    assert (alignment.kind, alignment.latency_frames, alignment.offline_frames) == (
        "delayed",
        4,
        20,
    )


def test_recurrent_state_is_named(export):
    frames, state = alignments(
        export, "Recurrent", [[1, 4, 24], [1, 1, 8]], [2, None], 4, state=[(1, 1)]
    )

    assert (frames.kind, state.kind) == ("same", "tail")
    assert state.state_input
    assert not frames.state_input
