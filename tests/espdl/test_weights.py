"""Filter packing: against a plain loop, there and back, and on what ESP-DL's kernels computed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espdl_hil.espdl import load_graph, pack_filter, pack_matrices, unpack_filter, unpack_matrices
from espdl_hil.espdl.weights import filter_shape

CHANNELS = [1, 7, 8, 9, 15, 16, 17, 31, 33]
TARGETS = ["esp32s3", "esp32p4", "c"]


def packed_by_loop(filters, target, *, depthwise):
    """The order of the table in `weights`, element by element."""
    n, height, width, c = filters.shape
    if target == "c":
        return (filters.transpose(1, 2, 3, 0) if depthwise else filters).reshape(-1)
    blk = 16 // filters.itemsize
    aligned = n // blk * blk
    out = [
        filters[block + lane, y, x, ch]
        for block in range(0, aligned, blk)
        for y in range(height)
        for x in range(width)
        for ch in range(c)
        for lane in range(blk)
    ]
    if depthwise:
        out += [
            filters[k, y, x, 0]
            for y in range(height)
            for x in range(width)
            for k in range(aligned, n)
        ]
    else:
        out += list(filters[aligned:].reshape(-1))
    return np.array(out, filters.dtype)


def stored_dims(shape, *, depthwise):
    n, height, width, c = shape
    return (height, width, n, 1) if depthwise else (height, width, c, n)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", ["int8", "int16"])
@pytest.mark.parametrize("n", CHANNELS)
@pytest.mark.parametrize("depthwise", [False, True])
def test_packing_is_the_documented_order(n, dtype, target, depthwise):
    for height, width, c in [(1, 1, 5), (1, 3, 2), (3, 2, 3)]:
        shape = (n, height, width, 1 if depthwise else c)
        filters = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        raw = pack_filter(filters, target, depthwise=depthwise)
        assert np.array_equal(raw, packed_by_loop(filters, target, depthwise=depthwise))
        dims = stored_dims(shape, depthwise=depthwise)
        assert np.array_equal(unpack_filter(raw, dims, target, depthwise=depthwise), filters)


@settings(max_examples=60)
@given(
    target=st.sampled_from(TARGETS),
    dtype=st.sampled_from(["int8", "int16"]),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 3), st.integers(1, 5), st.integers(1, 9)),
    depthwise=st.booleans(),
    seed=st.integers(0, 99),
)
def test_round_trip_both_ways(target, dtype, shape, depthwise, seed):
    shape = (*shape[:3], 1) if depthwise else shape
    raw = np.random.default_rng(seed).integers(-128, 128, np.prod(shape)).astype(dtype)
    dims = stored_dims(shape, depthwise=depthwise)
    logical = unpack_filter(raw, dims, target, depthwise=depthwise)
    assert logical.shape == shape == filter_shape(dims, depthwise=depthwise)
    assert np.array_equal(pack_filter(logical, target, depthwise=depthwise), raw)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("n", CHANNELS)
def test_matrices_are_packed_one_by_one(n, target):
    logical = np.arange(2 * 3 * 5 * n).reshape(2, 3, 5, n).astype("int16")
    raw = pack_matrices(logical, target)
    first = packed_by_loop(logical[0, 0].T.reshape(n, 1, 1, 5), target, depthwise=False)
    assert np.array_equal(raw[0, 0].reshape(-1), first)
    assert np.array_equal(unpack_matrices(raw, logical.shape, target), logical)


def test_a_vector_is_not_packed():
    vector = np.arange(20, dtype="int8")
    assert np.array_equal(
        unpack_matrices(pack_matrices(vector, "esp32s3"), (20,), "esp32s3"), vector
    )


def test_targets_with_vector_units_differ_from_c():
    filters = np.arange(32 * 6).reshape(32, 1, 3, 2).astype("int8")
    assert not np.array_equal(pack_filter(filters, "esp32s3"), pack_filter(filters, "c"))


@pytest.mark.parametrize(("stored", "depthwise"), [((3, 4), False), ((1, 2, 3, 4), True)])
def test_what_is_no_filter(stored, depthwise):
    with pytest.raises(ValueError, match="is not the shape of a"):
        filter_shape(stored, depthwise=depthwise)


def convolve(x, filters, node, bias):
    """(H, W, N) accumulators of a convolution, the plain way."""
    spatial = x.ndim - 2
    x = x[0].astype(np.int64)
    pads = node.attributes.get("pads", (0,) * 2 * spatial) or (0,) * 2 * spatial
    strides, dilations = node.attributes["strides"], node.attributes["dilations"]
    if spatial == 1:
        x, pads = x[None], (0, pads[0], 0, pads[1])
        strides, dilations = (1, *strides), (1, *dilations)
    x = np.pad(x, ((pads[0], pads[2]), (pads[1], pads[3]), (0, 0)))
    n, height, width, c = filters.shape
    rows = (x.shape[0] - dilations[0] * (height - 1) - 1) // strides[0] + 1
    columns = (x.shape[1] - dilations[1] * (width - 1) - 1) // strides[1] + 1
    acc = np.zeros((rows, columns, n), np.int64)
    for i in range(rows):
        for j in range(columns):
            y, z = i * strides[0], j * strides[1]
            window = x[
                y : y + dilations[0] * (height - 1) + 1 : dilations[0],
                z : z + dilations[1] * (width - 1) + 1 : dilations[1],
            ]
            product = window * filters[..., 0].transpose(1, 2, 0) if c == 1 < x.shape[2] else None
            if product is None:
                acc[i, j] = np.einsum("yxc,nyxc->n", window, filters.astype(np.int64))
            else:
                acc[i, j] = product.sum(axis=(0, 1))
    return acc if bias is None else acc + bias


@pytest.mark.parametrize("target", ["esp32s3", "esp32p4"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    "case",
    [
        "conv1d_causal_k3",
        "conv1d_stride2",
        "conv2d_k3_s2_relu",
        "dwconv1d_k5_dil_relu",
        "dwconv2d_k3",
    ],
)
def test_unpacked_filters_give_what_the_kernels_computed(golden, case, target, bits):
    data, index, tensors = golden(f"{case}.{target}.int{bits}")
    graph = load_graph(data)
    node = next(node for node in graph.nodes if node.op_type == "Conv")
    weights, bias = (graph.initializers.get(name) for name in (*node.inputs[1:], "", "")[:2])
    depthwise = node.attributes["group"] != 1
    filters = unpack_filter(weights.raw, weights.info.shape, target, depthwise=depthwise)
    name, made = node.inputs[0], node.outputs[0]
    for stream in range(len(index["streams"])):
        x, expected = (
            tensors.get(f"s{stream}/t0/{side}/{key}", tensors.get(f"s{stream}/t0/{side}{key}"))
            for side, key in (("in" if name in index["inputs"] else "out", name), ("out", made))
        )
        acc = convolve(x, filters, node, None if bias is None else bias.raw)
        shifts = np.array(
            [
                graph.info(made).exponent - graph.info(name).exponent - e
                for e in weights.info.exponents
            ]
        )
        half_up = (acc + (1 << (shifts - 1))) >> shifts
        tie = (acc & ((1 << shifts) - 1)) == 1 << (shifts - 1)
        rounded = half_up - (tie & (half_up & 1 == 1) if target == "esp32p4" else 0)
        rounded = np.maximum(rounded, 0) if node.attributes["activation"] == "Relu" else rounded
        limit = 2 ** (bits - 1)
        assert np.array_equal(np.clip(rounded, -limit, limit - 1).reshape(expected.shape), expected)
