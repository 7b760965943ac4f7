"""Which code computes a node, where its size decides and the results differ."""

import numpy as np
import pytest

from espdl_hil.interpreter import load
from espdl_hil.operators import code_by_size
from espdl_hil.operators.casts import rescaled, shifted
from espdl_hil.targets import DEVKIT_TARGETS, TARGETS


def product_of(lab, shapes, dtype=np.int16, shift=14):
    rng = np.random.default_rng(0)
    info = np.iinfo(dtype)
    inputs = [lab.q(rng.integers(info.min, info.max, s), -shift, dtype) for s in shapes]
    return lab.graph("Mul", inputs, [(dtype, -shift)]), inputs


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
@pytest.mark.parametrize(
    ("shapes", "code"),
    [
        (((1, 2, 4), (1, 2, 4)), "SIMD"),
        (((1, 1, 4), (1, 1, 4)), "C"),
        (((1, 96, 4), (1, 96, 1)), "C"),  # 4 is the innermost loop, whatever the frames
        (((1, 1, 8), (1, 1, 1)), "SIMD"),
        (((1, 1, 7), (1,)), "C"),
        (((1, 3, 7), (1,)), "SIMD"),
        # a quotient by a divisor for each of 8 channels, as a product: of 60 frames, and of one
        (((1, 8, 60), (1, 8, 1)), "SIMD"),
        (((1, 8, 1), (1, 8, 1)), "SIMD"),
    ],
)
def test_a_product_of_int16_depends_on_its_innermost_merged_dimension(lab, target, shapes, code):
    graph, _ = product_of(lab, shapes)
    assert code_by_size(graph, target) == {"node": code}
    assert code_by_size(graph, "c") == {}


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
def test_other_lengths_may_be_asked_for(lab, target):
    graph, _ = product_of(lab, ((1, 1, 4), (1, 1, 4)))
    longer = dict.fromkeys(("x0", "x1"), (1, 2, 4))
    assert code_by_size(graph, target, longer) == {"node": "SIMD"}


def test_int8_gives_the_same_by_either_code(lab):
    graph, _ = product_of(lab, ((1, 1, 4), (1, 1, 4)), np.int8, 6)
    assert code_by_size(graph, "esp32s3") == {}


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
def test_a_uniform_product_is_that_of_any_size(lab, target):
    """Chunks of one frame, computed alike, are the whole; as the chip computes them, not."""
    graph, inputs = product_of(lab, ((1, 1536, 4), (1, 1536, 4)))
    whole = load(graph, target).step({f"x{i}": x.array for i, x in enumerate(inputs)})["y0"]
    chunk = dict.fromkeys(("x0", "x1"), (1, 1, 4))

    def stream(uniform):
        session = load(graph, target, input_shapes=chunk, uniform=uniform)
        steps = [
            session.step({f"x{i}": x.array[:, [t]] for i, x in enumerate(inputs)})["y0"]
            for t in range(1536)
        ]
        return np.concatenate(steps, 1)

    assert np.array_equal(stream({"node"}), whole)
    differing = np.abs(stream(()).astype(int) - whole)
    assert 0 < np.count_nonzero(differing) < 200
    assert differing.max() == 1


CHIPS = (*DEVKIT_TARGETS, "c")


def quotient_of(lab, shapes, dtype=np.int16, *, stored=False):
    rng = np.random.default_rng(0)
    high = np.iinfo(dtype).max
    dividend = lab.q(rng.integers(-high, high, shapes[0]), -high.bit_length() + 1, dtype)
    integers = rng.integers(high // 2, high, shapes[1])
    divisor = (lab.const if stored else lab.q)(integers, -high.bit_length() + 1, dtype)
    inputs = [dividend, divisor]
    return lab.graph("Div", inputs, [(dtype, -high.bit_length() + 1)]), inputs


@pytest.mark.parametrize("target", CHIPS)
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize(
    ("shapes", "code"),
    [
        (((1, 10, 60), (1, 10, 1)), "reciprocal"),  # a divisor a channel: one for a row of frames
        (((1, 10, 2), (1, 10, 1)), "reciprocal"),
        (((1, 10, 1), (1, 10, 1)), "quotient"),  # in a chunk of one frame none for a row
        (((1, 60, 10), (10,)), "quotient"),  # channels last: at every size
        (((1, 1, 10), (10,)), "quotient"),
        (((1, 10, 60), (1, 1, 60)), "quotient"),  # a divisor a frame
        (((1, 10, 2), (1, 10, 2)), "quotient"),
        (((1, 10, 1), (1, 10, 6)), "quotient"),  # one dividend for a row gives the same
    ],
)
def test_a_quotient_depends_on_whether_a_row_has_one_divisor(lab, target, dtype, shapes, code):
    graph, _ = quotient_of(lab, shapes, dtype)
    assert code_by_size(graph, target) == {"node": code}


@pytest.mark.parametrize("target", CHIPS)
def test_a_single_divisor_has_one_code_at_every_size(lab, target):
    for shape in ((1, 10, 60), (1, 10, 1), (1, 1, 1)):
        graph, _ = quotient_of(lab, (shape, (1,)), np.int16, stored=True)
        assert code_by_size(graph, target) == {"node": "reciprocal"}
        table, _ = quotient_of(lab, (shape, (1,)), np.int8, stored=True)
        assert code_by_size(table, target) == {}


@pytest.mark.parametrize("target", CHIPS)
def test_a_uniform_quotient_is_that_of_any_size(lab, target):
    """Chunks of one frame, computed alike, are the whole; as the chip computes them, not."""
    graph, inputs = quotient_of(lab, ((1, 512, 60), (1, 512, 1)))
    dividend, divisor = (x.array for x in inputs)

    def whole(uniform):
        session = load(graph, target, uniform=uniform)
        return session.step({"x0": dividend, "x1": divisor})["y0"]

    def stream(uniform):
        session = load(graph, target, input_shapes={"x0": (1, 512, 1)}, uniform=uniform)
        steps = [session.step({"x0": dividend[:, :, [t]], "x1": divisor})["y0"] for t in range(60)]
        return np.concatenate(steps, 2)

    assert np.array_equal(stream({"node"}), whole({"node"}))
    differing = np.abs(stream(()).astype(int) - whole(()))
    assert 0 < np.count_nonzero(differing) < 200
    assert differing.max() == 1


def test_a_uniform_quotient_of_floats_is_a_quotient(lab):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3, 9)).astype("f4"), rng.normal(size=(3, 1)).astype("f4")
    graph = lab.graph("Div", [lab.real(a), lab.real(b)], [(np.float32, 0)])
    assert code_by_size(graph, "esp32s3") == {"node": "reciprocal"}
    found = [
        load(graph, "esp32s3", uniform=uniform).step({"x0": a, "x1": b})["y0"]
        for uniform in ({"node"}, ())
    ]
    assert np.array_equal(found[0], a / b)
    assert not np.array_equal(found[1], a / b)


def columns_of(lab, frames, dtype=np.int8):
    """A constant-free product whose columns are frames, heavy enough to fill 20-bit lanes."""
    rng = np.random.default_rng(1)
    weights = lab.q(rng.integers(90, 127, (1, 16, 96)), -4, dtype)
    x = lab.q(rng.integers(90, 127, (1, 96, frames)), -4, dtype)
    return lab.graph("MatMul", [weights, x], [(dtype, 6)]), [weights, x]


def test_frames_as_columns_are_summed_in_lanes_by_the_block(lab):
    whole, inputs = columns_of(lab, 32)
    chunk, _ = columns_of(lab, 8)
    assert code_by_size(whole, "esp32s3") == {"node": "32 of 32 columns in lanes"}
    assert code_by_size(chunk, "esp32s3") == {"node": "0 of 8 columns in lanes"}
    fed = {f"x{i}": x.array for i, x in enumerate(inputs)}
    lanes = load(whole, "esp32s3")
    saturated = lanes.step(fed)["y0"]
    assert lanes.lane_saturations
    exact = load(whole, "esp32s3", uniform={"node"})
    assert not np.array_equal(exact.step(fed)["y0"], saturated)
    assert not exact.lane_saturations


def test_a_stored_operand_has_as_many_columns_at_every_size(lab):
    rng = np.random.default_rng(2)
    stored = lab.packed_matrices(rng.integers(-9, 9, (1, 8, 24)).astype(np.int8), -4, "esp32s3")
    x = lab.q(rng.integers(-9, 9, (1, 5, 8)), -4, np.int8)
    graph = lab.graph("MatMul", [x, stored], [(np.int8, -4)])
    assert code_by_size(graph, "esp32s3") == {}


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
@pytest.mark.parametrize("types", [(np.int8, np.int8), (np.int16, np.int16), (np.int16, np.int8)])
@pytest.mark.parametrize("coarser", [-4, -1, 1, 2, 7, 8, 15])
def test_requantizing_without_a_flaw_is_the_same_by_either_code(target, types, coarser):
    """So its size (50 elements) makes no difference to anything that is exported."""
    taken, made = map(np.dtype, types)
    vector = shifted(TARGETS[target], taken, made, coarser)
    assert np.array_equal(vector, rescaled(TARGETS[target], taken, made, coarser))
