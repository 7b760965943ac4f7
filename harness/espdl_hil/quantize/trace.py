"""A model's float trace: made once, and shared by its targets and widths. Runs only in a worker."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espdl_hil.errors import QuantizeError
from espdl_hil.model import importing_from, load_model
from espdl_hil.quantize import float_graph
from espdl_hil.quantize.artifacts import META, read_arrays, write_arrays
from espdl_hil.quantize.dependencies import Dependencies
from espdl_hil.quantize.float_check import check_trace
from espdl_hil.quantize.float_module import build_module, run_first, run_module
from espdl_hil.quantize.onnx_source import OnnxModule, import_onnx, read_onnx
from espdl_hil.quantize.stimulus import make_calibration, make_stimulus

if TYPE_CHECKING:
    from espdl_hil.model import StreamingModel
    from espdl_hil.quantize.artifacts import Arrays
    from espdl_hil.quantize.recipe import Trace
    from espdl_hil.quantize.stages import Stages

ONNX = "float.onnx"
_BATCH = "batch"  # groups of arrays: batch0, batch1 ..


@dataclass(frozen=True)
class FloatTrace:
    """A trace as it was stored.

    Attributes:
        onnx: The float network, simplified.
        stimulus: float32 by input name, the whole sequence in the module's own layout.
        outputs: What the module gives for it, float32 by output name, in its own layout.
        batches: Calibration inputs by name, one mapping a batch.
        meta: ``weights_sha256``, ``dependencies`` (see ``WorkerResult``), ``seconds``.
    """

    onnx: Path
    stimulus: Arrays
    outputs: Arrays
    batches: list[Arrays]
    meta: dict[str, Any]

    @classmethod
    def read(cls, directory: Path) -> FloatTrace:
        """Read an entry of the store."""
        groups = read_arrays(directory)
        return cls(
            onnx=directory / ONNX,
            stimulus=groups.pop("stimulus"),
            outputs=groups.pop("outputs"),
            batches=[groups[f"{_BATCH}{index}"] for index in range(len(groups))],
            meta=json.loads((directory / META).read_text()),
        )


def make_trace(trace: Trace, directory: Path, stages: Stages) -> dict[str, str]:
    """Run a model file, and leave the entry that ``FloatTrace.read`` reads.

    Returns:
        What the model file reads, see ``WorkerResult.dependencies``.

    Raises:
        HarnessError: the model file, its module or its sequences are not what was declared.
    """
    folder = trace.source.parent
    dependencies = Dependencies(trace.source, directory, Path(tempfile.gettempdir()))
    with stages.stage("build"), importing_from(folder):
        with dependencies.recording():
            model = load_model(trace.source)
            quantization = replace(model.quantization, batches=trace.batches)
            model = replace(model, seed=trace.seed, quantization=quantization)
            proto = read_onnx(folder / model.onnx, model) if model.onnx else None
            module = OnnxModule(proto, model) if proto else build_module(model)
            stimulus, batches = make_stimulus(model), make_calibration(model)
            outputs = run_first(module, stimulus, model.outputs)
        found = dependencies.hashes(folder)  # at once: training may go on and write again
        _carry_state(module, model, batches)
        if proto:
            import_onnx(proto, module, model, directory / ONNX, stimulus)
        else:
            warned = float_graph.export_onnx(module, model, directory / ONNX)
            check_trace(module, model, directory / ONNX, stimulus, outputs, batches[-1], warned)
    named = {f"{_BATCH}{index}": batch for index, batch in enumerate(batches)}
    write_arrays(directory, {"stimulus": stimulus, "outputs": outputs, **named})
    meta = {
        "trace": trace.to_json(),
        "weights_sha256": _hash_weights(module),
        "dependencies": found,
        "seconds": stages.seconds,
    }
    (directory / META).write_text(json.dumps(meta, indent=1))
    return found


def _carry_state(module: Any, model: StreamingModel, batches: list[Arrays]) -> None:
    """Give each calibration batch the state in which the float network leaves the one before."""
    for before, after in itertools.pairwise(batches):
        if not model.state:
            return
        outputs = run_module(module, before, model.outputs)
        for source, sink in model.state.items():
            if outputs[sink].shape != after[source].shape:
                raise QuantizeError(
                    f"state output {sink!r} has the shape {outputs[sink].shape}, its input "
                    f"{source!r} {after[source].shape}",
                    stage="build",
                    hint="forward runs the whole sequence: return the state after its last frame, "
                    "as nn.GRU and nn.LSTM do; a smoother that keeps its own state is a window, "
                    "such as F.avg_pool1d(F.pad(x, (n - 1, 0)), n, 1)",
                )
            after[source] = outputs[sink]


def _hash_weights(module: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        array = tensor.detach().cpu().numpy()
        digest.update(f"{name}\0{array.dtype}\0{array.shape}\0".encode() + array.tobytes())
    return digest.hexdigest()
