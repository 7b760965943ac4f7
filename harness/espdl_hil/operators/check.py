"""The one place that decides what ESP-DL runs, and runs rightly. Kernels trust its word.

`check_graph` looks at every node before anything is computed: operator, types, attributes, shapes
and exponents. It refuses what ESP-DL has no kernel for, and what ESP-DL would compute wrongly on
the chip, and names all such nodes at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from espdl_hil.errors import ConfigError, UnsupportedOpError
from espdl_hil.operators.inference import place, refusal, shortened, try_shapes
from espdl_hil.operators.problem import NodeProblem
from espdl_hil.operators.registry import OPERATORS
from espdl_hil.operators.signature import WIDTHS, Operator, TensorRole
from espdl_hil.operators.sizes import activation_bytes, node_work, prepared_bytes
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from espdl_hil.espdl.graph import Array, Graph, Node, Shape, TensorInfo

MAX_EXPONENT = 30  # the chip computes 2**exponent as 1 << exponent in an int
# Bounds on what a damaged length can ask for. PSRAM is 32 MiB at most and ESP-DL reuses it; a
# small file whose tensors exceed this together is damaged. Large models get more.
ACTIVATION_BYTES = 24 * 2**20
ACTIVATION_FACTOR = 64  # bytes of tensors for each byte of the file; public models need 23
PREPARED_BYTES = 192 * 2**20  # what kernels keep beside: weights as floats, tables, padded inputs
WORK_MACS = 2**30
WORK_FACTOR = 4096  # multiply-accumulates for each byte of the file; public models need 1,700


def check_graph(
    graph: Graph,
    target: str,
    input_shapes: Mapping[str, Shape] | None = None,
    *,
    flaws: bool = True,
) -> dict[str, Shape]:
    """Insist that ESP-DL runs the graph, and runs it rightly.

    Args:
        graph: A graph from `load_graph`.
        target: Name in `TARGETS`.
        input_shapes: See `infer_shapes`.
        flaws: Refuse as well what the chip is known to compute otherwise than the model means,
            such as a left shift that wraps. The interpreter computes it as the chip does.

    Returns:
        Shapes of all tensors by name, as `infer_shapes` gives them.

    Raises:
        UnsupportedOpError: Names every offending node, says what the chip would do and what is
            supported.
        ConfigError: There is no such target, or *input_shapes* does not fit.
    """
    if target not in TARGETS:
        raise ConfigError(f"unknown target {target!r}; there are {', '.join(TARGETS)}")
    shapes, mismatches = try_shapes(graph, input_shapes)
    misfits = {node.name: reason for node, reason in mismatches}
    constants = graph.constants
    problems = [
        (node, shortened(reason))
        for node in graph.nodes
        for reason in _examine(
            node, graph, constants, target, shapes, misfits.get(node.name), flaws=flaws
        )
    ]
    if problems:
        raise refusal(graph, problems, supported=_supported(problems))
    _check_inputs(graph)
    if not input_shapes:  # lengths that the caller chose are no damage
        _check_size(graph, shapes)
    return shapes


def _examine(
    node: Node,
    graph: Graph,
    constants: Mapping[str, Array],
    target: str,
    shapes: Mapping[str, Shape],
    misfit: str | None,
    *,
    flaws: bool,
) -> Iterator[str]:
    """Reasons against one node; *misfit* is what shape inference said of it."""
    operator = OPERATORS.get(node.op_type)
    if operator is None:
        yield "there is no such operator"
        return
    width = node.attributes.get("quant_type")
    if not isinstance(width, str) or width not in operator.widths:
        yield f"quant_type {width!r}"
        return
    mismatches = list(_types(node, graph, operator, width))
    yield from mismatches
    if misfit:
        yield misfit
    if mismatches or misfit or any(name and name not in shapes for name in node.inputs):
        return
    exponents = list(_exponents(node, graph, operator))
    yield from exponents
    if exponents:
        return
    placed = place(node, graph, constants, shapes, target)
    try:
        yield from operator.rules(placed)
        if flaws:
            yield from operator.flaws(placed)
    except NodeProblem as problem:
        yield str(problem)


def _types(node: Node, graph: Graph, operator: Operator, width: str) -> Iterator[str]:
    for i, name in enumerate(node.inputs):
        role = _role(operator, i)
        if not name:
            if role is None or not role.optional:
                yield f"input {i} is missing"
        elif role is None:
            yield f"input {i} is not read by ESP-DL"
        else:
            yield from _type(role, graph.info(name), f"input {i}", width)
            if role.constant and name not in graph.initializers:
                yield f"input {i} must be a constant, ESP-DL reads it at load"
    required = [i for i, role in enumerate(operator.inputs) if not role.optional]
    if len(node.inputs) <= required[-1]:
        yield f"{len(node.inputs)} inputs, ESP-DL takes {required[-1] + 1} or more"
    for i, name in enumerate(node.outputs):
        if not name:
            yield f"output {i} has no name; the chip gives it no memory and writes to it"
        elif i < len(operator.outputs) or operator.fans_out:
            role = operator.outputs[min(i, len(operator.outputs) - 1)]
            yield from _type(role, graph.value_info[name], f"output {i}", width)
        else:
            yield f"output {i} is not made by ESP-DL"
    if operator.by_tensor and operator.copies:
        names = [name for name in (*node.inputs[:1], *node.outputs) if name]
        if len({graph.info(name).dtype for name in names}) > 1:
            yield "input and output types differ"


def _role(operator: Operator, index: int) -> TensorRole | None:
    if index < len(operator.inputs):
        return operator.inputs[index]
    return operator.inputs[-1] if operator.variadic else None


def _type(role: TensorRole, info: TensorInfo, what: str, width: str) -> Iterator[str]:
    expected = role.dtypes[width]
    if info.dtype.name not in expected:
        allowed = " or ".join(expected) if expected else "nothing"
        yield f"{what} is {info.dtype.name}, a node of quant_type {width} takes {allowed}"


def _exponents(node: Node, graph: Graph, operator: Operator) -> Iterator[str]:
    """Exponents of activations: one a tensor, within reach, equal where integers are copied."""
    activations: list[TensorInfo] = []
    for i, name in enumerate(node.inputs):
        role = _role(operator, i)
        if name and role is not None and not role.weight and not _is_index(role):
            activations.append(graph.info(name))
    activations += [graph.value_info[name] for name in node.outputs]
    quantized = [info for info in activations if info.dtype.kind == "i"]
    for info in quantized:
        if len(info.exponents) != 1:
            yield f"{info.name!r} has an exponent per channel, which only filters may have"
        if any(abs(exponent) > MAX_EXPONENT for exponent in info.exponents):
            yield (
                f"{info.name!r} has exponent {info.exponents}; the chip computes 1 << exponent, "
                f"{MAX_EXPONENT} is the most"
            )
    if operator.copies and len({info.exponents for info in quantized}) > 1:
        named = ", ".join(f"{info.name!r}: {info.exponents[0]}" for info in quantized)
        yield (
            f"its tensors have different exponents ({named}); the chip ignores them and takes "
            "the integers as they are"
        )


def _is_index(role: TensorRole) -> bool:
    return all(name in ("int32", "int64") for names in role.dtypes.values() for name in names)


def limits_of(name: str) -> str:
    """What ESP-DL takes of one of its operators."""
    operator = OPERATORS[name]
    types = ", ".join(WIDTHS[width] for width in operator.widths)
    return f"{name}: {types}" + (f"; {operator.limits}" if operator.limits else "")


def _supported(problems: list[tuple[Node, str]]) -> str:
    """What ESP-DL offers in place of what *problems* name."""
    names = sorted({node.op_type for node, _ in problems})
    lines = [limits_of(name) for name in names if name in OPERATORS]
    if any(node.op_type not in OPERATORS for node, _ in problems):
        lines.append(f"operators of ESP-DL 3.3: {', '.join(sorted(OPERATORS))}")
    return "supported: " + "\n    ".join(lines)


def _check_inputs(graph: Graph) -> None:
    read = {name for node in graph.nodes for name in node.inputs}
    idle = [info.name for info in graph.inputs if info.name not in read]
    if idle:
        message = f"no node reads the graph inputs {idle}; the chip has no tensor to assign to"
        raise UnsupportedOpError(message, path=graph.path)


def _check_size(graph: Graph, shapes: Mapping[str, Shape]) -> None:
    size = graph.header.file_bytes
    held = activation_bytes(graph, shapes)
    work = sum(node_work(node, shapes) for node in graph.nodes)
    prepared = prepared_bytes(graph, shapes)
    room = max(ACTIVATION_BYTES, ACTIVATION_FACTOR * size)
    for what, taken, most in (
        (f"its tensors take {held} bytes", held, room),
        (f"one run takes {work} multiply-accumulates", work, max(WORK_MACS, WORK_FACTOR * size)),
        (
            f"its weights, tables and padded inputs take {prepared} bytes to compute with",
            prepared,
            max(PREPARED_BYTES, room),
        ),
    ):
        if taken > most:
            message = f"{what}, the most for a file of {size} bytes is {most}"
            raise UnsupportedOpError(message, path=graph.path)
