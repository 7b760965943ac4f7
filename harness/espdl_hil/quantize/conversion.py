"""One recipe: float trace → calibrated graph → files. Runs only in a worker.

::

    calibrate  one calibrated graph, and its own execution of the stimulus
    export     offline.espdl and one streaming file a chunk size, all from that graph;
               where the caches go is planned inside, on the exporter's permuted graph; what a
               chip would compute wrongly is gone around, in all files alike
    check      the outputs are not constant; ESP-DL has a kernel for every node of every file,
               which computes it rightly; exponents and weights of the streaming files equal the
               offline file's; what the streaming lint says of each of them
"""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from espdl_hil import interpreter
from espdl_hil.errors import QuantizeError, StreamingError, UnsupportedOpError
from espdl_hil.espdl import load_graph
from espdl_hil.model import Quantization, load_model
from espdl_hil.operators import check_graph, find_detours
from espdl_hil.quantize import exporter, lanes, reference
from espdl_hil.quantize.alive import Output, check_alive, check_depends, check_range
from espdl_hil.quantize.artifacts import (
    OFFLINE,
    plan_name,
    streaming_name,
    write_arrays,
    write_meta,
)
from espdl_hil.quantize.check import check_same_calibration, check_state
from espdl_hil.quantize.float_faults import refuse_nodes
from espdl_hil.quantize.float_graph import notes_of
from espdl_hil.quantize.plan_pass import (
    analyze_permuted,
    apply_offline_edits,
    apply_plan,
    take_detours,
)
from espdl_hil.streaming import Flow, Severity, check_export, from_espdl, rules
from espdl_hil.streaming.names import with_user_names

if TYPE_CHECKING:
    from pathlib import Path

    from espdl_hil.espdl import Graph
    from espdl_hil.model import StreamingModel
    from espdl_hil.operators.detour import Detour
    from espdl_hil.quantize.artifacts import Arrays
    from espdl_hil.quantize.recipe import Recipe
    from espdl_hil.quantize.stages import Stages
    from espdl_hil.quantize.trace import FloatTrace
    from espdl_hil.streaming import Analysis, Finding

DETOURS = 5  # times that the files are made: a way around may lead to another
MAX_DRIFT = 1e-3  # of an output's peak, by float sums in another order


class Conversion:
    """The making of one recipe, from its float trace to the files of ``artifacts.py``."""

    def __init__(self, recipe: Recipe, trace: FloatTrace, directory: Path, stages: Stages) -> None:
        self._recipe = recipe
        self._trace = trace
        self._directory = directory
        self._stages = stages
        self._analyses: dict[int, Analysis] = {}  # by chunk size
        self._detours: dict[str, Detour] = {}  # by node name
        # The model file runs again, for what it declares and the passes that it may give.
        model = load_model(recipe.source)
        self._model = replace(
            model,
            chunk_frames=recipe.chunk_frames,
            seed=recipe.seed,
            quantization=recipe.quantization,
            streaming=model.streaming if recipe.streaming == "given" else recipe.streaming,
        )

    def make(self) -> None:
        """Run all stages.

        Raises:
            HarnessError: a stage failed; ``QuantizeError`` names it.
        """
        model, trace, recipe = self._model, self._trace, self._recipe
        random.seed(recipe.seed)
        torch.manual_seed(recipe.seed)
        with self._stages.stage("calibrate"):
            graph = exporter.calibrate(
                trace.onnx,
                recipe.target,
                recipe.bits,
                trace.batches,
                model.state,
                model.quantization,
            )
            notes = notes_of(trace.onnx) + self._avoid_saturation(graph)
            run = reference.execute(graph, trace.stimulus)
        with self._stages.stage("export"):
            layouts = self._export(graph)
            reference.record(run, self._load(OFFLINE), layouts, self._directory)
            network = self._load_float()
            reference.write_activations(
                network,
                trace.stimulus,
                layouts,
                self._frame_axes,
                next(iter(self._analyses.values())).shapes,
                self._directory,
            )
        arrays = {
            "stimulus": trace.stimulus,
            "inputs_q": {n: layouts[n].quantize(a) for n, a in trace.stimulus.items()},
            "reference": {n: layouts[n].quantize(a) for n, a in run.outputs(model.outputs).items()},
            "float_outputs": {n: layouts[n].to_file(a) for n, a in trace.outputs.items()},
        }
        with self._stages.stage("check"):
            findings = self._check(arrays)
        write_arrays(self._directory, arrays)
        notes = self._notes_of_detours() + notes
        write_meta(
            self._directory,
            recipe,
            next(iter(self._analyses.values())),
            findings,
            weights_sha256=trace.meta["weights_sha256"],
            seconds={**trace.meta["seconds"], **self._stages.seconds},
            notes=dict.fromkeys(model.chunk_frames, notes),
            layouts={n: layouts[n].permutation for n in trace.outputs},
            log=[line.to_json() for line in self._stages.lines],
        )

    def _notes_of_detours(self) -> list[str]:
        return [
            f"{node.op_type} {node.name!r} is exported in another form, for as it stands the chip "
            f"would compute it wrongly: {self._detours[node.name]}"
            for node in self._load(OFFLINE).nodes
            if node.name in self._detours
        ]

    def _load_float(self) -> Any:
        """The float network as it was quantized.

        Raises:
            QuantizeError: equalization has changed what it computes.
        """
        model, trace = self._model, self._trace
        network = exporter.load_float(trace.onnx, model.quantization)
        if model.quantization.equalization:
            values = exporter.run_float(network, trace.stimulus, model.outputs)
            for name, wanted in trace.outputs.items():
                error, peak = np.abs(values[name] - wanted).max(), np.abs(wanted).max()
                if error > MAX_DRIFT * peak:
                    raise QuantizeError(
                        f"equalization changes output {name} by up to {error:.3g}, its peak is "
                        f"{peak:.3g}: esp-ppq scales a layer whose result is an output as well",
                        stage="calibrate",
                        hint="leave equalization out for this network",
                    )
        return network

    def _avoid_saturation(self, graph: Any) -> list[str]:
        """Do what ``Quantization.avoid_lane_saturation`` asks for, and say what came of it."""
        model, target = self._model, self._recipe.target
        if not model.quantization.avoid_lane_saturation or target != lanes.TARGET:
            return []
        network = exporter.load_float(self._trace.onnx, Quantization())
        judged = [name for name in model.outputs if name not in model.state.values()]
        wanted = [exporter.run_float(network, batch, judged) for batch in self._trace.batches]

        def watch() -> lanes.Watched:
            layouts = self._export_offline(graph)
            inputs = [
                {name: layouts[name].quantize(array) for name, array in batch.items()}
                for batch in self._trace.batches
            ]
            outputs = [
                {name: layouts[name].to_file(array) for name, array in batch.items()}
                for batch in wanted
            ]
            return lanes.run_batches(self._load(OFFLINE), target, inputs, outputs)

        return [lanes.avoid_saturation(graph, watch)]

    def _export(self, graph: Any) -> dict[str, exporter.Layout]:
        """Export all files, around what the chip would compute wrongly in any of them.

        Returns:
            The layout of each tensor of the offline file.
        """
        for _ in range(DETOURS):
            layouts = self._export_offline(graph)
            try:
                for chunk in self._model.chunk_frames:
                    self._export_streaming(graph, chunk)
            except StreamingError as refusal:
                if refusal.rule == rules.UNRUNNABLE.id:
                    self._check_operators(OFFLINE)  # names every such node, and what there is
                raise
            if not self._find_detours():
                break
            self._analyses.clear()
        return layouts

    def _find_detours(self) -> bool:
        """Find ways around what the files still hold; whether there are new ones."""
        new: dict[str, Detour] = {}
        for name in self._files:
            with contextlib.suppress(UnsupportedOpError):  # which the check reports
                new |= find_detours(self._load(name), self._recipe.target)
        self._detours |= {
            name: detour.instead_of(self._detours.get(name)) for name, detour in new.items()
        }
        return bool(new)

    def _export_offline(self, graph: Any) -> dict[str, exporter.Layout]:
        """Export the offline file, and return the layout of each tensor."""

        def generalize(permuted: Any) -> None:
            # Any legal chunk will do: the offline file is to run at every length.
            apply_offline_edits(permuted, self._analyze(permuted, self._model.chunk_frames[0]))

        return self._export_file(graph, OFFLINE, [generalize])

    def _export_streaming(self, graph: Any, chunk: int) -> None:
        """Export one streaming file, and write the plan where there is one."""
        model = self._model
        chunks = model.chunk_of(chunk)

        def convert(permuted: Any) -> None:
            analysis = self._analyze(permuted, chunk)
            if model.streaming == "plan":
                apply_plan(permuted, analysis.plan)

        passes, options = _given(model)
        shapes = {
            name: _with_size(model.inputs[name], axis, chunks[name])
            for name, axis in model.frame_axes.items()
        }
        # The exporter insists that a streaming shape differs from the offline one.
        options["streaming_input_shape"] = shapes if chunk < model.frames else None
        self._export_file(graph, streaming_name(chunk), [convert, *passes], **options)
        plan = self._analyses[chunk].planned
        if plan is not None:
            (self._directory / plan_name(chunk)).write_text(plan.to_json())

    def _analyze(self, permuted: Any, chunk: int) -> Analysis:
        """Analyse the network for one chunk size, once: the exporter works on equal copies."""
        model = self._model
        if chunk not in self._analyses:
            self._analyses[chunk] = analyze_permuted(
                permuted, model.inputs, model.frame_axes, model.chunk_of(chunk), model.state
            )
        return self._analyses[chunk]

    @property
    def _frame_axes(self) -> dict[str, int]:
        """The time axis of each tensor of the offline file that has one."""
        timing = next(iter(self._analyses.values())).timing
        return {name: found.axis for name, found in timing.items() if isinstance(found, Flow)}

    def _export_file(
        self, graph: Any, name: str, passes: list[Any], **options: Any
    ) -> dict[str, exporter.Layout]:
        target, bits = self._recipe.target, self._recipe.bits

        def around(permuted: Any) -> None:
            take_detours(permuted, self._detours)

        path = self._directory / name
        return exporter.export_file(graph, path, target, bits, [around, *passes], **options)

    def _check(self, arrays: dict[str, Arrays]) -> dict[int, list[Finding]]:
        """Check the files, and return what the lint says of each streaming file."""
        model = self._model
        offline = self._load(OFFLINE)
        quality = self._check_quality(offline, arrays)
        check_state(offline, model.state)
        self._check_operators(OFFLINE)
        session, inputs = interpreter.load(offline, self._recipe.target), arrays["inputs_q"]
        check_depends(session.step(inputs), inputs, model.state, session.step)
        findings = {}
        for chunk in model.chunk_frames:
            streaming = self._load(streaming_name(chunk))
            check_same_calibration(offline, streaming, chunk)
            found = check_export(self._analyses[chunk], streaming)
            findings[chunk] = with_user_names(found, from_espdl(streaming)) + quality
            if all(finding.severity is not Severity.ERROR for finding in findings[chunk]):
                self._check_operators(streaming_name(chunk), chunk)  # else lint says more
        return findings

    def _check_quality(self, offline: Graph, arrays: dict[str, Arrays]) -> list[Finding]:
        """What the stimulus shows of the quantized network, in the files of all chunks."""
        model, planned = self._model, self._analyses[self._model.chunk_frames[0]].planned
        axes = {end.output: end.frame_axis for end in planned.alignments} if planned else {}
        exponents = {
            info.name: info.exponent if info.exponents else None
            for info in (*offline.inputs, *offline.outputs)
        }
        outputs = {
            name: Output(values, real, exponents[name], axes.get(name, -1))
            for name, values in arrays["reference"].items()
            if name not in model.state.values()
            for real in [arrays["float_outputs"][name]]
        }
        inputs = {n: e for n in model.frame_axes if (e := exponents[n]) is not None}
        stimulus, bits = arrays["stimulus"], self._recipe.bits
        return check_alive(outputs) + check_range(stimulus, self._trace.batches, inputs, bits)

    def _check_operators(self, name: str, *chunk_frames: int) -> None:
        """Insist that ESP-DL runs every node of a file rightly, at the sizes of that very file."""
        graph = self._load(name)
        try:
            check_graph(replace(graph, path=name), self._recipe.target)
        except UnsupportedOpError as error:
            if not error.nodes:
                raise
            raise refuse_nodes(error, from_espdl(graph), chunk_frames) from None

    @property
    def _files(self) -> list[str]:
        return [OFFLINE, *map(streaming_name, self._model.chunk_frames)]

    def _load(self, name: str) -> Graph:
        return load_graph(self._directory / name)


def _given(model: StreamingModel) -> tuple[list[Any], dict[str, Any]]:
    """Return passes and exporter options of ``auto``, or of what the model file gives."""
    if isinstance(model.streaming, str):
        return [], {"auto_streaming": True} if model.streaming == "auto" else {}
    entries: list[Any] = [model.streaming] if callable(model.streaming) else [*model.streaming]
    table = [dict(entry) for entry in entries if not callable(entry)]
    options = {"auto_streaming": True, "streaming_table": table} if table else {}
    return [entry for entry in entries if callable(entry)], options


def _with_size(shape: tuple[int, ...], axis: int, size: int) -> list[int]:
    return [*shape[:axis], size, *shape[axis + 1 :]]
