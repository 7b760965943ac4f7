"""What a device should give for one case, computed on the host. Knows arrays, not devices."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil import interpreter
from espdl_hil.compare import TAIL, Fidelity, cut_offline
from espdl_hil.diagnosis.replay import HostRun
from espdl_hil.errors import ConfigError, StreamingError, UnsupportedOpError
from espdl_hil.espdl import load_graph
from espdl_hil.proof.chip_made import edit_for, other_code, predict
from espdl_hil.proof.ladder import climb
from espdl_hil.proof.shown import not_shown
from espdl_hil.reference import judge

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from espdl_hil.compare import Array, Tensors
    from espdl_hil.espdl import Graph
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.chip_made import ChipMade
    from espdl_hil.proof.ladder import Ladder
    from espdl_hil.quantize import Artifacts
    from espdl_hil.reference import Judged
    from espdl_hil.streaming import Alignment, Finding, StreamingPlan

    StepTensors = dict[str, Array]


@dataclass(frozen=True)
class Expected:
    """The stimulus of a case, cut into chunks, and what the models make of it.

    All tensors are integers (or float32 where the file says so) in the file's own layout.

    Attributes:
        case: The row of the table.
        artifacts: Its files.
        uniform: Nodes that the interpreter computes as if the chip had one code for all sizes.
    """

    case: Case
    artifacts: Artifacts
    uniform: frozenset[str] = frozenset()

    @functools.cached_property
    def plan(self) -> StreamingPlan:
        """How the streaming file relates to the offline one.

        Raises:
            StreamingError: the analysis refuses the network, so nothing says what to expect.
        """
        plan = self.artifacts.plans.get(self.case.chunk_frames)
        if plan is None:
            raise StreamingError(
                "the analysis finds no way to stream this network",
                rule="S000",
                node=self.case.model.name,
                hint=f"espdl-hil lint {self.case.model.source}",
            )
        return plan

    @property
    def whole(self) -> StepTensors:
        """Every graph input of the offline model, the whole stimulus."""
        return self.artifacts.inputs_q

    @functools.cached_property
    def chunks(self) -> list[StepTensors]:
        """The inputs of each step: slices of the stimulus; state inputs are left out.

        A ragged last chunk is filled up with zeros.
        """
        count = self.case.model.chunk_count(self.case.chunk_frames)
        steps: list[StepTensors] = [{} for _ in range(count)]
        for name, axis in self.plan.frame_axes.items():
            frames = self.plan.chunk_frames[name]
            filled = _fill(self.whole[name], axis, count * frames)
            for step, part in zip(steps, np.split(filled, count, axis), strict=True):
                step[name] = np.ascontiguousarray(part)
        return steps

    @functools.cached_property
    def offline_graph(self) -> Graph:
        """The offline file, read once."""
        return load_graph(self.artifacts.offline)

    @property
    def streaming_path(self) -> Path:
        """The streaming file of this chunk size."""
        return self.artifacts.streaming[self.case.chunk_frames]

    @functools.cached_property
    def streaming_graph(self) -> Graph:
        """The streaming file of this chunk size, read once."""
        return load_graph(self.streaming_path)

    @property
    def offline(self) -> StepTensors:
        """The interpreter's run of the offline file over the whole stimulus."""
        return self._climbed_offline[0]

    @property
    def ladder(self) -> Ladder:
        """How well each layer of that run keeps the float network's values."""
        return self._climbed_offline[1]

    @functools.cached_property
    def judged(self) -> tuple[Judged, ...]:
        """Each node of the offline file on the reference's own inputs."""
        artifacts, tolerance = self.artifacts, self.case.tolerance
        return judge(
            self.offline_graph, self.case.target, artifacts.recorded, self.whole, tolerance
        )

    @functools.cached_property
    def _climbed_offline(self) -> tuple[StepTensors, Ladder]:
        session = self._load_offline()
        outputs = session.step(self.whole)
        return outputs, climb(self.offline_graph, self.case.target, session, self.artifacts)

    @property
    def stream(self) -> list[StepTensors]:
        """The interpreter's run of the streaming file, one entry a chunk."""
        return self._watched_stream[0]

    @property
    def lane_warnings(self) -> tuple[str, ...]:
        """What saturated in the accumulators of the chip's vector unit, a sentence a node."""
        return self._watched_stream[1]

    @functools.cached_property
    def _watched_stream(self) -> tuple[list[StepTensors], tuple[str, ...]]:
        host = self._streaming_host(self.streaming_graph)
        return host.run(self.chunks), tuple(map(str, host.session.lane_saturations))

    @functools.cached_property
    def not_shown(self) -> tuple[Finding, ...]:
        """What the stimulus does not show of the state between chunks; see ``shown.not_shown``."""
        host = self._streaming_host(self.streaming_graph)
        return not_shown(self.plan, self.chunks, self.stream, host)

    @functools.cached_property
    def chip_made(self) -> ChipMade | None:
        """What the chip itself makes of the cut into chunks; None if nothing."""
        case, chunks = self.case, self.plan.chunk_frames
        sizes = {name: (axis, chunks[name]) for name, axis in self.plan.frame_axes.items()}
        nodes = other_code(self.offline_graph, self.streaming_graph, case.target)
        if not nodes:
            return None

        def runs(uniform: frozenset[str]) -> tuple[list[StepTensors], list[StepTensors]]:
            same = replace(self, uniform=uniform)
            return same.cut(same.offline), same.trim(same.stream)

        edit = edit_for(nodes, self.streaming_graph, case.target, sizes, case.model.frames)
        return predict(nodes, runs, edit)

    def flipped_weight(self) -> bytes:
        """The streaming file with one bit of one weight flipped, of the same length.

        Raises:
            ConfigError: no weight of the model changes any output of its stimulus.
        """
        from espdl_hil.simulator.faults import flip_weight

        return flip_weight(self.streaming_path.read_bytes(), self._changes)

    def _changes(self, data: bytes) -> bool:
        """Whether another build of the streaming file gives other outputs."""
        outputs = self._streaming_host(load_graph(data)).run(self.chunks)
        return any(
            not np.array_equal(step[name], before[name])
            for step, before in zip(outputs, self.stream, strict=True)
            for name in before
        )

    def _streaming_host(self, graph: Graph) -> HostRun:
        return HostRun(graph, self.case.target, self.plan.state, self.uniform)

    def _load_offline(
        self, shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> interpreter.Execution:
        return interpreter.load(
            self.offline_graph, self.case.target, input_shapes=shapes, uniform=self.uniform
        )

    def cut(self, offline: Tensors) -> list[StepTensors]:
        """What the stream should give at each chunk, by what the offline model gave.

        Warm-up frames, in which a cold cache differs from offline padding by design, hold the
        interpreter's prediction. A tail is compared with the offline run of its prefix: the
        interpreter's, and for the last chunk the given one.
        """
        steps: list[StepTensors] = [{} for _ in self.chunks]
        for alignment in self._compared:
            name = alignment.output
            if alignment.kind == TAIL:
                values = self._tail_values(alignment, offline[name])
            else:
                values = self._cut_frames(offline[name], alignment)
            for step, value in zip(steps, values, strict=True):
                step[name] = value
        return steps

    def trim(self, stream: Sequence[Tensors]) -> list[StepTensors]:
        """Drop what a ragged last chunk's filling gave, which nothing is compared with."""
        steps = [dict(step) for step in stream]
        for alignment in self._compared:
            if steps and alignment.kind != TAIL:
                keep = self._last_frames(alignment)
                last = steps[-1][alignment.output]
                steps[-1][alignment.output] = _take(last, alignment.frame_axis, keep)
        return steps

    def axes(self, outputs: Mapping[str, Any]) -> dict[str, int | None]:
        """The time axis of each of *outputs* in the file's layout; None if it has none."""
        axes = {a.output: a.frame_axis for a in self.plan.alignments}
        return {name: axes[name] if axes[name] >= 0 else None for name in outputs}

    @property
    def frame_axes(self) -> dict[str, int | None]:
        """The time axis of every output of the stream that is compared; None if it has none."""
        return self.axes(dict.fromkeys(a.output for a in self._compared))

    @property
    def skip_frames(self) -> dict[str, int]:
        """Leading frames of each output's stream without a counterpart."""
        return {
            a.output: self._first_defined(a) * max(a.out_frames_per_chunk, 1)
            if a.kind == TAIL
            else a.latency_frames
            for a in self._compared
        }

    @property
    def silent_chunks(self) -> frozenset[int]:
        """Chunks that lie wholly in skipped frames by design."""
        skip = self.skip_frames
        return frozenset(
            chunk
            for chunk in range(len(self.chunks))
            if all(
                (chunk + 1) * max(a.out_frames_per_chunk, 1) <= skip[a.output]
                for a in self._compared
            )
        )

    def fidelities(self, offline: Tensors) -> dict[str, Fidelity]:
        """How close each output of the quantized model is to the float one's; no states."""
        axes = self.axes(offline)
        exponents = {info.name: info.exponents for info in self.offline_graph.outputs}
        found = {}
        for name, value in self.artifacts.float_outputs.items():
            if name in self.plan.state.values():
                continue
            observed = offline[name]
            if observed.dtype.kind != "f":
                observed = np.ldexp(observed.astype(np.float64), exponents[name][0])
            found[name] = Fidelity.of(value, observed, axes[name])
        return found

    @functools.cached_property
    def _compared(self) -> tuple[Alignment, ...]:
        """Outputs that are compared; after a ragged last chunk recurrent state is not.

        Raises:
            ConfigError: the last chunk is ragged and an output is computed from the last frames.
        """
        if not self._ragged_frames:
            return self.plan.alignments
        tails = [a.output for a in self.plan.alignments if a.kind == TAIL and not a.state_input]
        if tails:
            raise ConfigError(
                f"{self.case.id}: output {tails[0]} is computed from the last frames, which are "
                "filling in a ragged last chunk",
                hint="choose chunk_frames that divide the frames",
            )
        return tuple(a for a in self.plan.alignments if not a.state_input)

    @property
    def _ragged_frames(self) -> int:
        """Frames of the first input in a ragged last chunk; 0 when chunks divide the stimulus."""
        return self.case.model.frames % self.case.chunk_frames

    @functools.cached_property
    def _runs_at_other_lengths(self) -> bool:
        """Whether the offline file runs on a part of the stimulus.

        False when it holds its own frame count in a constant.
        """
        probe = next(a for a in self._compared if a.kind == TAIL)
        try:
            self._prefix_runs(probe.window_frames, len(self.chunks) - 2)
        except UnsupportedOpError:
            return False
        return True

    def _prefix_runs(self, window_frames: int | None, first: int) -> list[StepTensors]:
        """The interpreter's offline runs of all prefixes, made once for all tails.

        Args:
            window_frames: As many last frames of a prefix give the tails of the whole prefix; None
                if only all do. So the cost of a run does not grow with the stream, and one session
                serves all.
            first: The chunk that ends the first prefix; the last but one ends the last.
        """
        found = self._prefix_cache.get((window_frames, first))
        if found is not None:
            return found
        found, session = [], None
        for chunk in range(first, len(self.chunks) - 1):
            inputs = self._prefix(window_frames, chunk)
            shapes = {name: value.shape for name, value in inputs.items()}
            if session is None or shapes != {info.name: info.shape for info in session.inputs}:
                session = self._load_offline(shapes)
            outputs = session.step(inputs)
            found.append({a.output: outputs[a.output] for a in self._compared if a.kind == TAIL})
        self._prefix_cache[window_frames, first] = found
        return found

    @functools.cached_property
    def _prefix_cache(self) -> dict[tuple[int | None, int], list[StepTensors]]:
        return {}

    def _prefix(self, window_frames: int | None, chunk: int) -> StepTensors:
        """The stimulus up to the end of *chunk*, or the last frames of that."""
        end = (chunk + 1) * self.case.chunk_frames
        start = 0 if window_frames is None else max(0, end - window_frames)
        inputs = dict(self.whole)
        for name, axis in self.plan.frame_axes.items():
            scale, frames = self.plan.chunk_frames[name], self.case.chunk_frames
            part = slice(start * scale // frames, end * scale // frames)
            inputs[name] = np.ascontiguousarray(inputs[name][(slice(None),) * axis + (part,)])
        return inputs

    def _first_defined(self, alignment: Alignment) -> int:
        """The first chunk that has a prefix to be compared with.

        A recurrent state is compared at its end: what it was before shows in the outputs.
        """
        last = len(self.chunks) - 1
        if alignment.state_input or last == 0 or not self._runs_at_other_lengths:
            return last
        ends = [(chunk + 1) * self.case.chunk_frames for chunk in range(last + 1)]
        return next((i for i, end in enumerate(ends) if end >= alignment.min_prefix_frames), last)

    def _tail_values(self, alignment: Alignment, last: Array) -> list[Array]:
        """The value of a tail after each chunk; the stream's own where nothing is compared."""
        first = self._first_defined(alignment)
        unseen = [step[alignment.output] for step in self.stream[:first]]
        prefixes = self._prefix_runs(alignment.window_frames, first)
        return [*unseen, *(outputs[alignment.output] for outputs in prefixes), last]

    def _cut_frames(self, offline: Array, alignment: Alignment) -> list[Array]:
        count, axis = len(self.chunks), alignment.frame_axis
        per_chunk, latency = alignment.out_frames_per_chunk, alignment.latency_frames
        filled = _fill(offline, axis, count * per_chunk - latency)
        values = cut_offline(filled, alignment, count)
        for chunk, value in enumerate(values):
            warm = latency + alignment.warmup_frames - chunk * per_chunk
            if warm > 0:
                own = self.stream[chunk][alignment.output]
                _take(value, axis, warm)[...] = _take(own, axis, warm)
        values[-1] = _take(values[-1], axis, self._last_frames(alignment))
        return values

    def _last_frames(self, alignment: Alignment) -> int:
        """Frames of the last chunk's output that real input frames gave."""
        if not self._ragged_frames:
            return alignment.out_frames_per_chunk
        return alignment.out_frames_per_chunk * self._ragged_frames // self.case.chunk_frames


def _take(array: Array, axis: int, frames: int) -> Array:
    """The leading frames of *array*, as a view."""
    return array[(slice(None),) * axis + (slice(0, frames),)]


def _fill(array: Array, axis: int, frames: int) -> Array:
    """*array*, continued with zeros to a length of *frames* where it is shorter."""
    missing = frames - array.shape[axis]
    if missing <= 0:
        return array
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, missing)
    return np.pad(array, widths)
