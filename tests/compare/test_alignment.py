from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil.compare import Outcome, compare_streams, cut_offline, describe_alignment
from espdl_hil.errors import HarnessError


def alignment(**changes):
    return SimpleNamespace(
        **{
            "output": "y",
            "kind": "same",
            "frame_axis": 1,
            "out_frames_per_chunk": 2,
            "latency_frames": 0,
            "warmup_frames": 0,
            **changes,
        }
    )


OFFLINE = np.arange(24, dtype=np.int8).reshape(1, 12, 2)


def test_same_length():
    parts = cut_offline(OFFLINE, alignment(), 6)
    assert len(parts) == 6
    assert np.array_equal(np.concatenate(parts, axis=1), OFFLINE)


def test_fewer_chunks_than_frames():
    assert np.array_equal(cut_offline(OFFLINE, alignment(), 2)[1], OFFLINE[:, 2:4])


def test_latency_shifts_and_is_skipped():
    late = alignment(latency_frames=3)
    parts = cut_offline(OFFLINE, late, 6)
    assert np.array_equal(np.concatenate(parts, axis=1)[:, 3:], OFFLINE[:, :9])
    garbled = [{"y": part.copy()} for part in parts]
    garbled[0]["y"][:] = 77
    garbled[1]["y"][:, 0] = 77
    verdict = compare_streams(
        [{"y": part} for part in parts],
        garbled,
        frame_axes={"y": 1},
        skip_frames={"y": 3},
        silent_chunks={0},
    )
    assert verdict.outcome is Outcome.PASSED
    assert verdict.frames == 9


def test_frame_axis_two():
    nhwc = np.arange(24, dtype=np.int8).reshape(1, 2, 6, 2)
    parts = cut_offline(nhwc, alignment(frame_axis=2), 3)
    assert parts[1].shape == (1, 2, 2, 2)
    assert np.array_equal(np.concatenate(parts, axis=2), nhwc)


def test_too_short_an_offline_run_is_refused():
    with pytest.raises(HarnessError) as caught:
        cut_offline(OFFLINE, alignment(latency_frames=1), 7)
    assert str(caught.value) == (
        "output y: 7 chunks of 2 frames need 13 offline frames, the offline model gives 12"
    )


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "y: 2 frames a chunk, against one offline run"),
        (
            {"latency_frames": 1, "warmup_frames": 4},
            "y: 2 frames a chunk, 1 frame late, 4 frames of warm-up, against one offline run",
        ),
        ({"kind": "tail"}, "y: 2 frames a chunk, the last of the offline run of the prefix"),
    ],
)
def test_description(changes, text):
    assert describe_alignment(alignment(**changes)) == text
