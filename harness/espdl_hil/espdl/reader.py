"""From the bytes of an EDL file to a validated `Graph`. Knows the schema, not the operators.

Slot numbers are the positions of the fields in ESP-DL's ``espdl.fbs``; a union takes two.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from espdl_hil.errors import ArtifactError, ConfigError
from espdl_hil.espdl.container import Edl, read_edl, read_package, select_model
from espdl_hil.espdl.flatbuffer import Buffer, Table
from espdl_hil.espdl.graph import (
    MAX_ELEMENTS,
    MAX_RANK,
    Array,
    Attribute,
    Graph,
    Header,
    Node,
    Shape,
    Span,
    Tensor,
    TensorInfo,
)

MAX_EXPONENT = 256  # beyond any scale that float32 can express
TENSOR_TYPE = 1  # of the union TypeInfoValue
LAYOUT_PREFIX = "layout ==> "  # how esp-ppq begins the doc string of a constant
BLOCK_BYTES = 16  # raw data is stored in 16-byte structs, zero padded

# TensorDataType of the schema; strings and undefined tensors cannot be computed with.
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("<f4"),
    2: np.dtype("u1"),
    3: np.dtype("i1"),
    4: np.dtype("<u2"),
    5: np.dtype("<i2"),
    6: np.dtype("<i4"),
    7: np.dtype("<i8"),
    9: np.dtype("?"),
    10: np.dtype("<f2"),
    11: np.dtype("<f8"),
    12: np.dtype("<u4"),
    13: np.dtype("<u8"),
}
# Where a tensor without raw data keeps its elements: slot and stored type, by data type.
TYPED_DATA = {
    1: (2, "<f4"),
    **dict.fromkeys((2, 3, 4, 5, 6, 9, 10), (3, "<i4")),
    7: (5, "<i8"),
    11: (11, "<f8"),
    **dict.fromkeys((12, 13), (12, "<u8")),
}


def load_graph(
    source: Path | bytes, *, key: bytes | None = None, model: str | int | None = None
) -> Graph:
    """Read one model.

    Args:
        source: An EDL file or a PDL package, or its bytes.
        key: AES-128 key of an encrypted model, 16 bytes.
        model: Name or index within a package; None takes the only one.

    Returns:
        The graph, structurally sound. Whether ESP-DL can run it is for `check_graph` to say.

    Raises:
        ArtifactError: The file cannot be read or is damaged; carries path and byte offset.
        ConfigError: The file does not exist, the key has the wrong length, or there is no such
            model.
    """
    label = str(source) if isinstance(source, Path) else "<bytes>"
    entry = select_model(read_package(read_bytes(source), label=label), model, label=label)
    if entry.name:
        label = f"{label}[{entry.name}]"
    return read_graph(read_edl(entry.data, label=label, key=key), path=label)


def read_bytes(source: Path | bytes) -> bytes:
    """The bytes of a model file.

    Raises:
        ConfigError: The file cannot be opened.
    """
    if isinstance(source, bytes):
        return source
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {source}: {error.strerror or error}") from None


def read_graph(edl: Edl, *, path: str) -> Graph:
    """Read the graph of an unwrapped EDL file.

    Args:
        edl: The container's content.
        path: The file's name, for messages.

    Raises:
        ArtifactError: The FlatBuffer is damaged or contradicts itself.
    """
    hint = "is this the right key?" if edl.encrypted else None
    buffer = Buffer(edl.payload, path=path, base=edl.span.offset, hint=hint)
    root = buffer.root()
    table = root.table(7, "graph")
    if table is None:
        root.fail("there is no graph")
    nodes = tuple(_node(t) for t in table.tables(0, "node", of_owner=False))
    initializers = _initializers(table)
    outputs = _value_infos(table, 5, "graph output")
    inputs = _value_infos(table, 4, "graph input")
    inputs = tuple(info for info in inputs if info.name not in initializers)
    described = _value_infos(table, 6, "value info")
    value_info = {info.name: info for info in (*described, *inputs, *outputs) if info.name}
    graph = Graph(
        name=table.string(1, "name"),
        inputs=inputs,
        outputs=outputs,
        nodes=nodes,
        initializers=initializers,
        value_info=value_info,
        test_inputs=_test_values(table, 8, "test input"),
        test_outputs=_test_values(table, 9, "test output"),
        metadata={t.string(0, "key"): t.string(1, "value") for t in root.tables(8, "metadata")},
        header=_header(edl, root),
        path=path,
    )
    _validate(graph)
    return graph


def _header(edl: Edl, root: Table) -> Header:
    producer = f"{root.string(2, 'producer')} {root.string(3, 'producer version')}".strip()
    return Header(
        magic=edl.magic,
        encrypted=edl.encrypted,
        data=edl.span,
        file_bytes=edl.file_bytes,
        ir_version=root.number(0, "i"),
        model_version=root.number(5, "q"),
        producer=producer,
        doc_string=root.string(6, "doc string"),
    )


def _node(table: Table) -> Node:
    name, op_type = table.string(2, "name"), table.string(3, "operator")
    if not name or not op_type:
        table.fail("a node needs a name and an operator")
    table.call(name)
    attributes: dict[str, Attribute] = {}
    for entry in table.tables(5, "attribute"):
        attribute = entry.string(0, "name")
        if attribute in attributes:
            entry.fail(f"a second attribute is named {attribute!r}")
        attributes[attribute] = _attribute(entry)
    return Node(name, op_type, table.strings(0, "input"), table.strings(1, "output"), attributes)


def _attribute(table: Table) -> Attribute:
    kind = table.number(3, "i")
    if kind == 1:
        return table.real(4)
    if kind == 2:
        return table.number(5, "q")
    if kind == 3:
        return _text(table)
    if kind == 4:
        tensor = table.table(7, "tensor")
        if tensor is None:
            table.fail("there is no tensor")
        return _tensor(tensor)
    if kind == 6:
        return tuple(table.numbers(10, "<f4", "floats").tolist())
    if kind == 7:
        return table.integers(11, "ints")
    if kind == 8:
        return table.strings(12, "strings")
    return table.fail(f"attribute type {kind}, expected a number, text, a list of them or a tensor")


def _text(table: Table) -> str:
    position, size = table.blob(6, 1, "text")
    try:
        return table.buffer.data[position : position + size].decode()
    except UnicodeDecodeError:
        table.fail("the text is not UTF-8")


def _initializers(graph: Table) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for table in graph.tables(2, "initializer", of_owner=False):
        tensor = _tensor(table)
        if tensor.info.name in found or not tensor.info.name:
            table.fail("a constant needs a name of its own")
        found[tensor.info.name] = tensor
    return found


def _tensor(table: Table) -> Tensor:
    name = table.string(6, "name")
    table.call(name)
    kind = table.number(1, "i")
    dtype = _dtype(table, kind)
    shape = _shape(table, table.integers(0, "dims"))
    info = TensorInfo(name, dtype, shape, _exponents(table, 13))
    if table.number(10, "i") != 0:
        table.fail("the data is in another file, which ESP-DL cannot load")
    raw, span = _elements(table, kind, info)
    return Tensor(info, raw, span, table.string(7, "doc string").removeprefix(LAYOUT_PREFIX))


def _elements(table: Table, kind: int, info: TensorInfo) -> tuple[Array, Span | None]:
    position, size = table.blob(8, BLOCK_BYTES, "raw data")
    if size:
        if not info.nbytes <= size < info.nbytes + BLOCK_BYTES:
            table.fail(
                f"{size} bytes of raw data, shape {info.shape} of {info.dtype} needs "
                f"{info.nbytes} padded to {BLOCK_BYTES}"
            )
        raw = np.frombuffer(table.buffer.data, info.dtype, info.size, position)
        if info.dtype.kind == "b" and np.any(raw.view(np.uint8) > 1):
            table.fail("a boolean is neither 0 nor 1")
        return raw, Span(table.buffer.base + position, info.nbytes)
    slot, stored = TYPED_DATA[kind]
    values = table.numbers(slot, stored, "values")
    if values.size != info.size:
        table.fail(f"{values.size} values, shape {info.shape} needs {info.size}")
    converted = values.astype(info.dtype)
    converted.flags.writeable = False
    return converted, None


def _test_values(graph: Table, slot: int, what: str) -> dict[str, Array]:
    tensors = (_tensor(table) for table in graph.tables(slot, what, of_owner=False))
    return {tensor.info.name: tensor.array for tensor in tensors}


def _value_infos(graph: Table, slot: int, what: str) -> tuple[TensorInfo, ...]:
    return tuple(_value_info(t) for t in graph.tables(slot, what, of_owner=False))


def _value_info(table: Table) -> TensorInfo:
    name = table.string(0, "name")
    table.call(name)
    type_info = table.table(1, "type")
    if type_info is None or type_info.number(0, "B") != TENSOR_TYPE:
        table.fail("it is not a tensor")
    tensor = type_info.table(1, "tensor type")
    if tensor is None:
        table.fail("it has no tensor type")
    dtype = _dtype(table, tensor.number(0, "i"))
    listed = tensor.table(1, "shape")
    dims = () if listed is None else tuple(map(_dimension, listed.tables(0, "dimension")))
    return TensorInfo(name, dtype, _shape(table, dims, -1), _exponents(table, 3))


def _dtype(table: Table, kind: int) -> np.dtype[Any]:
    dtype = DTYPES.get(kind)
    if dtype is None:
        table.fail(f"element type {kind} is not a number")
    return dtype


def _shape(table: Table, shape: Shape, low: int = 0) -> Shape:
    if len(shape) > MAX_RANK:
        table.fail(f"{len(shape)} dimensions, expected {MAX_RANK} or fewer")
    # lengths beside a 0 count too: NumPy multiplies them in 64 bits, and they wrap
    held = math.prod(dim for dim in shape if dim > 0)
    if any(dim < low for dim in shape) or held > MAX_ELEMENTS:
        table.fail(f"impossible shape {shape}")
    return shape


def _exponents(table: Table, slot: int) -> tuple[int, ...]:
    exponents = table.integers(slot, "exponents")
    if any(abs(e) > MAX_EXPONENT for e in exponents):
        table.fail(f"an exponent is outside +-{MAX_EXPONENT}")
    return exponents or (0,)


def _dimension(table: Table) -> int:
    """The length, or -1 for one that the file does not know."""
    value = table.table(0, "value")
    return value.number(1, "q", -1) if value is not None and value.number(0, "b") == 1 else -1


def _validate(graph: Graph) -> None:
    """Insist on unique names, known tensors and execution order."""

    def fail(message: str) -> None:
        raise ArtifactError(message, path=graph.path, offset=graph.header.data.offset)

    for kind, infos in (("input", graph.inputs), ("output", graph.outputs)):
        names = [info.name for info in infos]
        if len(set(names)) != len(names) or "" in names:
            fail(f"the graph {kind}s are not uniquely named: {names}")
    known = {info.name for info in graph.inputs} | graph.initializers.keys()
    seen: set[str] = set()
    for node in graph.nodes:
        if node.name in seen:
            fail(f"two nodes are named {node.name!r}; ESP-DL would keep one of them")
        seen.add(node.name)
        for name in node.inputs:
            if name and name not in known:
                fail(f"{node} reads {name!r}, which nothing before it makes")
        for name in node.outputs:
            if name in known:
                fail(f"{node} makes {name!r}, which exists already")
            if name and name not in graph.value_info:
                fail(f"{node} makes {name!r}, whose type the file does not say")
            if name:
                known.add(name)
    for info in graph.outputs:
        if info.name not in known:
            fail(f"nothing makes the graph output {info.name!r}")
