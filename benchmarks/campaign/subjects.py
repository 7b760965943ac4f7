"""Models that the campaign breaks something in: artifacts, stimulus, right outputs."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil import interpreter
from espdl_hil.compare import TAIL, StreamVerdict, compare_streams, cut_offline
from espdl_hil.diagnosis.replay import HostRun
from espdl_hil.errors import HarnessError
from espdl_hil.espdl import load_graph
from espdl_hil.model import load_models
from espdl_hil.proof.explain import mismatch_of
from espdl_hil.quantize import Artifacts, Recipe, Store, prepare
from espdl_hil.streaming import Alignment
from espdl_hil.targets import DEVKIT_TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from campaign.device import Device
    from espdl_hil.compare import Array, Tensors
    from espdl_hil.device.model import Model
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.diagnosis.mismatch import Mismatch
    from espdl_hil.espdl import Graph

GOLDEN = Path(__file__).parents[2] / "tests" / "golden"


@dataclass(frozen=True)
class GoldenPlan:
    """What a plan says of a golden model, which was planned by hand."""

    alignments: tuple[Alignment, ...]
    state: Mapping[str, str] = field(default_factory=dict)
    latency_frames: int = 0
    warmup_frames: int = 0


@dataclass(frozen=True)
class Subject:
    """One streaming artifact with everything that a verdict needs.

    Attributes:
        name: ``model-chunk``.
        target: ``esp32s3`` or ``esp32p4``.
        bits: 8 or 16.
        data: The streaming file.
        graph: What it holds.
        chunks: The stimulus, cut.
        plan: How the stream lies against the offline model.
        offline: Offline model and whole stimulus; None if the outputs are no slices (a tail).
    """

    name: str
    target: str
    bits: int
    data: bytes
    graph: Graph
    chunks: tuple[Tensors, ...]
    plan: Any
    offline: tuple[Graph, Tensors] | None

    @cached_property
    def expected(self) -> list[dict[str, Array]]:
        """The interpreter's outputs, chunk by chunk."""
        return HostRun(self.graph, self.target, self.plan.state).run(self.chunks)

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Elements of every node output."""
        trace = interpreter.load(self.graph, self.target).trace
        return {name: value.size for name, value in trace.items()}

    @contextlib.contextmanager
    def loaded(self, device: Device) -> Iterator[Model]:
        """Load the model on a device, as ``Hil.loaded`` does."""
        model = device.session.upload(self.data, self.name)
        if self.plan.state:
            model.bind_state({source: sink for sink, source in self.plan.state.items()})
        yield model
        model.unload()

    def compare(self, observed: Sequence[Tensors]) -> StreamVerdict:
        """The verdict against the interpreter's run of the same file."""
        return compare_streams(self.expected, observed, frame_axes=self._frame_axes)

    def compare_offline(self, observed: Sequence[Tensors]) -> StreamVerdict:
        """The verdict against the offline model, which the subject must have."""
        assert self.offline is not None
        graph, inputs = self.offline
        whole = interpreter.load(graph, self.target).step(dict(inputs))
        count, alignments = len(self.chunks), self.plan.alignments
        expected: list[dict[str, Array]] = [{} for _ in range(count)]
        for alignment in alignments:
            parts = cut_offline(whole[alignment.output], alignment, count)
            for step, part in zip(expected, parts, strict=True):
                step[alignment.output] = part
        skip = {a.output: a.latency_frames + a.warmup_frames for a in alignments}
        silent = {
            chunk
            for chunk in range(count)
            if all((chunk + 1) * a.out_frames_per_chunk <= skip[a.output] for a in alignments)
        }
        axes = self._frame_axes
        return compare_streams(
            expected, observed, frame_axes=axes, skip_frames=skip, silent_chunks=silent
        )

    def mismatch(
        self,
        observed: Sequence[Tensors],
        verdict: StreamVerdict,
        steps: Sequence[StepResult] = (),
        **changes: Any,
    ) -> Mismatch:
        """What the product makes of a verdict that failed; *changes* to what it is made from."""
        model = SimpleNamespace(name=self.name)
        case: Any = SimpleNamespace(model=model, target=self.target, bits=self.bits)
        known = {"graph": self.graph, "chunks": self.chunks, "offline": self.offline, **changes}
        return mismatch_of(
            case, self.plan, verdict, streaming=True, observed=observed, steps=steps, **known
        )

    @property
    def _frame_axes(self) -> dict[str, int | None]:
        alignments = self.plan.alignments
        return {a.output: None if a.frame_axis < 0 else a.frame_axis for a in alignments}


def golden_subjects() -> Iterator[Subject]:
    """The streaming cases of the golden vectors, whose outputs ESP-DL's own kernels gave."""
    for path in sorted(GOLDEN.glob("stream_*.streaming.*.npz")):
        model, _, target, width = path.name.removesuffix(".npz").split(".")
        data, chunks = _golden(path)
        whole, inputs = _golden(path.with_name(path.name.replace(".streaming.", ".offline.")))
        graph = load_graph(data)
        frames = graph.inputs[0].shape[1]
        yield Subject(
            name=f"{model.removeprefix('stream_')}-chunk{frames}",
            target=target,
            bits=int(width.removeprefix("int")),
            data=data,
            graph=graph,
            chunks=tuple(chunks),
            plan=GoldenPlan((Alignment(graph.outputs[0].name, "same", 1, frames),)),
            offline=(load_graph(whole), inputs[0]),
        )


def _golden(path: Path) -> tuple[bytes, list[dict[str, Array]]]:
    with np.load(path) as file:
        index: dict[str, Any] = json.loads(file["index"].tobytes())
        arrays = {place: file[key] for key, place in index["tensors"].items()}
    steps = []
    for number in range(index["streams"][0]["steps"]):
        head = f"s0/t{number}/in"
        names = index["inputs"]
        slash = {n: "" if n.startswith("/") else "/" for n in names}
        steps.append({n: arrays[f"{head}{slash[n]}{n}"] for n in names})
    return arrays["model"].tobytes(), steps


def zoo_subjects(store: Store, models: Path) -> Iterator[Subject]:
    """Every model of the zoo on both targets, at every width and chunk size.

    Args:
        store: Where artifacts are kept; what is missing is made.
        models: The folder of model files.
    """
    recipes = [
        Recipe.of(model, target, bits)
        for model in load_models([models]).values()
        for target in DEVKIT_TARGETS
        for bits in model.bits
    ]
    made = prepare(recipes, store, jobs=1)
    for recipe in recipes:
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
    name, axis = next(iter(plan.frame_axes.items()))
    ragged = count * chunk != inputs[name].shape[axis]
    data = artifacts.streaming[chunk].read_bytes()
    return Subject(
        name=f"{recipe.name}-chunk{chunk}",
        target=recipe.target,
        bits=recipe.bits,
        data=data,
        graph=load_graph(data),
        chunks=tuple(chunks),
        plan=plan,
        offline=None if tail or ragged else (load_graph(artifacts.offline), inputs),
    )
