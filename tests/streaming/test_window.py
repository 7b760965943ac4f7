"""A tail needs only the last frames of a prefix: the offline model of these gives its value."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import randomnet
from export_bench import Request
from hand_graphs import Builder, plan_of
from stream_compare import Stream

from espdl_hil.errors import UnsupportedOpError
from espdl_hil.espdl import load_graph
from espdl_hil.operators import check_graph
from espdl_hil.streaming import StreamingPlan

FRAMES = 48
CHUNKS = (1, 2, 3, 4, 6)
SEEDS = range(5000, 5012)


def tail_network(seed):
    """A random network whose head keeps only the last frames."""
    rng = random.Random(seed)
    channels, layers, _ = randomnet.generate(seed)
    last = rng.randint(1, 3)
    heads = [
        ("tail", rng.randint(1, 4)),
        ("last",),
        ("middle", last + rng.randint(1, 3), last),
        ("both", rng.randint(1, 4)),
    ]
    return channels, layers, rng.choice(heads)


class Windows:
    """What the windows of many tails gave.

    Attributes:
        networks: Networks with a tail.
        shorter: Tail values from a window that is shorter than its prefix; all equal.
        differing: Those that differ from the value of the whole prefix.
        tight: Networks whose tail differs if the window is one stride shorter.
    """

    def __init__(self, export):
        self._export = export
        self.networks = self.shorter = self.tight = 0
        self.differing = []

    def run(self, seeds):
        for seed in seeds:
            spec = tail_network(seed)
            legal = [c for c in CHUNKS if c % randomnet.total_stride(spec) == 0]
            chunk = random.Random(seed).choice(legal)
            exported = self._export(Request(spec, [[1, 4, FRAMES]], [2], [chunk]))
            plan = StreamingPlan.from_json(exported.plans[chunk])
            try:
                check_graph(load_graph(exported.offline), "esp32s3")
            except UnsupportedOpError:  # the exporter's offline file is wrong by itself
                continue
            stream = Stream(exported.offline, exported.streaming[chunk], plan, "esp32s3", seed)
            for alignment in plan.alignments:
                if alignment.kind == "tail":
                    self._check(stream, alignment, (seed, spec, chunk))

    def _check(self, stream, alignment, label):
        size, stride = stream.plan.chunk_frames[stream.first], stream.plan.total_stride
        window = alignment.window_frames
        assert window % stride == 0
        self.networks += 1
        tight = False
        for count in range(1, stream.count + 1):
            if count * size < alignment.min_prefix_frames or count * size <= window:
                continue
            expected = stream.run_offline(count)[alignment.output]
            self.shorter += 1
            if not np.array_equal(stream.run_window(count, window)[alignment.output], expected):
                self.differing.append((*label, count))
            tight = tight or self._misses(stream, alignment, count, expected)
        self.tight += tight

    @staticmethod
    def _misses(stream, alignment, count, expected):
        """Whether a window that is one stride shorter does not give the value."""
        shorter = alignment.window_frames - stream.plan.total_stride
        if shorter <= 0:
            return True
        try:
            observed = stream.run_window(count, shorter)[alignment.output]
        except UnsupportedOpError:  # too short for some node to run
            return True
        return not np.array_equal(observed, expected)


def test_the_window_of_a_tail_gives_the_value_of_the_whole_prefix(export, capsys):
    windows = Windows(export)

    windows.run(SEEDS)

    with capsys.disabled():
        print(
            f"\n{windows.networks} tails, {windows.shorter} values from windows shorter than the "
            f"prefix, {windows.tight} windows as short as can be"
        )
    assert windows.differing == []
    assert windows.networks >= 11
    assert windows.shorter > 200
    # The twin: as a rule a window that is one stride shorter is noticed.
    assert windows.tight * 2 > windows.networks


def plan(out, b, chunk=4, **options):
    return plan_of(b.graph(*out), options.pop("axes", {"x": 1}), chunk, **options)


def repeated(b):
    """Every frame twice."""
    b.constants["scales"] = np.array([1, 1, 2], np.float32)
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return b.node("Resize", "x", "", "scales", mode="nearest", **how)


@pytest.mark.parametrize(
    ("head", "frames"),
    [
        (lambda b: b.slice("x", -3, 2**31 - 1), 3),
        (lambda b: b.slice("x", -5, -3), 5),
        (lambda b: b.slice(b.conv("x", 5), -2, 2**31 - 1), 6),
        (lambda b: b.slice(b.conv("x", 5, pads=(0, 0)), -2, 2**31 - 1), 6),
        (lambda b: b.slice(b.slice("x", 0, -4), -2, 2**31 - 1), 6),
        (lambda b: b.slice(b.conv("x", 4, stride=2, pads=(2, 0)), -2, 2**31 - 1), 6),
        (lambda b: b.slice(b.conv("x", 5, stride=2, pads=(4, 0)), -2, 2**31 - 1), 8),
        (lambda b: b.slice(repeated(b), -3, 2**31 - 1), 2),
        (lambda b: b.slice(b.reshape("x", [1, 12, 16]), -2, 2**31 - 1), 4),
        (lambda b: b.node("Gather", "x", b.constant([-3, -1]), axis=1), 3),
    ],
)
def test_the_window_of_known_heads(head, frames):
    b = Builder(x=(1, 24, 8))

    (alignment,) = plan([head(b)], b).alignments

    assert (alignment.kind, alignment.window_frames) == ("tail", frames)


def test_another_output_that_needs_more_frames_to_run_lengthens_the_window():
    b = Builder(x=(1, 24, 8))
    tail, long = b.slice("x", -2, 2**31 - 1), b.conv("x", 9, pads=(0, 0))

    alignments = plan([tail, long], b).alignments

    assert [a.window_frames for a in alignments] == [9, 0]


def test_a_length_that_is_no_multiple_of_the_stride():
    """At 25 frames a stride of 2 gives 13, at 24 it gives 12: the window holds for prefixes."""
    b = Builder(x=(1, 25, 8))
    tail = b.slice(b.conv("x", 2, stride=2, pads=(0, 0)), -2, 2**31 - 1)

    result = plan([tail], b)

    assert result.total_stride == 2
    assert result.alignments[0].window_frames in (4, 6)


def test_behind_a_recurrence_only_the_whole_prefix_will_do():
    b = Builder(x=(24, 1, 8), h0=(1, 1, 8))
    weights = [b.constant(np.zeros(3)) for _ in range(3)]
    y, hn = b.node("GRU", "x", *weights, "", "h0", outputs=2, hidden_size=8)
    last = b.slice(y, -1, 2**31 - 1, axis=0)

    alignments = plan([last, hn], b, axes={"x": 0}, state={"h0": hn}).alignments

    assert [(a.kind, a.window_frames) for a in alignments] == [("tail", None), ("tail", None)]


def test_the_window_survives_json():
    b = Builder(x=(1, 24, 8))
    result = plan([b.slice("x", -3, 2**31 - 1)], b)
    unbounded = replace(result, alignments=(replace(result.alignments[0], window_frames=None),))

    assert StreamingPlan.from_json(result.to_json()) == result
    assert StreamingPlan.from_json(unbounded.to_json()) == unbounded
