"""Load a file once, step it many times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.errors import ConfigError, UnsupportedOpError
from espdl_hil.espdl import Graph, TensorInfo, load_graph
from espdl_hil.operators import check_graph
from espdl_hil.operators.node_view import NodeProblem, NodeView
from espdl_hil.operators.prepare import Op, Operand
from espdl_hil.operators.registry import BUILDERS
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from espdl_hil.espdl import Array, Node, Shape
    from espdl_hil.operators.prepare import Kernel
    from espdl_hil.operators.s3_accumulator import LaneCheck, LaneWarning


def load(
    source: Path | bytes | Graph,
    target: str,
    *,
    model: str | int | None = None,
    key: bytes | None = None,
    input_shapes: Mapping[str, Shape] | None = None,
    lane_check: bool = False,
) -> Session:
    """Prepare a model for execution as ESP-DL would execute it on *target*.

    Args:
        source: An EDL file, a PDL package, the bytes of either, or a graph already read.
        target: ``esp32s3``, ``esp32p4`` or ``c``: decides rounding and filter packing.
        model: Name or index within a package; None takes the only one.
        key: AES-128 key of an encrypted model.
        input_shapes: Shapes of graph inputs that shall differ from the file's, such as another
            number of frames; in the file's layout.
        lane_check: Watch the S3's 20-bit accumulators at every step, see ``lane_warnings``.

    Returns:
        A session with zeroed caches.

    Raises:
        ArtifactError: The file is damaged.
        UnsupportedOpError: ESP-DL cannot run the graph, or would compute it wrongly.
        ConfigError: No such file, target, model or input.
    """
    graph = source if isinstance(source, Graph) else load_graph(source, key=key, model=model)
    shapes = check_graph(graph, target, input_shapes)
    with np.errstate(all="ignore"):
        return Session(graph, target, shapes, lane_check=lane_check)


class Session:
    """A model in execution. One thread at a time.

    Args:
        graph: A graph that `check_graph` accepts.
        target: Name in `TARGETS`.
        shapes: Shape of every tensor, from `check_graph`.
        lane_check: Watch the S3's accumulators at every step.

    Attributes:
        inputs: Graph inputs with their shapes as inferred.
        outputs: Graph outputs with their shapes as inferred.
        exponents: By tensor name: graph inputs, node outputs and constants.
        trace: Every node output of the last step, by name. Contiguous views of the session's own
            memory, valid until the next step; not to be written to.
    """

    def __init__(
        self, graph: Graph, target: str, shapes: Mapping[str, Shape], *, lane_check: bool = False
    ) -> None:
        self._graph = graph
        self._target = TARGETS[target]
        self._watching = lane_check
        self._resets: list[Kernel] = []
        self._lanes: list[LaneCheck] = []
        self._nodes: list[Node] = []
        self._kernels: list[Kernel] = []
        self._operands = {
            name: Operand(name, tensor.array, tensor.info.exponents, tensor)
            for name, tensor in graph.initializers.items()
        }
        for info in graph.inputs:
            self._operands[info.name] = self._allocate(info, shapes[info.name])
        self.trace: dict[str, Array] = {}
        for node in graph.nodes:
            self._prepare(node, shapes)
        self._feeds = {info.name: self._operands[info.name].array for info in graph.inputs}
        self._results = {info.name: self._operands[info.name].array for info in graph.outputs}
        self.inputs = tuple(self._described(info) for info in graph.inputs)
        self.outputs = tuple(self._described(info) for info in graph.outputs)
        self.exponents = {name: operand.exponents for name, operand in self._operands.items()}

    def _allocate(self, info: TensorInfo, shape: Shape) -> Operand:
        return Operand(info.name, np.zeros(shape, info.dtype), info.exponents)

    def _described(self, info: TensorInfo) -> TensorInfo:
        return TensorInfo(info.name, info.dtype, self._operands[info.name].shape, info.exponents)

    def _prepare(self, node: Node, shapes: Mapping[str, Shape]) -> None:
        view = NodeView(
            node, tuple(shapes.get(name) for name in node.inputs), self._graph.constants
        )
        op = Op(
            view=view,
            target=self._target,
            inputs=tuple(self._operands.get(name) for name in node.inputs),
            outputs=tuple(
                self._allocate(self._graph.value_info[name], shapes[name]) for name in node.outputs
            ),
        )
        try:
            kernel = BUILDERS[node.op_type](op)
        except NodeProblem as problem:
            raise self._refusal(node, problem) from None
        if kernel is not None:
            self._nodes.append(node)
            self._kernels.append(kernel)
        self._resets += op.resets
        self._lanes += op.lanes
        for operand in op.outputs:
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
            if self._watching:
                for lane in self._lanes:
                    lane.observe()
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
        """Zero the caches, as ``Model::reset`` does; forget what the lane check saw."""
        for reset in self._resets:
            reset()
        for lane in self._lanes:
            lane.observed = 0

    @property
    def lane_warnings(self) -> tuple[LaneWarning, ...]:
        """Nodes whose accumulators may have left the ESP32-S3's 20-bit lanes.

        With ``lane_check`` over all steps since the last reset, otherwise in the last step alone.
        Always empty on other targets.
        """
        if not self._watching:
            for lane in self._lanes:
                lane.observed = 0
                lane.observe()
        found = (lane.warning() for lane in self._lanes)
        return tuple(warning for warning in found if warning is not None)
