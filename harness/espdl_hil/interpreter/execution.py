"""Load a file once, step it many times."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.errors import ConfigError, UnsupportedOpError
from espdl_hil.espdl import Array, Graph, Node, Shape, load_graph
from espdl_hil.operators import OPERATORS, NodeProblem, check_graph
from espdl_hil.operators.node import BoundNode, allocated, bind, stored_operands
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from espdl_hil.operators.kernel import Kernel
    from espdl_hil.operators.saturation import LaneLog


def load(
    source: Path | bytes | Graph,
    target: str,
    *,
    model: str | int | None = None,
    key: bytes | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    uniform: Collection[str] = (),
) -> Execution:
    """Prepare a model for execution as ESP-DL would execute it on *target*.

    Args:
        source: An EDL file, a PDL package, the bytes of either, or a graph already read.
        target: ``esp32s3``, ``esp32p4`` or ``c``: decides rounding and filter packing.
        model: Name or index within a package; None takes the only one.
        key: AES-128 key of an encrypted model.
        input_shapes: Shapes of graph inputs that shall differ from the file's, such as another
            number of frames; in the file's layout.
        uniform: Nodes that are computed as if the chip had one code for all sizes, exactly; see
            `code_by_size`.

    Returns:
        An execution with zeroed caches.

    Raises:
        ArtifactError: The file is damaged.
        UnsupportedOpError: ESP-DL cannot run the graph, or nobody knows what it would compute.
            Where the chip is known to compute something else than the model means, so does the
            execution; `check_graph` refuses that.
        ConfigError: No such file, target, model or input.
    """
    graph = source if isinstance(source, Graph) else load_graph(source, key=key, model=model)
    shapes = check_graph(graph, target, input_shapes, flaws=False)
    with np.errstate(all="ignore"):
        return Execution(graph, target, shapes, uniform)


class Execution:
    """A model in execution. One thread at a time.

    Args:
        graph: A graph that `check_graph` accepts.
        target: Name in `TARGETS`.
        shapes: Shape of every tensor, from `check_graph`.
        uniform: See `load`.

    Attributes:
        inputs: Graph inputs with their shapes as inferred.
        outputs: Graph outputs with their shapes as inferred.
        exponents: By tensor name: graph inputs, node outputs and constants.
        trace: Every node output of the last step, by name. Contiguous views of memory that
            stays, valid until the next step; not to be written to.
    """

    def __init__(
        self,
        graph: Graph,
        target: str,
        shapes: Mapping[str, Shape],
        uniform: Collection[str] = (),
    ) -> None:
        self._graph = graph
        self._resets: list[Kernel] = []
        self._lanes: list[LaneLog] = []
        self._nodes: list[Node] = []
        self._kernels: list[Kernel] = []
        self._operands = stored_operands(graph)
        for info in graph.inputs:
            self._operands[info.name] = allocated(info, shapes[info.name])
        self.trace: dict[str, Array] = {}
        constants = graph.constants
        for node in graph.nodes:
            bound = bind(node, graph, constants, TARGETS[target], shapes, self._operands)
            self._prepare(replace(bound, uniform=node.name in uniform))
        self._feeds = {info.name: self._operands[info.name].array for info in graph.inputs}
        self._results = {info.name: self._operands[info.name].array for info in graph.outputs}
        self.inputs = tuple(replace(info, shape=shapes[info.name]) for info in graph.inputs)
        self.outputs = tuple(replace(info, shape=shapes[info.name]) for info in graph.outputs)
        self.exponents = {name: operand.exponents for name, operand in self._operands.items()}

    def _prepare(self, bound: BoundNode) -> None:
        node = bound.node
        try:
            kernel = OPERATORS[node.op_type].build(bound)
        except NodeProblem as problem:
            raise self._refusal(node, problem) from None
        if kernel is not None:
            self._nodes.append(node)
            self._kernels.append(kernel)
        self._resets += bound.resets
        self._lanes += bound.lanes
        for operand in bound.outputs:
            self._operands[operand.name] = operand
            self.trace[operand.name] = operand.array

    def _refusal(self, node: Node, problem: NodeProblem) -> UnsupportedOpError:
        return UnsupportedOpError(f"{node}: {problem}", path=self._graph.path)

    def step(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run the graph once; caches carry over to the next step.

        Args:
            inputs: Every graph input by name, of its shape, in the file's layout and exponent.
                Integers of another width are taken if they are in range.

        Returns:
            Graph outputs by name, copies.

        Raises:
            ConfigError: An input is missing, unknown, of another shape or out of range.
            UnsupportedOpError: The chip would hang on these values.
        """
        if inputs.keys() != self._feeds.keys():
            raise ConfigError(
                f"{self._graph.path}: expected the inputs {sorted(self._feeds)}, "
                f"got {sorted(inputs)}"
            )
        for name, place in self._feeds.items():
            value = inputs[name]
            if type(value) is not np.ndarray or value.dtype != place.dtype:
                value = self._converted(name, value)
            if value.shape != place.shape:
                raise ConfigError(
                    f"{self._graph.path}: input {name!r} has shape {place.shape}, "
                    f"got {value.shape}",
                    hint="load(..., input_shapes=...) takes other lengths",
                )
            place[...] = value
        index = 0
        with np.errstate(all="ignore"):
            try:
                for index, kernel in enumerate(self._kernels):  # noqa: B007
                    kernel()
            except NodeProblem as problem:
                raise self._refusal(self._nodes[index], problem) from None
        return {name: result.copy() for name, result in self._results.items()}

    def _converted(self, name: str, value: Any) -> Array:
        """The input as its own type, if no value changes."""
        place, given = self._feeds[name], np.asarray(value)
        if given.dtype.kind not in "iub" and not (given.dtype.kind == place.dtype.kind == "f"):
            raise ConfigError(
                f"{self._graph.path}: input {name!r} takes {place.dtype}, got {given.dtype}",
                hint="quantize it: round(real * 2**-exponent)" if given.dtype.kind == "f" else None,
            )
        converted: Array = given.astype(place.dtype)
        if place.dtype.kind == "i" and not np.array_equal(converted, given):
            raise ConfigError(
                f"{self._graph.path}: input {name!r} takes {place.dtype}, got values from "
                f"{given.min()} to {given.max()}"
            )
        return converted

    @property
    def kernels(self) -> list[tuple[Node, Kernel]]:
        """What a step runs, in order, by node; for profiles. Nodes that are views have none."""
        return list(zip(self._nodes, self._kernels, strict=True))

    def reset(self) -> None:
        """Zero the caches, as ``Model::reset`` does; forget what saturated."""
        for reset in self._resets:
            reset()
        for lane in self._lanes:
            lane.clear()

    @property
    def lane_saturations(self) -> tuple[LaneLog, ...]:
        """Nodes whose accumulators saturated since the last reset, in order of execution.

        Their outputs are the chip's. Always empty on target ``c``, whose integers wrap.
        """
        return tuple(lane for lane in self._lanes if lane.saturated)
