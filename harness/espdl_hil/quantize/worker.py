"""One recipe, in a process of its own: module → float ONNX → calibrated graph → files.

Only the zygote imports this module: it is where torch and the exporter live.

::

    build      model file, module, stimulus, float outputs, float ONNX
    calibrate  one calibrated graph, and its own execution of the stimulus
    export     offline.espdl and one streaming file a chunk size, all from that graph;
               where the caches go is planned inside, on the exporter's permuted graph
    check      the outputs are not constant; ESP-DL has a kernel for every node of the offline
               file; exponents and weights of the streaming files equal the offline file's
"""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
import sys
import time
import traceback
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from espdl_hil.errors import HarnessError, QuantizeError, StreamingError
from espdl_hil.espdl import load_graph
from espdl_hil.model import describe_error, importing_from, load_model
from espdl_hil.operators import OPERATORS, check_graph
from espdl_hil.quantize import exporter, float_graph
from espdl_hil.quantize.artifacts import LOG, META, OFFLINE, plan_name, streaming_name, write_arrays
from espdl_hil.quantize.check import check_alive, check_same_calibration, check_state
from espdl_hil.quantize.dependencies import Dependencies
from espdl_hil.quantize.log_rules import Finding, Verdict, classify
from espdl_hil.quantize.outcome import STAGE_MARK, Outcome
from espdl_hil.quantize.plan_pass import make_offline_pass, make_pass
from espdl_hil.quantize.recipe import hash_file
from espdl_hil.quantize.stimulus import make_calibration, make_stimulus
from espdl_hil.streaming import StreamingPlan, from_espdl, plan_streaming

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from espdl_hil.espdl import Graph
    from espdl_hil.model import StreamingModel

    Arrays = dict[str, NDArray[Any]]

ONNX = "float.onnx"
_FAILED_NODE = re.compile(r"Op Execution Error: .*\(Type: (?P<type>\w+)")


def warm_up(directory: Path) -> None:
    """Pay once, before forking, for what torch and onnx load at first use.

    Nothing of esp-ppq runs: its state is to be fresh in each worker.
    """
    torch.set_num_threads(1)
    float_graph.warm_up(directory / ONNX)


def run(request: Mapping[str, Any], directory: Path) -> None:
    """Make one recipe's files, and leave an ``Outcome`` beside them whatever happens.

    Args:
        request: ``source`` (path) and ``recipe`` (``Recipe.to_json``).
        directory: Empty but for the log, which is this process's standard output.
    """
    source = Path(request["source"])
    work = Work(source, request["recipe"], directory)
    error: HarnessError | None = None
    try:
        work.make()
    except HarnessError as raised:
        error = raised
    except Exception as raised:  # noqa: BLE001 - esp-ppq raises anything; the parent shows it
        traceback.print_exc()
        frame = traceback.extract_tb(raised.__traceback__)[-1]
        error = QuantizeError(
            f"{describe_error(raised)} (at {frame.filename}:{frame.lineno})",
            stage=work.stage,
            hint=_hint(raised, work.warnings()),
        )
    Outcome(error, work.dependencies.hashes(source.parent)).write(directory)


class Work:
    """The making of one recipe.

    Args:
        source: The model file.
        recipe: ``Recipe.to_json`` of the recipe.
        directory: Where the files go.

    Attributes:
        stage: The stage that is running, or ran last.
        dependencies: The files that the model file reads.
    """

    def __init__(self, source: Path, recipe: Mapping[str, Any], directory: Path) -> None:
        self.stage = "build"
        self.dependencies = Dependencies(source, directory)
        self._source = source
        self._recipe = recipe
        self._directory = directory
        self._log_bytes = 0
        self._findings: list[Finding] = []
        self._seconds: dict[str, float] = {}

    def make(self) -> None:
        """Run all stages.

        Raises:
            HarnessError: a stage failed; ``QuantizeError`` names it.
        """
        target, bits = self._recipe["target"], self._recipe["bits"]
        onnx = self._directory / ONNX
        with self._stage("build"), importing_from(self._source.parent):
            with self.dependencies.recording():
                model = self._load_model()
                module = _build(model)
                stimulus, batches = make_stimulus(model), make_calibration(model)
                floats = float_graph.run_module(module, stimulus, model.outputs)
            _carry_state(module, model, batches)
            float_graph.export_onnx(module, model, onnx)
        with self._stage("calibrate"):
            graph = exporter.calibrate(onnx, target, bits, batches)
            values = exporter.execute(graph, stimulus, model.outputs)
        onnx.unlink()
        with self._stage("export"):
            # Any legal chunk will do: the offline file is to run at every length.
            chunks = model.chunk_of(model.chunk_frames[0])
            passes = [make_offline_pass(model.frame_axes, chunks, model.state)]
            layouts = exporter.export_file(graph, self._directory / OFFLINE, target, bits, passes)
            offline = load_graph(self._directory / OFFLINE)
            check_graph(replace(offline, path=OFFLINE), target)
            for chunk in model.chunk_frames:
                self._export_streaming(model, graph, chunk, layouts)
        with self._stage("check"):
            self._check(model, values)
        write_arrays(
            self._directory,
            stimulus=stimulus,
            inputs_q={name: layouts[name].quantize(array) for name, array in stimulus.items()},
            reference={name: layouts[name].quantize(array) for name, array in values.items()},
            float_outputs={name: layouts[name].to_file(array) for name, array in floats.items()},
        )
        self._write_meta(model, module)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Run one stage: time it, then judge what the exporter logged meanwhile."""
        self.stage = name
        print(f"{STAGE_MARK}{name}", flush=True)
        start = time.perf_counter()
        yield
        self._seconds[name] = round(time.perf_counter() - start, 4)
        self._judge_log()

    def warnings(self) -> list[str]:
        """Return what the exporter has logged as warning or error since the last stage ended."""
        return [finding.text for finding in self._classify_log()]

    def _judge_log(self) -> None:
        found = self._classify_log()
        self._findings += found
        fatal = [finding for finding in found if finding.verdict is Verdict.FATAL]
        if fatal:
            raise QuantizeError(
                f"the exporter logged an error and went on: {fatal[0].text} [{fatal[0].rule}]",
                stage=self.stage,
            )

    def _classify_log(self) -> list[Finding]:
        """Read what was logged since the last call."""
        sys.stdout.flush()
        sys.stderr.flush()
        with (self._directory / LOG).open("rb") as file:
            file.seek(self._log_bytes)
            text = file.read()
        self._log_bytes += len(text)
        return classify(text.decode(errors="replace").splitlines(), self.stage)

    def _load_model(self) -> StreamingModel:
        """Load the model file again, with what the recipe overrides."""
        model = load_model(self._source)
        recipe = self._recipe
        return replace(
            model,
            chunk_frames=tuple(recipe["chunk_frames"]),
            seed=recipe["seed"],
            streaming=model.streaming if recipe["streaming"] == "given" else recipe["streaming"],
        )

    def _export_streaming(
        self, model: StreamingModel, graph: Any, chunk: int, layouts: Mapping[str, exporter.Layout]
    ) -> None:
        """Export one streaming file, and write the plan where there is one."""
        chunks = model.chunk_of(chunk)
        axes = {
            name: layouts[name].permutation.index(axis) for name, axis in model.frame_axes.items()
        }
        plans: list[StreamingPlan] = []
        options: dict[str, Any] = {}
        if model.streaming == "plan":
            whole = {
                name: tuple(model.inputs[name][axis] for axis in layouts[name].permutation)
                for name in axes
            }
            passes = [make_pass(plans, axes, chunks, model.state, whole)]
        else:
            passes, options = _given(model)
            plans += _expectation(load_graph(self._directory / OFFLINE), axes, chunks, model.state)
        shapes = {
            name: _with_size(shape, model.frame_axes[name], chunks[name])
            for name, shape in model.inputs.items()
            if name in chunks
        }
        exporter.export_file(
            graph,
            self._directory / streaming_name(chunk),
            self._recipe["target"],
            self._recipe["bits"],
            passes,
            # The exporter insists that a streaming shape differs from the offline one.
            streaming_input_shape=shapes if chunk < model.frames else None,
            **options,
        )
        for plan in plans:
            (self._directory / plan_name(chunk)).write_text(plan.to_json())

    def _check(self, model: StreamingModel, values: Arrays) -> None:
        states = set(model.state.values())
        check_alive({name: array for name, array in values.items() if name not in states})
        offline = load_graph(self._directory / OFFLINE)
        check_state(offline, model.state)
        for chunk in model.chunk_frames:
            streaming = load_graph(self._directory / streaming_name(chunk))
            check_same_calibration(offline, streaming, chunk)

    def _write_meta(self, model: StreamingModel, module: Any) -> None:
        files = [OFFLINE, *(streaming_name(chunk) for chunk in model.chunk_frames)]
        meta = {
            "recipe": dict(self._recipe),
            "weights_sha256": _hash_weights(module),
            "files": {name: hash_file(self._directory / name) for name in files},
            "seconds": self._seconds,
            "findings": [finding.to_json() for finding in self._findings],
        }
        (self._directory / META).write_text(json.dumps(meta, indent=1))


def _hint(raised: Exception, warnings: list[str]) -> str | None:
    """What probably is the reason that esp-ppq raised."""
    failed = _FAILED_NODE.search(str(raised))
    if failed and failed["type"] not in OPERATORS:
        return f"ESP-DL has no operator {failed['type']}; docs/operators.md lists those it has"
    return f"before that the exporter logged: {warnings[-1]}" if warnings else None


def _build(model: StreamingModel) -> Any:
    random.seed(model.seed)
    torch.manual_seed(model.seed)
    try:
        module = model.build()
    except Exception as error:
        raise QuantizeError(f"build() raised {describe_error(error)}", stage="build") from error
    if not isinstance(module, torch.nn.Module):
        raise QuantizeError(
            f"build() returned a {type(module).__name__}, expected a torch.nn.Module", stage="build"
        )
    return module.eval()


def _carry_state(module: Any, model: StreamingModel, batches: list[Arrays]) -> None:
    """Give each calibration batch the state in which the float network leaves the one before."""
    for before, after in itertools.pairwise(batches):
        if not model.state:
            return
        outputs = float_graph.run_module(module, before, model.outputs)
        for source, sink in model.state.items():
            if outputs[sink].shape != after[source].shape:
                raise QuantizeError(
                    f"state output {sink!r} has the shape {outputs[sink].shape}, its input "
                    f"{source!r} {after[source].shape}",
                    stage="build",
                )
            after[source] = outputs[sink]


def _given(model: StreamingModel) -> tuple[list[Any], dict[str, Any]]:
    """Return passes and exporter options of ``auto``, or of what the model file gives."""
    if isinstance(model.streaming, str):
        return [], {"auto_streaming": True}
    entries = [model.streaming] if callable(model.streaming) else list(model.streaming)
    table = [dict(entry) for entry in entries if not callable(entry)]
    options = {"auto_streaming": True, "streaming_table": table} if table else {}
    return [entry for entry in entries if callable(entry)], options


def _expectation(
    offline: Graph, axes: dict[str, int], chunks: dict[str, int], state: Mapping[str, str]
) -> list[StreamingPlan]:
    """Return what a right conversion would do, or nothing where there is none."""
    try:
        return [plan_streaming(from_espdl(offline), axes, chunks, state)]
    except StreamingError:
        return []


def _with_size(shape: tuple[int, ...], axis: int, size: int) -> list[int]:
    return [*shape[:axis], size, *shape[axis + 1 :]]


def _hash_weights(module: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().numpy()
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode() + array.tobytes())
    return digest.hexdigest()
