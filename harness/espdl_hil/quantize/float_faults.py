"""Why a network cannot stream, in its author's words: the analysis of the float ONNX graph.

Axes are those of the module and nodes have module paths, so it explains what the conversion of
the permuted, quantized graph refused or failed on. It never refuses by itself. Runs only in a
worker process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx

from espdl_hil.errors import StreamingError
from espdl_hil.espdl import Node
from espdl_hil.operators import OPERATORS, limits_of
from espdl_hil.quantize.edits import edit_for
from espdl_hil.streaming import Clock, NeutralGraph, analyze, refuse, rules
from espdl_hil.streaming.names import readable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from espdl_hil.errors import UnsupportedOpError
    from espdl_hil.model import StreamingModel

_SPATIAL = ("Conv", "AveragePool", "MaxPool", "GlobalAveragePool", "Resize")
_COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "Not", "And", "Or")
_WRONG_AXIS = frozenset(rule.id for rule in (rules.ATTENTION, rules.FOLDED, rules.NOT_TIME))
_NODE = frozenset((rules.UNKNOWN.id, rules.UNRUNNABLE.id))
NO_OPERATOR = "ESP-DL has no operator"
_GROUPS = "GroupNormalization"


def find_faults(path: Path, model: StreamingModel) -> list[StreamingError]:
    """List all that keeps the network of a float ONNX file from streaming.

    Returns:
        The faults of all chunk sizes, each once; empty if the reason is to be found in the
        quantized graph alone. ``chunk_frames`` names the sizes of those that others do not have.
    """
    graph = read_graph(onnx.load(path))
    found: dict[tuple[str, str, str], StreamingError] = {}
    chunks: dict[tuple[str, str, str], list[int]] = {}
    for chunk in model.chunk_frames:
        clock = Clock.of(model.frame_axes, model.chunk_of(chunk), model.state)
        for refusal in analyze(graph, clock, past_faults=True).refusals:
            key = (refusal.rule, refusal.node, refusal.message)
            if refusal.rule == rules.LOOP.id:
                key = (refusal.rule, "", "")  # of all that it takes frames of
            found.setdefault(key, refusal)
            chunks.setdefault(key, []).append(chunk)
    other_axes = _better_axes(graph, model) if found else ""
    short = _one_frame(model)
    faults = []
    for key, refusal in found.items():
        fault = _worded(refusal, graph, other_axes)
        fault.hint = short or fault.hint
        if len(chunks[key]) < len(model.chunk_frames):
            fault.chunk_frames = chunks[key]
        faults.append(fault)
    return faults


def _one_frame(model: StreamingModel) -> str:
    """What to do about an input of one frame, whose time axis looks like no axis; else empty."""
    for name, axis in model.frame_axes.items():
        if model.inputs[name][axis] == 1:
            return (
                f"input {name!r} has one frame on axis {axis}: declare the whole sequence, of "
                "several chunks"
            )
    return ""


def _worded(refusal: StreamingError, graph: NeutralGraph, other_axes: str) -> StreamingError:
    """The refusal with module paths, and with the edit that fits its operator."""
    node = next((node for node in graph.nodes if node.name == refusal.node), None)
    hint = refusal.hint
    if refusal.rule in _WRONG_AXIS and other_axes:
        hint = f"did you mean {other_axes}? Else {hint}"
    where = readable(refusal.node, graph)
    if refusal.rule in _NODE and node is not None and node.op_type not in OPERATORS:
        source = graph.producers.get(node.inputs[0]) if node.inputs else None
        compared = source is not None and source.op_type in _COMPARISONS
        kind = "Where" if compared and node.op_type == "Cast" else node.op_type
        return _unrunnable(where, kind, f"{NO_OPERATOR} {node.op_type}")
    reason = readable(refusal.reason, graph)
    return StreamingError(reason, rule=refusal.rule, node=where, hint=hint)


def refuse_nodes(
    error: UnsupportedOpError, graph: NeutralGraph, chunk_frames: Sequence[int] = ()
) -> StreamingError:
    """Say of each node that ``check_graph`` refuses what its author may write instead.

    *chunk_frames* is the chunk size that it is for; empty for all.
    """
    faults = []
    for name, operator, reason in error.nodes:
        known = operator in OPERATORS
        text = f"{operator}: {reason}" if known else f"{NO_OPERATOR} {operator}"
        hint = f"supported: {limits_of(operator)}" if known else None
        fault = _unrunnable(readable(name, graph), operator, text, hint)
        fault.chunk_frames = [*chunk_frames]
        faults.append(fault)
    faults[0].others = [vars(fault) for fault in faults[1:]]
    return faults[0]


def _unrunnable(where: str, operator: str, reason: str, hint: str | None = None) -> StreamingError:
    fault = refuse(rules.UNRUNNABLE, where, reason)
    fault.hint = edit_for(operator) or hint or fault.hint
    return fault


def _better_axes(graph: NeutralGraph, model: StreamingModel) -> str:
    """The declaration of other time axes with which the network streams; empty if none is."""
    axes = model.frame_axes
    if len(axes) > 1:
        return ""
    name, declared = next(iter(axes.items()))
    for axis in range(1, len(model.inputs[name])):
        frames = model.inputs[name][axis]
        if axis != declared and frames > 1:
            clock = Clock.of({name: axis}, frames, model.state)
            if not analyze(graph, clock).refusals:
                single = not hasattr(model.frame_axis, "keys")
                return f"frame_axis={axis if single else {name: axis}}"
    return ""


def read_graph(proto: Any) -> NeutralGraph:
    """Take over an ONNX graph: operators that the file has in NWC stand between Transposes."""
    arrays = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    given = {
        info.name: tuple(d.dim_value for d in info.type.tensor_type.shape.dim)
        for info in proto.graph.input
    }
    ranks = _ranks(proto, given)
    constants: dict[str, NDArray[Any]] = dict(arrays)
    nodes = [node for original in _merged(proto) for node in _translate(original, ranks, constants)]
    return NeutralGraph(
        nodes=tuple(nodes),
        constants=constants,
        shapes=given,
        inputs=tuple(name for name in given if name not in arrays),
        outputs=tuple(info.name for info in proto.graph.output),
    )


def _ranks(proto: Any, given: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    infos = onnx.shape_inference.infer_shapes(proto).graph
    ranks = {i.name: len(i.type.tensor_type.shape.dim) for i in (*infos.value_info, *infos.output)}
    return ranks | {name: len(shape) for name, shape in given.items()}


def _merged(proto: Any) -> list[Node]:
    """The nodes; the Reshapes around an InstanceNormalization of groups belong to it."""
    nodes = [
        Node(
            name=node.name,
            op_type=node.op_type,
            inputs=tuple(node.input),
            outputs=tuple(node.output),
            attributes={a.name: _plain(onnx.helper.get_attribute_value(a)) for a in node.attribute},
        )
        for node in proto.graph.node
    ]
    writers = {name: node for node in nodes for name in node.outputs}
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    gone: set[str] = set()
    made: dict[str, Node] = {}
    for node in nodes:
        before = writers.get(node.inputs[0]) if node.inputs else None
        if node.op_type == "Expand" and before is not None and before.op_type == "Clip":
            # Of F.normalize: esp-ppq makes one LpNormalization of it.
            made[node.name] = replace(node, op_type="Identity", inputs=node.inputs[:1])
        after = readers.get(node.outputs[0], [])
        if (
            node.op_type == "InstanceNormalization"
            and before is not None
            and before.op_type == "Reshape"
            and len(after) == 1
            and after[0].op_type == "Reshape"
        ):
            gone |= {before.name, after[0].name}
            made[node.name] = replace(
                node,
                name=node.name.replace(node.op_type, _GROUPS),
                op_type=_GROUPS,
                inputs=before.inputs[:1],
                outputs=after[0].outputs,
            )
    return [made.get(node.name, node) for node in nodes if node.name not in gone]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return tuple(value) if isinstance(value, list) else value


def _translate(
    node: Node, ranks: Mapping[str, int], constants: dict[str, NDArray[Any]]
) -> Iterator[Node]:
    """One ONNX node as ESP-DL has it; an unknown one stays, and is refused by its name."""
    kind = node.op_type
    if kind == "Gemm":
        yield _gemm(node, constants)
    elif kind == "BatchNormalization":
        yield replace(node, op_type="Clip", inputs=node.inputs[:1], attributes={})
    elif kind == "Constant":
        constants[node.outputs[0]] = onnx.numpy_helper.to_array(node.attributes["value"])
    elif kind == "ConvTranspose":
        yield from _between(node, ranks, list(_transposed_conv(node, constants)))
    elif kind in _SPATIAL:
        inner = replace(node, inputs=node.inputs[:2]) if kind == "Conv" else node
        if kind == "Conv":
            filters = constants[node.inputs[1]]
            depthwise = node.attributes.get("group", 1) != 1 and filters.shape[1] == 1
            order = (*range(2, filters.ndim), *((0, 1) if depthwise else (1, 0)))
            inner = _with_filter(inner, filters.transpose(order), constants)
        yield from _between(node, ranks, [inner])
    else:
        yield node


def _with_filter(node: Node, stored: NDArray[Any], constants: dict[str, NDArray[Any]]) -> Node:
    name = f"{node.name}::filter"
    constants[name] = stored
    return replace(node, inputs=(node.inputs[0], name))


def _gemm(node: Node, constants: dict[str, NDArray[Any]]) -> Node:
    filters = constants.get(node.inputs[1])
    if filters is None:
        return node
    stored = filters.T if node.attributes.get("transB", 0) else filters
    made = _with_filter(node, stored.reshape(1, 1, *stored.shape), constants)
    return replace(made, inputs=(*made.inputs, *node.inputs[2:]), attributes={})


def _transposed_conv(node: Node, constants: dict[str, NDArray[Any]]) -> Iterator[Node]:
    """InsertZeros and Conv, as the exporter makes of a ConvTranspose."""
    filters = constants[node.inputs[1]]  # (C, N / group, ..)
    count = filters.ndim - 2
    attributes, kernel = node.attributes, filters.shape[2:]
    zeros, ones = (0,) * count, (1,) * count
    pads: Any = attributes.get("pads", zeros * 2)
    strides: Any = attributes.get("strides", ones)
    source = node.inputs[0]
    if any(stride > 1 for stride in strides):
        extra = {"stride": strides, "output_padding": attributes.get("output_padding", zeros)}
        spread = f"{node.name}.spread"
        yield Node(f"{node.name}.zeros", "InsertZeros", (source,), (spread,), extra)
        source = spread
    group: Any = attributes.get("group", 1)
    spatial = tuple(range(2, filters.ndim))
    stored = filters.transpose((*spatial, 0, 1)) if group == 1 or filters.shape[1] == 1 else filters
    settings = {
        "dilations": attributes.get("dilations", ones),
        "group": group,
        "pads": tuple(kernel[i % count] - pads[i] - 1 for i in range(2 * count)),
        "strides": ones,
    }
    conv = replace(node, op_type="Conv", inputs=(source, node.inputs[1]), attributes=settings)
    yield _with_filter(conv, stored, constants)


def _between(node: Node, ranks: Mapping[str, int], inner: list[Node]) -> Iterator[Node]:
    """Nodes that work on (N, .., C) where the module has (N, C, ..)."""
    rank = ranks.get(node.inputs[0], 0)
    if rank < 3:
        yield from inner
        return
    source, result = node.inputs[0], node.outputs[0]
    front = (0, *range(2, rank), 1)
    back = (0, rank - 1, *range(1, rank - 1))
    moved, made = f"{source}.{node.name}.front", f"{result}.{node.name}.back"
    yield Node(f"{node.name}.front", "Transpose", (source,), (moved,), {"perm": front})
    first, last = inner[0], inner[-1]
    for step in inner:
        inputs = (moved, *step.inputs[1:]) if step is first else step.inputs
        yield replace(step, inputs=inputs, outputs=(made,) if step is last else step.outputs)
    yield Node(f"{node.name}.back", "Transpose", (made,), (result,), {"perm": back})
