"""The process behind ``export_bench.Exporter``: only here are torch and esp-ppq imported."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
PIPE = os.fdopen(os.dup(1), "wb")  # esp-ppq prints on 1 and 2
SINK = os.open(os.devnull, os.O_WRONLY)
os.dup2(SINK, 1)
os.dup2(SINK, 2)
warnings.simplefilter("ignore")

import esp_ppq.lib  # noqa: E402
import export_bench  # noqa: E402
import faulty_networks  # noqa: E402
import randomnet  # noqa: E402
import torch  # noqa: E402
from esp_ppq.api import espdl_quantize_torch, insert_streaming_cache_on_var  # noqa: E402
from esp_ppq.api.espdl_interface import get_target_platform  # noqa: E402
from esp_ppq.parser.espdl.espdl_streaming import StreamingTable  # noqa: E402
from esp_ppq.parser.espdl.espdl_typedef import ExporterPatternInfo  # noqa: E402

from espdl_hil.errors import StreamingError  # noqa: E402
from espdl_hil.espdl import load_graph  # noqa: E402
from espdl_hil.quantize.plan_pass import (  # noqa: E402
    analyze_permuted,
    apply_offline_edits,
    apply_plan,
)
from espdl_hil.streaming import check_export  # noqa: E402

CALIBRATION_BATCHES = 2


class Job:
    """One request."""

    def __init__(self, request: export_bench.Request, folder: Path) -> None:
        self.request = request
        self.folder = folder
        self.answer = export_bench.Exported()
        StreamingTable().reset()
        ExporterPatternInfo().reset()

    def run(self) -> export_bench.Exported:
        request = self.request
        self.graph = self._calibrate()
        self.inputs = list(self.graph.inputs)
        pairs = zip(self.inputs, request.axes, strict=True)
        self.axes = {name: axis for name, axis in pairs if axis is not None}
        outputs = list(self.graph.outputs)
        self.answer.state = {self.inputs[i]: outputs[o] for i, o in request.state}
        self._export_offline()
        for chunk in request.chunks:
            self._export_planned(chunk)
        for chunk in request.auto:
            self._export_auto(chunk)
        return self.answer

    def _calibrate(self):
        request = self.request
        torch.manual_seed(0)
        if isinstance(request.network, str):
            module = getattr(faulty_networks, request.network)()
        else:
            module = randomnet.build(request.network)
        batches = [[torch.randn(s) for s in request.shapes] for _ in range(CALIBRATION_BATCHES)]
        single = len(request.shapes) == 1
        return espdl_quantize_torch(
            model=module.eval(),
            espdl_export_file=str(self.folder / "x.espdl"),
            calib_dataloader=[batch[0] for batch in batches] if single else batches,
            calib_steps=CALIBRATION_BATCHES,
            input_shape=request.shapes[0] if single else request.shapes,
            target=request.target,
            num_of_bits=request.bits,
            collate_fn=lambda batch: batch,
            skip_export=True,
            error_report=False,
            verbose=0,
        )

    def _export(self, **options) -> bytes:
        path = self.folder / "x.espdl"
        platform = get_target_platform(self.request.target, self.request.bits)
        exporter = esp_ppq.lib.Exporter(platform=platform)
        exporter.export(str(path), self.graph, export_config=False, **options)
        return path.read_bytes()

    def _chunks(self, chunk: int) -> dict[str, int]:
        """Frames of each input in one chunk, in the ratio of their lengths."""
        frames = {
            name: self.request.shapes[self.inputs.index(name)][axis]
            for name, axis in self.axes.items()
        }
        first = next(iter(frames.values()))
        return {name: count * chunk // first for name, count in frames.items()}

    def _stream_shapes(self, chunk: int) -> dict[str, list[int]]:
        shapes = {}
        for name, frames in self._chunks(chunk).items():
            shape = list(self.request.shapes[self.inputs.index(name)])
            shape[self.axes[name]] = frames
            shapes[name] = shape
        return shapes

    def _export_offline(self) -> None:
        def record(graph) -> None:
            known = ExporterPatternInfo()
            for name, axis in self.axes.items():
                self.answer.axes[name] = known.get_var_permute(name).index(axis)

        def generalize(graph) -> None:
            apply_offline_edits(graph, self.analysis)

        chunk = (self.request.chunks or self.request.auto)[0]
        passes = [record, self._analyzed(chunk), generalize]
        self.answer.offline = self._export(streaming_custom_passes=passes)

    def _export_planned(self, chunk: int) -> None:
        def convert(graph) -> None:
            apply_plan(graph, self.analysis.plan)

        try:
            data = self._export(
                streaming_input_shape=self._stream_shapes(chunk),
                streaming_custom_passes=[self._analyzed(chunk), convert],
            )
        except StreamingError as refusal:
            self.answer.refused[chunk] = (refusal.rule, refusal.node, str(refusal))
            ExporterPatternInfo().reset()
            return
        self.answer.streaming[chunk] = data
        self.answer.plans[chunk] = self.analysis.plan.to_json()
        self.answer.findings[chunk] = self._check(data)

    def _analyzed(self, chunk: int):
        """A pass that keeps the analysis of the exporter's own graph."""

        def keep(graph) -> None:
            shapes = dict(zip(self.inputs, map(tuple, self.request.shapes), strict=True))
            self.analysis = analyze_permuted(
                graph, shapes, self.axes, self._chunks(chunk), self.answer.state
            )

        return keep

    def _check(self, data: bytes) -> list[dict[str, str]]:
        return [finding.to_json() for finding in check_export(self.analysis, load_graph(data))]

    def _export_auto(self, chunk: int) -> None:
        options = self.request.options
        values = None
        if options.get("test_values"):
            inputs = dict(zip(self.inputs, map(torch.zeros, self.request.shapes), strict=True))
            values = {"inputs": inputs, "outputs": {}}
        if options.get("leak"):
            self._fail(chunk, options["leak"])
        table = [self._entry(*entry) for entry in options.get("table", ())]
        data = self._export(
            streaming_input_shape=self._stream_shapes(chunk),
            auto_streaming=True,
            streaming_table=table or None,
            values_for_test=values,
            streaming_custom_passes=[self._analyzed(chunk)],
        )
        self.answer.auto[chunk] = data
        self.answer.auto_findings[chunk] = self._check(data)

    def _entry(self, consumer: str, window: int, axis: int, only: bool) -> dict:
        operation = self._find(consumer)
        name = operation.inputs[0].name
        return insert_streaming_cache_on_var(name, window, operation.name if only else None, axis)

    def _find(self, part: str):
        return next(op for name, op in self.graph.operations.items() if part in name)

    def _fail(self, chunk: int, table: list) -> None:
        """Let an export fail after it has filled the exporter's table."""

        def fail(graph) -> None:
            raise RuntimeError("a pass that fails")

        try:
            self._export(
                streaming_input_shape=self._stream_shapes(chunk),
                streaming_table=[self._entry(*entry) for entry in table],
                streaming_custom_passes=[fail],
            )
        except RuntimeError:
            ExporterPatternInfo().reset()  # what a caller can reset; the table stays


def main() -> None:
    torch.set_num_threads(1)
    gc.freeze()  # esp-ppq collects garbage six times a network; what is imported stays anyway
    with tempfile.TemporaryDirectory() as folder:
        while (request := export_bench.receive(sys.stdin.buffer)) is not None:
            try:
                answer = Job(request, Path(folder)).run()
            except Exception:  # noqa: BLE001 - the client shows it
                answer = traceback.format_exc()
            export_bench.send(PIPE, answer)


if __name__ == "__main__":
    main()
