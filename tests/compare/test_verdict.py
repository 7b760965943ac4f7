import numpy as np
import pytest

from espdl_hil.compare import Outcome, Tolerance, compare_streams

AXES = {"y": 1}


def stream(chunks=4, frames=3, channels=5):
    whole = np.arange(chunks * frames * channels, dtype=np.int8).reshape(1, -1, channels)
    return [{"y": part.copy()} for part in np.split(whole, chunks, axis=1)]


def test_equal_streams_pass():
    verdict = compare_streams(stream(), stream(), frame_axes=AXES)
    assert verdict.outcome is Outcome.PASSED
    assert (len(verdict.chunks), verdict.frames, verdict.elements) == (4, 12, 60)
    assert (verdict.differing, verdict.max_lsb, verdict.first) == (0, 0, None)
    assert verdict.errors == ()
    assert str(verdict) == "all 60 equal"


def test_a_difference_is_placed_in_the_stream():
    observed = stream()
    observed[2]["y"][0, 1, 4] -= 3
    verdict = compare_streams(stream(), observed, frame_axes=AXES)
    assert verdict.outcome is Outcome.FAILED
    assert [row.outcome for row in verdict.chunks] == ["passed", "passed", "failed", "passed"]
    assert (verdict.first.chunk, verdict.first.frame, verdict.first.channel) == (2, 7, 4)
    assert str(verdict) == (
        "1 of 60 differ, max 3 LSB; first at frame 7, channel 4: "
        "expected 39, observed 36 (chunk 2 of 4)"
    )


def test_tolerance_applies():
    observed = stream()
    observed[0]["y"][0, 0, 0] += 1
    observed[3]["y"][0, 0, 0] += 2
    verdict = compare_streams(stream(), observed, Tolerance(max_lsb=1), frame_axes=AXES)
    assert [row.outcome for row in verdict.chunks] == ["passed", "passed", "passed", "failed"]
    assert verdict.first.chunk == 3  # the first that is beyond, not the first that differs
    passed = compare_streams(stream(), observed, Tolerance(max_lsb=2), frame_axes=AXES)
    assert (passed.outcome, passed.differing, passed.first.chunk) == (Outcome.PASSED, 2, 0)


def test_nothing_compared_is_an_error_not_a_pass():
    verdict = compare_streams([], [], frame_axes=AXES)
    assert verdict.outcome is Outcome.ERROR
    assert str(verdict) == "not compared: no elements"
    empty = [{"y": np.zeros((1, 0, 5), np.int8)}]
    verdict = compare_streams(empty, empty, frame_axes=AXES)
    assert verdict.outcome is Outcome.ERROR
    assert str(verdict) == "chunk 0: not compared: no elements"
    assert (
        compare_streams(empty, empty, frame_axes=AXES, silent_chunks={0}).outcome is Outcome.ERROR
    )


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda s: s.pop(), "chunk 3: observed stream ends after 3"),
        (lambda s: s.append(s[0]), "chunk 4: expected stream ends after 4"),
        (lambda s: s[3].clear(), "chunk 3: observed has no output y"),
        (
            lambda s: s[3].update(y=s[3]["y"][:, :2]),
            "chunk 3 of y: expected int8[1, 3, 5], observed int8[1, 2, 5]",
        ),
    ],
)
def test_what_cannot_be_compared_is_an_error(spoil, text):
    observed = stream()
    spoil(observed)
    verdict = compare_streams(stream(), observed, frame_axes=AXES)
    assert verdict.outcome is Outcome.ERROR
    assert verdict.errors == (text,)
    assert [row.outcome for row in verdict.chunks[:3]] == ["passed"] * 3
    assert str(verdict).endswith(text)


def test_failed_weighs_more_than_error():
    observed = stream()
    observed[1]["y"] += 1
    observed.pop()
    assert compare_streams(stream(), observed, frame_axes=AXES).outcome is Outcome.FAILED


def test_skipped_frames_are_not_compared_and_the_next_are():
    observed = stream()
    observed[0]["y"][:] = 99
    observed[1]["y"][0, 0] = 99
    verdict = compare_streams(
        stream(), observed, frame_axes=AXES, skip_frames={"y": 4}, silent_chunks={0}
    )
    assert verdict.outcome is Outcome.PASSED
    assert (verdict.frames, verdict.elements, verdict.skipped_frames) == (8, 40, 4)
    assert [row.frames for row in verdict.chunks] == [0, 2, 3, 3]
    shorter = compare_streams(
        stream(), observed, frame_axes=AXES, skip_frames={"y": 3}, silent_chunks={0}
    )
    assert shorter.outcome is Outcome.FAILED
    assert (shorter.first.chunk, shorter.first.frame) == (1, 3)


def test_a_chunk_without_elements_is_an_error_unless_declared():
    verdict = compare_streams(stream(), stream(), frame_axes=AXES, skip_frames={"y": 3})
    assert verdict.outcome is Outcome.ERROR
    assert verdict.errors == ("chunk 0: not compared: no elements",)


def test_several_outputs():
    expected = [{**c, "z": c["y"][0, 0]} for c in stream()]
    observed = [{**c, "z": c["y"][0, 0].copy()} for c in stream()]
    axes = {"y": 1, "z": None}
    assert compare_streams(expected, observed, frame_axes=axes).outcome is Outcome.PASSED
    observed[1]["z"][2] += 1
    verdict = compare_streams(expected, observed, frame_axes=axes)
    assert verdict.first.output == "z"
    assert (verdict.first.chunk, verdict.first.frame, verdict.first.channel) == (1, 1, 2)
    assert "channel 2 of z: expected" in str(verdict)


def test_float_streams():
    expected = [{"y": c["y"].astype(np.float32) + 1} for c in stream()]
    observed = [{"y": c["y"] * np.float32(1 + 1e-4)} for c in expected]
    verdict = compare_streams(expected, observed, frame_axes=AXES)
    assert verdict.outcome is Outcome.FAILED
    assert verdict.max_lsb is None
    assert verdict.max_relative == pytest.approx(1e-4, rel=0.01)
