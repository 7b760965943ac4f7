"""Run an offline file whole and a streaming file chunk by chunk, and count what differs."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from harness.espdl import load_graph
from harness.interpreter import load


@dataclass
class Comparison:
    """What a stream was compared with.

    Attributes:
        elements: Compared elements.
        differing: Those that differ.
        first: The first one that differs: output, offline frame; None if none does.
        warm: Elements inside the predicted warm-up, not counted above.
    """

    elements: int = 0
    differing: int = 0
    first: tuple[str, int] | None = None
    warm: int = 0
    outputs: dict[str, list] = field(default_factory=dict)

    def add(self, output, frame, expected, observed):
        assert expected.shape == observed.shape, (output, expected.shape, observed.shape)
        differing = int((expected != observed).sum())
        self.elements += expected.size
        self.differing += differing
        if differing and self.first is None:
            self.first = (output, frame)


def stimulus(graph, frame_axes, frames, seed):
    """Random integers over the whole range for each input, (name → array)."""
    rng = np.random.default_rng(seed)
    values = {}
    for info in graph.inputs:
        shape = list(info.shape)
        if info.name in frame_axes:
            shape[frame_axes[info.name]] = frames[info.name]
        low, high = (np.iinfo(info.dtype).min, np.iinfo(info.dtype).max + 1)
        values[info.name] = rng.integers(low, high, shape).astype(info.dtype)
    return values


def compare(offline, streaming, plan, target, *, seed=0, partition=None):
    """Stream and compare.

    Args:
        offline: Bytes or path of the offline file.
        streaming: Likewise, of the streaming file.
        plan: The StreamingPlan, whose alignments are believed.
        target: ESP-DL target.
        seed: Of the stimulus.
        partition: Chunk frames by input, as a multiple of the total stride; the plan's own by
            default. Only files without a tail run at other sizes than their own.
    """
    off, stream = load_graph(offline), load_graph(streaming)
    axes = dict(plan.frame_axes)
    frames = {i.name: i.shape[axes[i.name]] for i in off.inputs if i.name in axes}
    chunk = dict(plan.chunk_frames) if partition is None else partition
    first = next(iter(chunk))
    chunks = frames[first] // chunk[first]
    values = stimulus(off, axes, frames, seed)
    for name in plan.state:
        values[name] = np.zeros_like(values[name])
    shapes = {i.name: list(i.shape) for i in stream.inputs}
    for name, axis in axes.items():
        shapes[name][axis] = chunk[name]
    session = load(stream, target, input_shapes={n: tuple(s) for n, s in shapes.items()})
    whole = load(off, target).step(values)
    result = Comparison()
    outputs = {a.output: [] for a in plan.alignments}
    state = {name: values[name] for name in plan.state}
    for index in range(chunks):
        feed = dict(state)
        for name, axis in axes.items():
            start = index * chunk[name]
            feed[name] = np.take(values[name], range(start, start + chunk[name]), axis)
        step = session.step(feed)
        for name, chunks_so_far in outputs.items():
            chunks_so_far.append(step[name])
        state = {i: outputs[o][-1] for i, o in plan.state.items()}
    result.outputs = outputs
    for alignment in plan.alignments:
        if alignment.kind == "tail":
            _compare_tail(result, off, target, values, axes, chunk, alignment, outputs)
        else:
            _compare_flow(result, whole[alignment.output], alignment, outputs)
    return result


def _compare_flow(result, whole, alignment, outputs):
    axis, delay = alignment.frame_axis, alignment.latency_frames
    got = np.concatenate(outputs[alignment.output], axis)
    count = min(whole.shape[axis], got.shape[axis] - delay)
    for frame in range(count):
        expected = np.take(whole, frame, axis)
        observed = np.take(got, frame + delay, axis)
        if frame < alignment.warmup_frames:
            result.warm += expected.size
        else:
            result.add(alignment.output, frame, expected, observed)


def _compare_tail(result, off, target, values, axes, chunk, alignment, outputs):
    first = next(iter(chunk))
    for index, observed in enumerate(outputs[alignment.output]):
        if (index + 1) * chunk[first] < alignment.min_prefix_frames:
            continue
        prefix = dict(values)
        for name, axis in axes.items():
            prefix[name] = np.take(values[name], range((index + 1) * chunk[name]), axis)
        session = load(off, target, input_shapes={n: v.shape for n, v in prefix.items()})
        expected = session.step(prefix)[alignment.output]
        result.add(alignment.output, index, expected, observed)
