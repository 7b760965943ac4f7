"""Run an offline file whole and a streaming file chunk by chunk, and count what differs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from espdl_hil.espdl import load_graph
from espdl_hil.interpreter import load


@dataclass
class Comparison:
    """What a stream was compared with.

    Attributes:
        elements: Compared elements, warm-up left out.
        differing: Those that differ.
        first: The first one that differs: output, and offline frame or chunk; None if none does.
        warm: Elements inside the predicted warm-up.
        invariant: Elements of the stream that were compared with one run of the streaming
            file over the whole stimulus, warm-up and latency included.
        varying: Those that depend on where the chunks end.
    """

    elements: int = 0
    differing: int = 0
    first: tuple[str, int] | None = None
    warm: int = 0
    invariant: int = 0
    varying: int = 0

    @property
    def equal(self) -> bool:
        """Something was compared, and nothing differs."""
        return self.elements > 0 and self.differing == 0 and self.varying == 0

    def add(self, output, place, expected, observed):
        assert expected.shape == observed.shape, (output, expected.shape, observed.shape)
        differing = int((expected != observed).sum())
        self.elements += expected.size
        self.differing += differing
        if differing and self.first is None:
            self.first = (output, place)


class Stream:
    """One stimulus, and what the two files make of it.

    Args:
        offline: Bytes of the offline file.
        streaming: Bytes of the streaming file.
        plan: The StreamingPlan, whose alignments are believed.
        target: ESP-DL target.
        seed: Of the stimulus: random integers over the whole range.
    """

    def __init__(self, offline, streaming, plan, target, seed=0):
        self.offline, self.streaming = load_graph(offline), load_graph(streaming)
        self.plan, self.target = plan, target
        self.first = next(iter(plan.chunk_frames))
        rng = np.random.default_rng(seed)
        self.values = {}
        for info in self.offline.inputs:
            low, high = np.iinfo(info.dtype).min, np.iinfo(info.dtype).max + 1
            value = rng.integers(low, high, info.shape).astype(info.dtype)
            self.values[info.name] = np.zeros_like(value) if info.name in plan.state else value
        self.frames = {n: self.values[n].shape[axis] for n, axis in plan.frame_axes.items()}
        self.count = self.frames[self.first] // plan.chunk_frames[self.first]

    def cut(self, start, end):
        """The stimulus from chunk *start* up to chunk *end*."""
        parts = dict(self.values)
        for name, axis in self.plan.frame_axes.items():
            size = self.plan.chunk_frames[name]
            parts[name] = np.take(parts[name], range(start * size, end * size), axis)
        return parts

    def run(self):
        """Outputs of each chunk."""
        session = load(self.streaming, self.target)
        state = {name: self.values[name] for name in self.plan.state}
        steps = []
        for chunk in range(self.count):
            steps.append(session.step({**self.cut(chunk, chunk + 1), **state}))
            state = {i: steps[-1][o] for i, o in self.plan.state.items()}
        return steps

    def run_offline(self, chunks):
        """The offline model over the first chunks."""
        return self._run_once(self.offline, chunks)

    def run_window(self, chunks, frames):
        """The offline model over no more than the last frames of the first chunks."""
        size = self.plan.chunk_frames[self.first]
        inputs = self.cut(0, chunks)
        for name, axis in self.plan.frame_axes.items():
            own = frames * self.plan.chunk_frames[name] // size
            length = inputs[name].shape[axis]
            inputs[name] = np.take(inputs[name], range(max(0, length - own), length), axis)
        return self._run_on(self.offline, inputs)

    def run_at_once(self):
        """The streaming file, all chunks in one step from a cold start."""
        return self._run_once(self.streaming, self.count)

    def _run_once(self, graph, chunks):
        return self._run_on(graph, self.cut(0, chunks))

    def _run_on(self, graph, inputs):
        shapes = {name: value.shape for name, value in inputs.items()}
        return load(graph, self.target, input_shapes=shapes).step(inputs)


def compare(offline, streaming, plan, target, *, seed=0):
    """Stream a random stimulus and compare it with the offline model; see ``Stream``."""
    stream = Stream(offline, streaming, plan, target, seed)
    steps = stream.run()
    whole = load(stream.offline, target).step(stream.values)
    result = Comparison()
    for alignment in plan.alignments:
        chunks = [step[alignment.output] for step in steps]
        if alignment.kind == "tail":
            _compare_tail(result, stream, alignment, chunks)
        else:
            _compare_flow(result, whole[alignment.output], alignment, chunks)
    if all(alignment.kind != "tail" for alignment in plan.alignments):
        _compare_at_once(result, stream, steps)
    return result


def _compare_flow(result, whole, alignment, chunks):
    axis = alignment.frame_axis
    assert whole.shape[axis] == alignment.offline_frames
    for number, chunk in enumerate(chunks):
        assert chunk.shape[axis] == alignment.out_frames_per_chunk
        for frame, place in zip(*alignment.span(number), strict=True):
            expected = np.take(whole, frame, axis)
            if frame < alignment.warmup_frames:
                result.warm += expected.size
            else:
                result.add(alignment.output, frame, expected, np.take(chunk, place, axis))


def _compare_tail(result, stream, alignment, chunks):
    for number, chunk in enumerate(chunks):
        frames = (number + 1) * stream.plan.chunk_frames[stream.first]
        if frames >= alignment.min_prefix_frames:
            expected = stream.run_offline(number + 1)[alignment.output]
            result.add(alignment.output, number, expected, chunk)


def _compare_at_once(result, stream, steps):
    once = stream.run_at_once()
    for alignment in stream.plan.alignments:
        chunks = [step[alignment.output] for step in steps]
        joined = np.concatenate(chunks, alignment.frame_axis)
        result.invariant += joined.size
        result.varying += int((joined != once[alignment.output]).sum())
