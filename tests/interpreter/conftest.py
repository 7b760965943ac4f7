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
def rng():
    return np.random.default_rng(7)
