"""Each node of a file on the reference's own inputs: what it may give, and what it gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.compare import EXACT, Tolerance
from espdl_hil.operators import check_graph
from espdl_hil.operators.node import BoundNode, Operand, bind, stored_operands
from espdl_hil.operators.recurrent import GATES
from espdl_hil.reference.recurrent import recurrent_range
from espdl_hil.reference.steps import BOUNDS, FLOORS, Range, Step, run_node
from espdl_hil.targets import TARGETS, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from espdl_hil.espdl import Array, Graph, Node
    from espdl_hil.espdl.graph import Shape
    from espdl_hil.reference.record import ReferenceRecord

SUMS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class Judged:
    """One output of one node beside the reference's.

    Attributes:
        node: Name of the node.
        operator: Its operator.
        tensor: Name of the output.
        elements: Elements compared.
        differing: Elements that are not the reference's.
        beyond: Elements out of what the node's arithmetic allows.
        used: Largest difference of those that are allowed: LSB, or relative for a float output.
        bound: Largest difference that is allowed anywhere in the tensor.
        mean_bound: Mean of what is allowed over all elements.
        excused: Elements that the chip's own arithmetic is known to give otherwise.
        why: What allows for a difference; empty if nothing does.
        first: ``element [0, 3, 2]: reference 5, allowed 5 to 6, the file gives 7``, of the first
            that is beyond; empty if none is.
    """

    node: str
    operator: str
    tensor: str
    elements: int
    differing: int
    beyond: int
    used: float
    bound: float
    mean_bound: float
    excused: int
    why: str
    first: str
    is_float: bool = False

    @property
    def within(self) -> bool:
        """Whether the node differs by no more than its arithmetic allows."""
        return self.beyond == 0

    def __str__(self) -> str:
        name = f"{self.operator} {self.node!r}"
        if not self.within:
            return (
                f"{name}: {self.beyond} of {self.elements} elements are not what the reference's "
                f"own inputs give; {self.first}"
            )
        text = f"{self.used:.2g} of {self.size(self.bound)} at {name}"
        return f"{text}, {self.excused} elements by {self.why}" if self.excused else text

    def size(self, value: float) -> str:
        """A difference with its unit."""
        return f"{value:.2g} relative" if self.is_float else f"{value:.0f} LSB"


def judge(
    graph: Graph,
    target: str,
    record: ReferenceRecord,
    inputs: Mapping[str, Array],
    declared: Tolerance = EXACT,
) -> tuple[Judged, ...]:
    """Run every node alone, on what the reference gave it, and compare what it gives.

    A tensor that only the file has (behind a Transpose of the exporter's) is computed from those
    before it. What a node gets is not what the nodes before it made of it: so
    no difference grows with depth, and each is seen where it arises.

    Args:
        graph: The offline file.
        target: Its target.
        record: The reference's run of *inputs*.
        inputs: Graph inputs by name.
        declared: What the model's author lets any element be off.

    Returns:
        One entry for each tensor that the record has, in the order of execution.

    Raises:
        UnsupportedOpError: ESP-DL cannot run the graph.
    """
    with np.errstate(all="ignore"):
        return tuple(_judged(graph, TARGETS[target], record, inputs, declared))


def _judged(
    graph: Graph,
    target: Target,
    record: ReferenceRecord,
    inputs: Mapping[str, Array],
    declared: Tolerance,
) -> Iterator[Judged]:
    shapes = check_graph(graph, target.name, flaws=False)
    operands = stored_operands(graph)
    for info in graph.inputs:
        operands[info.name] = Operand(info.name, inputs[info.name], info.exponents)
    record, constants = _fitting(record, shapes), graph.constants
    for node in graph.nodes:
        bound = bind(node, graph, constants, target, shapes, operands)
        ranges = _ranges(bound, record)
        for operand, found in zip(bound.outputs, ranges, strict=True):
            given = found.given
            if (reference := record.values.get(operand.name)) is not None:
                yield _compared(node, operand.name, reference, found, declared)
                given = reference.reshape(given.shape)
            operands[operand.name] = replace(operand, array=given)


def _fitting(record: ReferenceRecord, shapes: Mapping[str, Shape]) -> ReferenceRecord:
    """The record without tensors that have another size in the file, which are other tensors."""
    kept = {n: v for n, v in record.values.items() if v.size == math.prod(shapes.get(n, (0,)))}
    return replace(record, values=kept)


def _ranges(bound: BoundNode, record: ReferenceRecord) -> list[Range]:
    """What each output may be, and what it is."""
    first = record.values.get(bound.outputs[0].name) if bound.outputs else None
    if bound.op_type in GATES and first is not None:
        return recurrent_range(bound, record)
    given = run_node(bound)
    return [
        _range(bound, index, given[index], record.values.get(operand.name), record)
        for index, operand in enumerate(bound.outputs)
    ]


def _range(
    bound: BoundNode, index: int, given: Array, reference: Array | None, record: ReferenceRecord
) -> Range:
    if reference is None:
        return Range(given, given, given)
    name = bound.outputs[index].name
    low, high, why = reference, reference, ""
    if reference.dtype.kind == "f":
        if bound.op_type in BOUNDS:
            step = Step(bound, index, reference.astype(np.float64))
            moved = BOUNDS[bound.op_type](step)
            low, high, why = step.real - moved, step.real + moved, "float32 steps"
    elif name in record.rests and "lut" not in bound.node.attributes:
        real = reference + record.rests[name].astype(np.float64)
        low, high, why = _rounded(Step(bound, index, real), reference)
    if bound.op_type not in SUMS or not any(lane.saturated for lane in bound.lanes):
        return Range(given, low, high, why)
    exact = run_node(_portable(bound))[index]
    changed = np.subtract(given, exact, dtype=np.float64)
    if float(np.square(changed).sum()) != sum(lane.error for lane in bound.lanes):
        return Range(given, low, high, why)  # not by its lanes alone
    # exact sums are compared; what the lanes make of them is known, and so excused
    excused = int(np.count_nonzero(changed))
    return Range(exact, low, high, f"{bound.lanes[0].bits}-bit lanes", excused)


def _portable(bound: BoundNode) -> BoundNode:
    """The same node on ESP-DL's portable kernels, which round as the target does."""
    outputs = tuple(replace(o, array=np.zeros_like(o.array)) for o in bound.outputs)
    target = replace(bound.target, packed_filters=False)
    return replace(bound, target=target, outputs=outputs, resets=[], lanes=[])


def _rounded(step: Step, reference: Array) -> tuple[Array, Array, str]:
    """The integers that a real value may be rounded to."""
    info = np.iinfo(reference.dtype)
    if step.node.op_type in FLOORS:
        if reference.dtype.itemsize == 1:
            return reference, reference, ""
        down = np.floor(step.real)
        if step.node.target.name != "esp32s3":  # whose vector kernel wraps
            down = down.clip(info.min, info.max)
        floored = down.astype(np.int64).astype(reference.dtype)
        return floored, floored, "a product that is shifted, not rounded"
    moved = BOUNDS[step.node.op_type](step)
    low = np.ceil(step.real - moved - 0.5).clip(info.min, info.max)
    high = np.floor(step.real + moved + 0.5).clip(info.min, info.max)
    exact = (moved == 0) | ~np.isfinite(step.real)
    return np.where(exact, reference, low), np.where(exact, reference, high), "float32 steps"


def _compared(
    node: Node, tensor: str, reference: Array, found: Range, declared: Tolerance
) -> Judged:
    given, low, high = (array.astype(np.float64) for array in (found.given, found.low, found.high))
    wanted = reference.astype(np.float64).reshape(given.shape)
    low, high = low.reshape(given.shape), high.reshape(given.shape)
    same = (given == wanted) | (np.isnan(given) & np.isnan(wanted))
    allowed = same | ((low <= given) & (given <= high))
    size, room = np.abs(given - wanted), np.maximum(high - wanted, wanted - low)
    is_float = reference.dtype.kind == "f"
    if is_float:
        unit = np.maximum(np.abs(wanted), np.finfo(np.float32).tiny)
        size, room = size / unit, room / unit
    if declared != EXACT:
        allowed |= size <= (declared.relative if is_float else declared.max_lsb)
    beyond = ~allowed
    first = ""
    if beyond.any():
        at = np.unravel_index(int(np.argmax(beyond)), given.shape)
        first = (
            f"element {[int(i) for i in at]}: reference {wanted[at]:g}, "
            f"allowed {low[at]:g} to {high[at]:g}, the file gives {given[at]:g}"
        )
    return Judged(
        node=node.name,
        operator=node.op_type,
        tensor=tensor,
        elements=given.size,
        differing=int((~same).sum()),
        beyond=int(beyond.sum()),
        used=float(size[allowed & ~same].max(initial=0.0)),
        bound=float(room.max(initial=0.0)),
        mean_bound=float(room.mean()) if room.size else 0.0,
        excused=found.excused,
        why=found.why,
        first=first,
        is_float=is_float,
    )
