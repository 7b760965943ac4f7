"""Operators that move elements, against NumPy's own."""

from __future__ import annotations

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError


@pytest.fixture(params=["int8", "int16", "float32"])
def tensor(request, lab, rng):
    """Makes a tensor of every width; the elements are all different."""

    def make(*shape):
        values = rng.permutation(np.prod(shape)).reshape(shape) - 50
        return lab.Q(values.astype(request.param), (0,))

    return make


def move(lab, kind, x, *others, outputs=1, **attributes):
    spec = [(x.array.dtype, 0)] * outputs
    found = lab.run(kind, [x, *others], spec, **attributes)
    return found[0] if outputs == 1 else found


@pytest.mark.parametrize("perm", [(0, 2, 1), (2, 0, 1), (-1, 1, 0), (0, 1, 2)])
def test_transpose(lab, tensor, perm):
    x = tensor(2, 3, 4)
    assert np.array_equal(move(lab, "Transpose", x, perm=perm), x.array.transpose(perm))


@pytest.mark.parametrize(
    ("kind", "others", "attributes", "shape"),
    [
        ("Reshape", [(6, 4)], {}, (6, 4)),
        ("Reshape", [(0, -1)], {}, (2, 12)),
        ("Flatten", [], {"axis": 2}, (6, 4)),
        ("Flatten", [], {"axis": -3}, (1, 24)),
        ("Squeeze", [(0,)], {}, (2, 3, 4)),
        ("Unsqueeze", [(0, -1)], {}, (1, 2, 3, 4, 1)),
        ("Identity", [], {}, (2, 3, 4)),
    ],
)
def test_views(lab, tensor, kind, others, attributes, shape):
    x = tensor(2, 3, 4)
    found = move(lab, kind, x, *[lab.indices(*o) for o in others], **attributes)
    assert np.array_equal(found, x.array.reshape(shape))


def test_a_view_costs_nothing(lab):
    from espdl_hil.interpreter import load

    graph = lab.graph("Flatten", [lab.q(np.ones((1, 2, 3)))], [(np.int8, 0)], axis=1)
    session = load(graph, "c")
    assert session.kernels == []
    session.step({"x0": np.arange(6, dtype=np.int8).reshape(1, 2, 3)})
    assert session.trace["y0"].tolist() == [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat_and_split_are_inverse(lab, tensor, axis):
    x = tensor(4, 6, 5)
    lengths = [1, x.array.shape[axis] - 3, 2]
    parts = move(lab, "Split", x, lab.indices(*lengths), outputs=3, axis=axis)
    ends = np.cumsum(lengths)[:-1]
    for part, wanted in zip(parts, np.split(x.array, ends, axis), strict=True):
        assert np.array_equal(part, wanted)
    first, *rest = (lab.Q(part, (0,)) for part in parts)
    assert np.array_equal(move(lab, "Concat", first, *rest, axis=axis), x.array)


@pytest.mark.parametrize(
    ("starts", "ends", "axes", "steps", "wanted"),
    [
        ((1,), (3,), (1,), None, np.s_[:, 1:3]),
        ((-2,), (2**62,), (2,), None, np.s_[:, :, -2:]),
        ((0, 1), (4, 5), (0, 2), (2, 3), np.s_[0:4:2, :, 1:5:3]),
        ((-1,), (-(2**62),), (1,), (-1,), np.s_[:, ::-1]),
        ((0,), (-1,), (0,), (1,), np.s_[:-1]),
    ],
)
def test_slice(lab, tensor, starts, ends, axes, steps, wanted):
    x = tensor(4, 3, 6)
    others = [lab.indices(*v) for v in (starts, ends, axes, steps) if v is not None]
    assert np.array_equal(move(lab, "Slice", x, *others), x.array[wanted])


def test_a_partial_slice_backwards_takes_other_elements_on_the_chip(lab):
    x = lab.q(np.arange(4))
    others = [lab.indices(v) for v in (3, 0, 0, -1)]
    with pytest.raises(UnsupportedOpError, match="the chip takes other elements"):
        move(lab, "Slice", x, *others)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
@pytest.mark.parametrize("shape", [(5,), (3, 4), (1, 4, 3), (2, 3, 3, 4)])
def test_pad(lab, tensor, mode, shape):
    x = tensor(*shape)
    widths = [(min(1, n - 1), min(2, n - 1)) for n in shape]
    pads = [w[0] for w in widths] + [w[1] for w in widths]
    others = [lab.indices(*pads)]
    if mode == "constant":
        others.append(lab.Q(np.array(7, x.array.dtype), (0,), True))
    found = move(lab, "Pad", x, *others, mode=mode)
    options = {"constant_values": 7} if mode == "constant" else {}
    assert np.array_equal(found, np.pad(x.array, widths, mode, **options))


def test_pad_is_zero_without_a_value(lab, tensor):
    found = move(lab, "Pad", tensor(2), lab.indices(1, 0), mode="constant")
    assert found[0] == 0


@pytest.mark.parametrize("kind", [np.int32, np.int64])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(lab, tensor, kind, axis):
    x = tensor(4, 3, 5)
    picks = np.array([[2, 0], [1, 2]])
    found = move(lab, "Gather", x, lab.const(picks, 0, kind), axis=axis)
    assert np.array_equal(found, x.array.take(picks, axis))


def test_gather_refuses_what_the_chip_reads_out_of_range(lab):
    with pytest.raises(UnsupportedOpError, match="does not count from the end"):
        move(lab, "Gather", lab.q(np.arange(4)), lab.indices(-1), axis=0)


def test_insert_zeros(lab, tensor):
    x = tensor(1, 3, 2, 4)
    found = move(lab, "InsertZeros", x, stride=(2, 3), output_padding=(1, 0))
    assert found.shape == (1, 6, 4, 4)
    assert np.array_equal(found[:, :5:2, ::3], x.array)
    assert np.count_nonzero(found) == np.count_nonzero(x.array)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(lab, tensor, mode):
    x = tensor(1, 2, 3, 8)  # two output channels, as wide as the block: DCR works
    n, h, w, _ = x.array.shape
    split = (2, 2, 2)
    parts = x.array.reshape(n, h, w, *split)
    order = (0, 1, 3, 2, 4, 5) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    found = move(lab, "DepthToSpace", x, blocksize=2, mode=mode)
    assert np.array_equal(found, parts.transpose(order).reshape(1, 4, 6, 2))


def test_space_to_depth_undoes_crd(lab, tensor):
    x = tensor(1, 2, 3, 12)
    wide = lab.Q(move(lab, "DepthToSpace", x, blocksize=2, mode="CRD"), (0,))
    assert np.array_equal(move(lab, "SpaceToDepth", wide, blocksize=2), x.array)


@pytest.mark.parametrize("batch", [0, 1])
def test_reverse_sequence(lab, dtype, batch):
    x = np.arange(24).reshape(3, 4, 2)
    lengths = [2, 4, 1] if batch == 0 else [3, 0, 1, 2]
    found = lab.one(
        "ReverseSequence",
        [lab.q(x, 0, dtype), lab.indices(*lengths)],
        dtype,
        0,
        batch_axis=batch,
        time_axis=1 - batch,
    )
    wanted = np.moveaxis(x, batch, 0).copy()
    for row, length in zip(wanted, lengths, strict=True):
        row[:length] = row[:length][::-1].copy()
    assert np.array_equal(np.moveaxis(found, batch, 0), wanted)


def test_reverse_sequence_of_floats_is_refused(lab):
    with pytest.raises(UnsupportedOpError, match="cuts fractions off"):
        lab.one(
            "ReverseSequence",
            [lab.real(np.ones((2, 2))), lab.indices(1, 2)],
            np.float32,
            0,
            batch_axis=1,
            time_axis=0,
        )


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scatter_nd_applies_updates_in_order_and_saturates(lab, dtype, reduction):
    info = np.iinfo(dtype)
    x = lab.q([[info.max, 1], [2, info.min]], 0, dtype)
    places = lab.const([[0, 0], [1, 1], [0, 0]], 0, np.int64)
    updates = lab.q([5, -6, 7], 0, dtype)
    found = lab.one("ScatterND", [x, places, updates], dtype, 0, reduction=reduction)
    wanted = {
        "none": [7, -6],
        "add": [info.max, info.min],
        "mul": [info.max, info.max],
        "max": [info.max, -6],
        "min": [5, info.min],
    }[reduction]
    assert found.tolist() == [[wanted[0], 1], [2, wanted[1]]]


def test_scatter_nd_of_slices_and_floats(lab):
    x, updates = lab.real(np.zeros((3, 2))), lab.real([[1, 2]])
    found = lab.one("ScatterND", [x, lab.const([[1]], 0, np.int64), updates], np.float32, 0)
    assert found.tolist() == [[0, 0], [1, 2], [0, 0]]
