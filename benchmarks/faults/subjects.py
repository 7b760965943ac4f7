"""Models that the diagnosis campaign injects faults into: artifacts, stimulus, right outputs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil import interpreter
from espdl_hil.compare import StreamVerdict, cut_offline, judge, skipped_frames
from espdl_hil.compare.alignment import TAIL
from espdl_hil.diagnosis.mismatch import Case, Facts, Offline
from espdl_hil.diagnosis.replay import Stream
from espdl_hil.errors import HarnessError
from espdl_hil.espdl import Graph, load_graph
from espdl_hil.model import load_models
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from espdl_hil.compare.alignment import AlignmentLike
    from espdl_hil.diagnosis.mismatch import Array, Probe, Tensors
    from espdl_hil.streaming import StreamingPlan

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"


@dataclass(frozen=True)
class Aligned:
    """How an output lies against the offline one."""

    output: str
    frame_axis: int = 1
    out_frames_per_chunk: int = 1
    kind: str = "same"
    latency_frames: int = 0
    warmup_frames: int = 0


@dataclass(frozen=True)
class Subject:
    """One streaming artifact with everything that a verdict needs.

    Attributes:
        name: ``model-chunk``.
        target: ``esp32s3`` or ``esp32p4``.
        bits: 8 or 16.
        graph: The streaming artifact.
        chunks: The stimulus, cut.
        offline: The offline model; None if its outputs are no slices (a tail).
        alignments: One per compared output.
        state: Graph input to the graph output that feeds it.
    """

    name: str
    target: str
    bits: int
    graph: Graph
    chunks: tuple[Tensors, ...]
    offline: Offline | None
    alignments: tuple[AlignmentLike, ...]
    state: Mapping[str, str] = field(default_factory=dict)

    @property
    def frame_axes(self) -> dict[str, int | None]:
        """Time axis of each output; None if it has none."""
        return {a.output: None if a.frame_axis < 0 else a.frame_axis for a in self.alignments}

    @cached_property
    def expected(self) -> list[dict[str, Array]]:
        """The interpreter's outputs, chunk by chunk."""
        return Stream(self.case([], judge([], [], frame_axes={}))).run(self.chunks)

    def case(
        self,
        observed: Sequence[Tensors],
        verdict: StreamVerdict,
        *,
        probe: Probe | None = None,
        facts: Facts | None = None,
    ) -> Case:
        """The case that a diagnosis gets.

        Args:
            observed: What the device gave.
            verdict: How that was judged.
            probe: The device.
            facts: What is known beforehand.
        """
        return Case(
            model=self.name,
            target=self.target,
            bits=self.bits,
            graph=self.graph,
            chunks=self.chunks,
            observed=observed,
            verdict=verdict,
            load=interpreter.load,
            frame_axes=self.frame_axes,
            state=self.state,
            offline=self.offline,
            probe=probe,
            facts=facts or Facts(),
        )

    def judge(self, observed: Sequence[Tensors]) -> StreamVerdict:
        """The verdict against the interpreter's run of the same file."""
        return judge(self.expected, observed, frame_axes=self.frame_axes)

    def judge_offline(self, observed: Sequence[Tensors]) -> StreamVerdict:
        """The verdict against the offline model, which the subject must have."""
        assert self.offline is not None
        session = interpreter.load(self.offline.graph, self.target)
        whole = session.step(dict(self.offline.inputs))
        count = len(self.chunks)
        expected: list[dict[str, Array]] = [{} for _ in range(count)]
        for alignment in self.alignments:
            parts = cut_offline(whole[alignment.output], alignment, count)
            for step, part in zip(expected, parts, strict=True):
                step[alignment.output] = part
        skip = {a.output: skipped_frames(a, predicted=False) for a in self.alignments}
        silent = {
            chunk
            for chunk in range(count)
            if all((chunk + 1) * a.out_frames_per_chunk <= skip[a.output] for a in self.alignments)
        }
        return judge(
            expected, observed, frame_axes=self.frame_axes, skip_frames=skip, silent_chunks=silent
        )


def golden_subjects() -> Iterator[Subject]:
    """The streaming cases of the golden vectors, whose outputs ESP-DL's own kernels gave."""
    for path in sorted(GOLDEN.glob("stream_*.streaming.*.npz")):
        model, _, target, width = path.name.removesuffix(".npz").split(".")
        graph, chunks = _golden(path)
        whole, inputs = _golden(path.with_name(path.name.replace(".streaming.", ".offline.")))
        frames = graph.inputs[0].shape[1]
        yield Subject(
            name=f"{model.removeprefix('stream_')}-chunk{frames}",
            target=target,
            bits=int(width.removeprefix("int")),
            graph=graph,
            chunks=tuple(chunks),
            offline=Offline(whole, inputs[0]),
            alignments=(Aligned(graph.outputs[0].name, 1, frames),),
        )


def _golden(path: Path) -> tuple[Graph, list[dict[str, Array]]]:
    with np.load(path) as file:
        index: dict[str, Any] = json.loads(file["index"].tobytes())
        arrays = {place: file[key] for key, place in index["tensors"].items()}
    steps = []
    for number in range(index["streams"][0]["steps"]):
        head = f"s0/t{number}/in"
        steps.append(
            {
                n: arrays[f"{head}{n}" if n.startswith("/") else f"{head}/{n}"]
                for n in index["inputs"]
            }
        )
    return load_graph(arrays["model"].tobytes()), steps


def zoo_subjects(store: Store, models: Path) -> Iterator[Subject]:
    """Every model of the zoo on both targets, at every width and chunk size.

    Args:
        store: Where artifacts are kept; what is missing is made.
        models: The folder of model files.
    """
    cases = [
        (Recipe.of(model, target, bits), model)
        for model in load_models([models]).values()
        for target in DEVKIT_TARGETS
        for bits in model.bits
    ]
    made = prepare([recipe for recipe, _ in cases], store, jobs=1)
    for recipe, _ in cases:
        artifacts = made[recipe.key]
        if isinstance(artifacts, HarnessError):
            raise artifacts
        for chunk in recipe.chunk_frames:
            yield _zoo_subject(recipe, artifacts, chunk)


def _zoo_subject(recipe: Recipe, artifacts: Artifacts, chunk: int) -> Subject:
    plan = artifacts.plans[chunk]
    inputs = artifacts.inputs_q
    count = min(inputs[n].shape[a] // plan.chunk_frames[n] for n, a in plan.frame_axes.items())
    chunks: list[dict[str, Array]] = [{} for _ in range(count)]
    for name, axis in plan.frame_axes.items():
        frames = plan.chunk_frames[name]
        whole = inputs[name].take(range(count * frames), axis=axis)
        for step, part in zip(chunks, np.split(whole, count, axis=axis), strict=True):
            step[name] = np.ascontiguousarray(part)
    tail = any(a.kind == TAIL for a in plan.alignments)
    offline = Offline(
        load_graph(artifacts.offline),
        inputs,
        plan.total_stride,
        plan.latency_frames,
        plan.warmup_frames,
    )
    return Subject(
        name=f"{recipe.name}-chunk{chunk}",
        target=recipe.target,
        bits=recipe.bits,
        graph=load_graph(artifacts.streaming[chunk]),
        chunks=tuple(chunks),
        offline=None if tail or count * chunk != frames_of(inputs, plan) else offline,
        alignments=plan.alignments,
        state=plan.state,
    )


def frames_of(inputs: Tensors, plan: StreamingPlan) -> int:
    """Frames of the first input that has time."""
    name, axis = next(iter(plan.frame_axes.items()))
    return int(inputs[name].shape[axis])
