"""A laboratory for single nodes: graphs built in memory, results in exact arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import floor

import numpy as np
import pytest

from espdl_hil.espdl import (
    Graph,
    Header,
    Node,
    Span,
    Tensor,
    TensorInfo,
    pack_filter,
    pack_matrices,
)
from espdl_hil.interpreter import load

TARGETS = ("esp32s3", "esp32p4", "c")
HEADER = Header("EDL2", encrypted=False, data=Span(16, 10**6), file_bytes=10**6)
WIDTH = {"int8": "S8", "int16": "S16", "float32": "F32"}


@dataclass(frozen=True)
class Q:
    """A tensor: integers with exponents, or floats."""

    array: np.ndarray
    exponents: tuple[int, ...] = (0,)
    constant: bool = False


def q(values, exponent=0, dtype=np.int8, *, constant=False):
    exponents = exponent if isinstance(exponent, tuple) else (exponent,)
    array = np.asarray(values)
    assert np.array_equal(array, array.astype(dtype)), "the values do not fit the type"
    return Q(array.astype(dtype), exponents, constant)


def const(values, exponent=0, dtype=np.int8):
    return q(values, exponent, dtype, constant=True)


def real(values, *, constant=False):
    return Q(np.asarray(values, np.float32), (0,), constant)


def indices(*values):
    return const(np.array(values, np.int64).reshape(-1), 0, np.int64)


def packed(logical, exponent, chip, *, depthwise=False):
    """A filter (N, H, W, C) as a file for *chip* stores it."""
    n, h, w, c = logical.shape
    stored = pack_filter(logical, chip, depthwise=depthwise)
    shape = (h, w, n, 1) if depthwise else (h, w, c, n)
    return const(stored.reshape(shape), exponent, logical.dtype)


def packed_matrices(logical, exponent, chip):
    return const(pack_matrices(logical, chip), exponent, logical.dtype)


def node_graph(op_type, inputs, outputs, *, table=None, width=None, **attributes):
    """A graph of one node.

    Args:
        op_type: Operator.
        inputs: `Q` or None for a missing one.
        outputs: (dtype, exponent) each.
        table: A look-up table, `Q`.
        width: quant_type; by default that of the first input.
        **attributes: Of the node.
    """
    initializers, infos, names, feeds = {}, {}, [], []
    for i, operand in enumerate(inputs):
        names.append("" if operand is None else f"x{i}")
        if operand is None:
            continue
        info = TensorInfo(f"x{i}", operand.array.dtype, operand.array.shape, operand.exponents)
        if operand.constant:
            initializers[info.name] = Tensor(info, operand.array.reshape(-1))
        else:
            infos[info.name] = info
            feeds.append(info)
    if table is not None:
        info = TensorInfo("table", table.array.dtype, table.array.shape, table.exponents)
        initializers["table"] = Tensor(info, table.array.reshape(-1))
        attributes["lut"] = "table"
    results = tuple(
        TensorInfo(f"y{i}", np.dtype(dtype), (), (exponent,))
        for i, (dtype, exponent) in enumerate(outputs)
    )
    infos |= {info.name: info for info in results}
    attributes["quant_type"] = width or WIDTH[inputs[0].array.dtype.name]
    node = Node("node", op_type, tuple(names), tuple(r.name for r in results), attributes)
    return Graph(
        "lab", tuple(feeds), results, (node,), initializers, infos, {}, {}, {}, HEADER, "<lab>"
    )


def run_node(op_type, inputs, outputs, *, chip="c", **options):
    """Outputs of one node, a list of arrays."""
    session = load(node_graph(op_type, inputs, outputs, **options), chip)
    feeds = {
        f"x{i}": operand.array
        for i, operand in enumerate(inputs)
        if operand is not None and not operand.constant
    }
    found = session.step(feeds)
    return [found[f"y{i}"] for i in range(len(outputs))]


def run_one(op_type, inputs, dtype, exponent, **options):
    """The only output of one node."""
    return run_node(op_type, inputs, [(dtype, exponent)], **options)[0]


def rounded(value: Fraction, chip: str) -> int:
    """The nearest integer; a half as the chip rounds it."""
    value = Fraction(value)
    if chip == "esp32p4":
        return round(value)
    return floor(value + Fraction(1, 2))


def saturated(value: int, dtype) -> int:
    info = np.iinfo(dtype)
    return max(info.min, min(info.max, value))


def requantized(values, shift, chip, dtype):
    """Exact integers divided by ``2**shift``, rounded and saturated; any nesting of lists."""
    flat = [
        saturated(rounded(Fraction(int(v)) / Fraction(2) ** int(s), chip), dtype)
        for v, s in np.broadcast(np.asarray(values, object), np.asarray(shift, object))
    ]
    return np.array(flat, dtype).reshape(np.broadcast_shapes(np.shape(values), np.shape(shift)))


class Lab:
    """Everything above, for tests; conftest modules cannot be imported."""

    Q = Q
    q = staticmethod(q)
    const = staticmethod(const)
    real = staticmethod(real)
    indices = staticmethod(indices)
    packed = staticmethod(packed)
    packed_matrices = staticmethod(packed_matrices)
    graph = staticmethod(node_graph)
    run = staticmethod(run_node)
    one = staticmethod(run_one)
    rounded = staticmethod(rounded)
    requantized = staticmethod(requantized)


@pytest.fixture(scope="session")
def lab():
    return Lab


@pytest.fixture(params=TARGETS)
def chip(request):
    return request.param


@pytest.fixture(params=(np.int8, np.int16), ids=("int8", "int16"))
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def build_graph():
    """Function that makes a `Graph` from nodes and tensors, without a file.

    Tensors are ``name: (dtype, shape, exponent or exponents)``, or an array, or (array,
    exponents), which makes a constant. Tensors that no node makes are graph inputs.
    """

    def build(nodes, tensors, *, outputs=None, path="built", file_bytes=4096):
        constants, infos = {}, {}
        for name, value in tensors.items():
            if isinstance(value, np.ndarray):
                value = (value, 0)
            if isinstance(value[0], np.ndarray):
                info = _info(name, value[0].dtype, value[0].shape, value[1])
                constants[name] = Tensor(info, value[0].reshape(-1))
            else:
                infos[name] = _info(name, *value)
        made = [name for node in nodes for name in node.outputs if name]
        return Graph(
            name="built",
            inputs=tuple(info for name, info in infos.items() if name not in made),
            outputs=tuple(infos[name] for name in outputs or made[-1:]),
            nodes=tuple(nodes),
            initializers=constants,
            value_info=infos,
            test_inputs={},
            test_outputs={},
            metadata={},
            header=Header("EDL2", False, Span(16, file_bytes - 16), file_bytes),
            path=path,
        )

    return build


def _info(name, dtype, shape, exponents=0):
    exponents = exponents if isinstance(exponents, tuple) else (exponents,)
    return TensorInfo(name, np.dtype(dtype), tuple(shape), exponents)


@pytest.fixture
def one_node(build_graph):
    """Function that makes a graph of one node; the first tensor's type gives its quant_type."""

    def build(op_type, inputs, outputs, attributes=None, **options):
        tensors = inputs | outputs
        first = next(iter(inputs.values()))
        dtype = np.dtype(first.dtype if isinstance(first, np.ndarray) else first[0])
        attributes = {"quant_type": WIDTH.get(dtype.name, "S8")} | (attributes or {})
        names = tuple("" if name.startswith("missing") else name for name in inputs)
        node = Node("n", op_type, names, tuple(outputs), attributes)
        known = {name: value for name, value in tensors.items() if not name.startswith("missing")}
        return build_graph([node], known, **options)

    return build
