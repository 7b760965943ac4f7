"""The graph of an `.espdl` file as data. Knows names, types and bytes, computes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_RANK = 8  # more than any ESP-DL operator takes; bounds what a damaged file can ask for
MAX_ELEMENTS = 2**31 - 1  # ESP-DL keeps lengths and their products in int

Array: TypeAlias = "NDArray[Any]"
Shape: TypeAlias = tuple[int, ...]
Attribute: TypeAlias = (
    "int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...] | Tensor"
)


@dataclass(frozen=True)
class TensorInfo:
    """What the file says about one tensor.

    Attributes:
        name: Unique within the graph.
        dtype: Element type, little endian.
        shape: In the file's own layout (NWC / NHWC for convolution-like graphs); ``()`` is a
            scalar. In ``Graph.value_info`` of a streaming file the shapes are those of the
            offline model, and -1 is a length that the exporter did not know: trust
            ``infer_shapes`` instead.
        exponents: ``real = q * 2**exponent``; one entry, or one per output channel for the
            filter and bias of a per-channel operator.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape
    exponents: tuple[int, ...] = (0,)

    @property
    def exponent(self) -> int:
        """The exponent of a tensor that is quantized as a whole."""
        if len(self.exponents) != 1:
            raise ValueError(f"{self.name} has {len(self.exponents)} exponents, one per channel")
        return self.exponents[0]

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Size of the elements in bytes, without padding."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class Span:
    """A range of bytes in the plain EDL file (decrypted, outside any package).

    Attributes:
        offset: First byte.
        size: Number of bytes, without the zero padding that follows.
    """

    offset: int
    size: int


@dataclass(frozen=True)
class Tensor:
    """A constant that the file stores.

    Attributes:
        info: Name, type, shape and exponents. For packed filters the shape is cosmetic
            (``(H, W, C, N)``); ``weights.unpack_filter`` knows the order of the bytes.
        raw: The elements as stored, shape ``(info.size,)``, dtype ``info.dtype``; read-only.
        span: Where the elements stand in the file; None when the file does not store them
            as raw bytes.
        layout: The exporter's remark on the order of the bytes, such as ``(N/16)HWC16``.
    """

    info: TensorInfo
    raw: Array
    span: Span | None = None
    layout: str = ""

    @property
    def array(self) -> Array:
        """The elements in the stored shape: right for everything that is not packed."""
        return self.raw.reshape(self.info.shape)


@dataclass(frozen=True)
class Node:
    """One operator.

    Attributes:
        name: Unique within the graph.
        op_type: ONNX spelling, such as ``Conv``.
        inputs: Tensor names; ``""`` stands for an optional input that is missing.
        outputs: Tensor names; ``""`` stands for an optional output that is missing.
        attributes: By name. ``quant_type`` is ``"S8"``, ``"S16"`` or ``"F32"``.
    """

    name: str
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.op_type} {self.name!r}"


@dataclass(frozen=True)
class Header:
    """The container around the graph.

    Attributes:
        magic: ``EDL1`` or ``EDL2``.
        encrypted: The FlatBuffer is AES-128-CTR encrypted in the file.
        data: Where the FlatBuffer stands in the file.
        file_bytes: Size of the file, with header and padding.
        ir_version: ONNX IR version that the exporter wrote.
        model_version: The user's version number of the model.
        producer: Name and version of the exporter; empty when it gave none.
        doc_string: The exporter's description of the model.
    """

    magic: str
    encrypted: bool
    data: Span
    file_bytes: int
    ir_version: int = 0
    model_version: int = 0
    producer: str = ""
    doc_string: str = ""


@dataclass(frozen=True)
class Graph:
    """One model, validated: names are unique, nodes are in topological order, data is complete.

    Attributes:
        name: The graph's own name.
        inputs: Graph inputs that are not constants.
        outputs: Graph outputs.
        nodes: In the order of execution.
        initializers: Constants by name, look-up tables included.
        value_info: What the file says about tensors that are not constants, by name, graph
            inputs and outputs included.
        test_inputs: Embedded test values by input name, in the stored shape.
        test_outputs: Embedded expected values by output name, in the stored shape.
        metadata: The user's key and value pairs.
        header: The container.
        path: The file, or a label for bytes that came from elsewhere; for messages.
    """

    name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    nodes: tuple[Node, ...]
    initializers: dict[str, Tensor]
    value_info: dict[str, TensorInfo]
    test_inputs: dict[str, Array]
    test_outputs: dict[str, Array]
    metadata: dict[str, str]
    header: Header
    path: str

    @property
    def constants(self) -> dict[str, Array]:
        """Elements of the constants by name, in the stored shape."""
        return {name: tensor.array for name, tensor in self.initializers.items()}

    def info(self, name: str) -> TensorInfo:
        """What the file says about a tensor, constant or not.

        Raises:
            KeyError: The file says nothing about it.
        """
        tensor = self.initializers.get(name)
        return self.value_info[name] if tensor is None else tensor.info
