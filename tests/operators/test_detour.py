"""Ways around what a chip computes wrongly: right where they are taken, none where unknown."""

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError
from espdl_hil.interpreter import load
from espdl_hil.operators import check_graph, find_detours
from espdl_hil.operators.casts import rescaled
from espdl_hil.operators.detour import MoreChannels, Repeated, Steps
from espdl_hil.targets import DEVKIT_TARGETS, TARGETS


def requantize(lab, shape, taken, made, finer):
    rng = np.random.default_rng(0)
    info = np.iinfo(taken)
    x = lab.q(rng.integers(info.min, info.max + 1, shape), 0, taken)
    return lab.graph("RequantizeLinear", [x], [(made, -finer)]), x


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
@pytest.mark.parametrize(
    ("taken", "made"), [("i1", "i1"), ("i2", "i1"), ("i2", "i2"), ("i1", "i2")]
)
@pytest.mark.parametrize("finer", range(1, 24))
def test_left_shifts_in_steps_give_what_was_meant(lab, target, taken, made, finer):
    graph, x = requantize(lab, (1, 6, 16), taken, made, finer)
    detour = find_detours(graph, target).get("node")
    if detour is None:
        check_graph(graph, target)
        return
    with pytest.raises(UnsupportedOpError, match="wraps"):
        check_graph(graph, target)
    assert isinstance(detour, Steps)
    value, exponent = x, 0
    for there in (*detour.exponents, -finer):
        step = lab.graph(
            "RequantizeLinear", [lab.q(value.array, exponent, value.array.dtype)], [(made, there)]
        )
        check_graph(step, target)
        value, exponent = lab.q(load(step, target).step({"x0": value.array})["y0"], 0, made), there
    meant = rescaled(TARGETS[target], np.dtype(taken), np.dtype(made), -finer)
    assert np.array_equal(value.array, meant[x.array.view(f"u{x.array.itemsize}")])


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
@pytest.mark.parametrize(
    "shape", [(1, 7, 8), (1, 11, 8), (1, 8, 7), (1, 24, 9), (1, 1, 56), (1, 2, 28)]
)
def test_one_channel_more_leaves_no_output_unwritten(lab, target, shape):
    graph, _ = requantize(lab, shape, "i1", "i2", -1)
    channels = shape[-1]
    assert find_detours(graph, target) == {"node": MoreChannels(channels + 1, channels)}
    wider, _ = requantize(lab, (*shape[:-1], channels + 1), "i1", "i2", -1)
    check_graph(wider, target)
    assert find_detours(wider, target) == {}


def test_padding_again_still_keeps_the_channels_that_there_were():
    again = MoreChannels(10, 9).instead_of(MoreChannels(9, 8))
    assert again == MoreChannels(10, 8)
    assert MoreChannels(9, 8).instead_of(None) == MoreChannels(9, 8)
    assert str(again) == "padded from 8 to 10 channels, sliced behind it"


def nearest(lab, channels, before, after):
    rng = np.random.default_rng(0)
    x = lab.q(rng.integers(-128, 128, (1, *before, channels)))
    sizes = lab.indices(1, channels, *after)
    options = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return lab.graph("Resize", [x, None, None, sizes], [("i1", 0)], mode="nearest", **options)


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
def test_resize_is_given_a_whole_register_of_channels(lab, target):
    assert find_detours(nearest(lab, 5, (4,), (8,)), target) == {"node": MoreChannels(16, 5)}
    assert find_detours(nearest(lab, 5, (4, 3), (12, 3)), target) == {"node": MoreChannels(16, 5)}


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
def test_what_is_right_is_left_alone(lab, target):
    assert find_detours(nearest(lab, 5, (4, 3), (8, 6)), target) == {}
    assert find_detours(nearest(lab, 16, (4,), (8,)), target) == {}
    assert find_detours(nearest(lab, 5, (4,), (8,)), "c") == {}
    graph, _ = requantize(lab, (1, 5, 8), "i1", "i2", -1)  # 40 elements, which C computes
    assert find_detours(graph, target) == {}


def compared(lab, first, second):
    zero = [lab.q(np.zeros(shape), 0, np.int16) for shape in (first, second)]
    return lab.graph("Greater", zero, [("?", 0)])


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
def test_an_input_that_is_repeated_twice_is_written_out(lab, target):
    assert find_detours(compared(lab, (1, 2, 6), (1, 1, 6)), target) == {
        "node": Repeated(1, 1, times=2)
    }
    assert find_detours(compared(lab, (1, 6, 1), (1, 6, 2)), target) == {
        "node": Repeated(0, 2, times=2)
    }
    assert find_detours(compared(lab, (1, 3, 6), (1, 1, 6)), target) == {}
    assert find_detours(compared(lab, (1, 2, 6), (1, 2, 6)), target) == {}


@pytest.mark.parametrize("target", DEVKIT_TARGETS)
def test_an_input_of_fewer_axes_is_refused(lab, target):
    graph = compared(lab, (2, 6), (6,))
    assert find_detours(graph, target) == {}
    with pytest.raises(UnsupportedOpError, match="places the output"):
        check_graph(graph, target)
