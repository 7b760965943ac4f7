"""Window arithmetic against a simulation of caches, frame by frame."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import pytest

from espdl_hil.streaming.timing import Flow, Window


def windows_of_stream(window, delay_in, held, frames, chunks):
    """Offline frames that each output of a stream sees, by simulating the cache."""
    seen = []
    cache = [None] * held
    for chunk in range(chunks):
        local = cache + [j - delay_in for j in range(chunk * frames, (chunk + 1) * frames)]
        cache = local[len(local) - held :] if held else []
        surplus = held + window.stride - window.extent
        local = local[: len(local) - surplus] if surplus >= window.stride else local
        starts = range(0, len(local) - window.extent + 1, window.stride)
        seen.append([local[start : start + window.extent] for start in starts])
    return seen


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("extent", [1, 2, 3, 5])
def test_a_cache_gives_each_output_the_offline_window(extent, stride):
    for pad, delay_in, multiple in itertools.product(range(5), range(-3, 5), (1, 2, 4)):
        window = Window(extent, stride, pad, 0)
        delay = window.delay_for(delay_in)
        held = window.state_for(delay_in, delay)
        frames = stride * multiple

        stream = windows_of_stream(window, delay_in, held, frames, chunks=12)

        assert delay >= 0
        assert held >= 0
        assert all(len(outputs) == multiple for outputs in stream)
        flat = [seen for outputs in stream for seen in outputs]
        for number, seen in enumerate(flat):
            offline = number - delay
            if None not in seen:
                start = offline * stride - pad
                assert seen == list(range(start, start + extent)), (window, delay_in)


def test_the_delay_is_the_smallest_that_works():
    window = Window(extent=5, stride=2, pad_begin=1, pad_end=0)
    delay = window.delay_for(0)
    held = window.state_for(0, delay - 1)

    outputs = windows_of_stream(window, 0, held, frames=4, chunks=3)

    assert delay == 1
    assert [len(chunk) for chunk in outputs] != [2, 2, 2]


@pytest.mark.parametrize("frames", range(8, 20))
def test_frames_out_is_what_a_convolution_gives(frames):
    window = Window(extent=4, stride=3, pad_begin=2, pad_end=1)
    starts = range(-2, frames + 1 - 4 + 1, 3)

    assert window.frames_out(frames) == len(starts)


def flow(**changes):
    return Flow(**{"axis": 1, "rate": Fraction(1), "delay": 0, "valid": 24, **changes})


def test_left_padding_of_a_clean_tensor_warms_nothing_up():
    result = flow().windowed(Window(5, 1, 4, 0), delay=0)

    assert (result.warmup, result.clean, result.valid) == (0, True, 24)


def test_padding_behind_a_latency_warms_up_as_far_as_it_reaches():
    late = flow(delay=2, clean=False)

    assert late.windowed(Window(3, 1, 2, 0), delay=2).warmup == 2
    assert late.windowed(Window(3, 1, 0, 0), delay=4).warmup == 0


def test_warm_frames_spread_through_a_window():
    assert flow(warmup=2).windowed(Window(3, 1, 2, 0), delay=0).warmup == 4
    assert flow(warmup=2).windowed(Window(4, 2, 2, 0), delay=0).warmup == 2


def test_zeros_between_warm_frames_shorten_the_warm_up():
    spread = flow(delay=2, clean=False, sparse=2)

    assert spread.windowed(Window(2, 1, 1, 0), delay=2).warmup == 0
    assert spread.windowed(Window(4, 1, 3, 0), delay=2).warmup == 2
    assert replace(spread, warmup=4).windowed(Window(2, 1, 1, 0), delay=2).warmup == 4


def test_symmetric_padding_leaves_frames_that_need_the_future():
    result = flow().windowed(Window(3, 1, 1, 1), delay=1)

    assert result.valid == 23


def test_a_pad_moves_frames_and_a_cut_moves_them_back():
    padded = flow().padded(2)

    assert (padded.delay, padded.valid, padded.clean) == (-2, 26, True)
    assert padded.trimmed(2, 26, 1) == flow()


def test_frames_that_a_cut_removes_are_not_zero_in_the_stream():
    assert not flow().trimmed(2, 24, 1).clean  # real frames lie where padding would be
    assert flow().padded(3).trimmed(2, 27, 1).clean  # only padding was cut


def test_a_step_swallows_the_frames_before_the_first():
    kept = flow(delay=1, clean=False).trimmed(0, 24, 2)

    assert (kept.delay, kept.clean, kept.rate, kept.valid) == (0, True, Fraction(1, 2), 12)


def test_padding_does_not_hide_the_frames_of_a_latency():
    late = flow(delay=3, clean=False)

    assert late.padded(2).warmup == 2
    assert not late.padded(2).clean
    assert late.padded(3).clean
