"""The float network's ONNX graph, as esp-ppq can take it.

Runs only in a worker process.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxsim
import torch

from espdl_hil.errors import QuantizeError
from espdl_hil.model import describe_error
from espdl_hil.quantize import decompositions
from espdl_hil.quantize.edits import edit_of_words
from espdl_hil.quantize.float_module import lines_of
from espdl_hil.quantize.onnx_passes import run_passes
from espdl_hil.streaming import refuse, rules
from espdl_hil.streaming.names import module_path
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from espdl_hil.model import StreamingModel

OPSET = 18  # what esp-ppq's own torch entry point uses
_RECURRENT = ("GRU", "LSTM", "RNN")
_INITIAL_STATE = 5  # index of initial_h among their inputs
_ATEN = re.compile(r"aten::(\w+)")
_FRAME = re.compile(r"(\S+\.py)\((\d+)\): ")
_NOT_THEIRS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))
_RANDOM = (
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike"),
    *("RandomUniform", "RandomUniformLike"),
)
_DATA_SHAPED = ("Compress", "NonMaxSuppression", "NonZero", "Unique")


def warm_up(path: Path) -> None:
    """Export a network of one layer, so that the libraries load what they need."""
    _write(torch.nn.Conv1d(1, 1, 1), [torch.zeros(1, 1, 2)], path, ["input"], ["output"])
    _simplify(onnx.load(path))


def export_onnx(module: Any, model: StreamingModel, path: Path) -> list[str]:
    """Write the float network as simplified ONNX, with the model's input and output names.

    Returns:
        ``file:line`` of what the tracer warned of.

    Raises:
        QuantizeError: stage ``build``; ``forward`` does not use one of its inputs.
        StreamingError: a recurrent layer starts from zero at every run.
    """
    arguments = [torch.zeros(shape) for shape in model.inputs.values()]
    warned = _write(module, arguments, path, list(model.inputs), list(model.outputs))
    finish_onnx(onnx.load(path), model, path)
    return warned


def finish_onnx(proto: Any, model: StreamingModel, path: Path) -> None:
    """Simplify a float network, write it as esp-ppq takes it, and store it.

    Raises:
        QuantizeError: stage ``build``; an input is not used.
        StreamingError: a recurrent layer starts from zero at every run.
    """
    proto = _simplify(proto)
    used = {name for node in proto.graph.node for name in node.input}
    unused = [name for name in model.inputs if name not in used]
    if unused:
        raise QuantizeError(
            f"no output depends on input {', '.join(map(repr, unused))}",
            stage="build",
            hint="remove it from input_shape; or, if forward takes it through NumPy or a Python "
            "number, which a trace keeps as they were, compute with torch throughout",
        )
    run_passes(proto)
    onnx.save(proto, path)
    _check_nodes(proto)


def notes_of(path: Path) -> list[str]:
    """What the user is to know of how a stored network is written."""
    nodes = onnx.load(path).graph.node
    return [f"{module_path(n.name)}: {n.doc_string}" for n in nodes if n.doc_string]


def check_size(path: Path, target: str, bits: int) -> None:
    """Refuse a network whose weights fit no module with the target's chip, before it is quantized.

    Raises:
        QuantizeError: stage ``build``; says both sizes.
    """
    graph = onnx.load(path).graph
    readers = {name: _owner(node) for node in graph.node for name in node.input}
    sizes = {
        readers.get(t.name, t.name): int(np.prod(t.dims)) * bits // 8
        for t in graph.initializer
        if t.data_type == onnx.TensorProto.FLOAT
    }
    room, needed = TARGETS[target].model_bytes, sum(sizes.values())
    if needed > room:
        largest = max(sizes, key=lambda name: sizes[name])
        raise QuantizeError(
            f"its weights take {needed / 2**20:.1f} MiB at int{bits}, the largest {target} module "
            f"has {room / 2**20:.0f} MiB for them",
            stage="build",
            hint=f"make the network smaller ({largest} alone takes {sizes[largest] / 2**20:.1f} "
            "MiB), or take fewer bits or another chip",
        )


def _owner(node: Any) -> str:
    """The module of a node, by the name of a parameter that has kept it."""
    own = (name.rpartition(".")[0] for name in node.input if "::" not in name)
    return next(filter(None, own), module_path(node.name))


def _check_nodes(proto: Any) -> None:
    """Refuse what esp-ppq fails on without a word that helps.

    Raises:
        QuantizeError: stage ``build``; nothing is computed, or something is drawn at random.
        StreamingError: a recurrent layer starts from zero at every run, or a shape depends on data.
    """
    if all(node.op_type == "Identity" for node in proto.graph.node):
        raise QuantizeError(
            "forward returns its input as it is: there is nothing to quantize",
            stage="build",
            hint="nn.Identity and reshapes that change nothing leave no operator; add a layer",
        )
    ends = {info.name for info in (*proto.graph.input, *proto.graph.output)}
    for node in proto.graph.node:
        if node.op_type == "Identity" and {node.input[0], node.output[0]} <= ends:
            raise QuantizeError(
                f"output {node.output[0]!r} is nothing but {node.input[0]!r} again",
                stage="build",
                hint="return each tensor once, and name each once in outputs",
            )
    for node in proto.graph.node:
        if node.op_type in _RANDOM:
            raise QuantizeError(
                f"{node.op_type} {module_path(node.name)!r} draws random numbers",
                stage="build",
                hint="put them into the network as a constant, or leave them to training",
            )
        if node.op_type in _DATA_SHAPED:
            raise refuse(rules.DATA_SHAPE, module_path(node.name), f"{node.op_type} gives it")
    infos = onnx.shape_inference.infer_shapes(proto).graph
    alone = {
        info.name
        for info in (*infos.value_info, *infos.input)
        if [d.dim_value for d in info.type.tensor_type.shape.dim][1:2] == [1]
    }
    for node in proto.graph.node:
        # esp-ppq: IndexError. Simplifying leaves out an initial state of zeros.
        stateless = node.op_type in _RECURRENT and not any(node.input[_INITIAL_STATE:])
        if stateless and node.input[0] in alone:
            message = "its initial state is no input of forward"
            raise refuse(rules.STATE_DROPPED, module_path(node.name), message)


def _write(
    module: Any, arguments: list[Any], path: Path, inputs: list[str], outputs: list[str]
) -> list[str]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")  # others: the legacy exporter is the one esp-ppq uses
        try:
            with decompositions.Decomposed():
                torch.onnx.export(
                    model=module,
                    args=tuple(arguments),
                    f=path,
                    opset_version=OPSET,
                    do_constant_folding=True,
                    dynamo=False,
                    input_names=inputs,
                    output_names=outputs,
                )
        except Exception as error:
            raise _not_exported(error, module) from error
    traced = [
        entry
        for entry in said
        if entry.category is torch.jit.TracerWarning and entry.filename != decompositions.__file__
    ]
    return [f"{Path(entry.filename).name}:{entry.lineno}" for entry in traced]


def _not_exported(error: Exception, module: Any) -> Exception:
    """What ONNX has no word for, ESP-DL has no operator for either."""
    text = describe_error(error)
    reason = text.partition(": ")[2].partition(" [Caused by")[0].partition(" Please feel free")[0]
    if "Tried to trace <__torch__" in reason:
        reason = "a part of it is a product of torch.jit.script, which cannot be traced"
    named = _ATEN.search(reason)
    frames = [frame for frame in _FRAME.findall(text) if not frame[0].startswith(_NOT_THEIRS)]
    places = [f"{Path(file).name}:{line}" for file, line in frames]
    if not places:
        word = named[1].rpartition("_")[2] if named else ""
        places = lines_of(module, rf"\b{word}\b" if word else "") or lines_of(module, "def forward")
    what = f"torch cannot export {named[1]} to ONNX" if named else reason
    refusal = refuse(rules.UNRUNNABLE, places[0] if places else "forward", what)
    refusal.hint = edit_of_words(reason) or refusal.hint
    return refusal


def _simplify(proto: Any) -> Any:
    """Simplify a graph; where the optimizer fails on it, fold its constants only."""
    try:
        return onnxsim.simplify(proto)[0]
    except RuntimeError as error:
        print(f"the ONNX optimizer failed ({describe_error(error)}): constants are folded only")
        return onnxsim.simplify(proto, perform_optimization=False)[0]
