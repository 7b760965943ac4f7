"""Which elements a known deviation of an emulator covers."""

from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil.diagnosis.deviation import DEVIATIONS

BIAS, CLAMP = (deviation.covers for deviation in DEVIATIONS)
GRAPH = SimpleNamespace(
    initializers={"b": SimpleNamespace(array=np.array([-1] * 16 + [-1, 1], np.int32))}
)


def node(**attributes):
    return SimpleNamespace(inputs=["x", "w", "b"], attributes=attributes)


def outputs(channel, dtype=np.int8):
    expected = np.zeros((2, 1, 5, 18), dtype)
    observed = expected.copy()
    observed[1, 0, 3, channel] = 127
    return expected, observed


def test_a_tail_channel_with_a_negative_bias_is_covered():
    assert BIAS(GRAPH, node(), *outputs(16))


@pytest.mark.parametrize(
    ("made", "channel"),
    [(node(), 15), (node(), 17), (node(group=18), 16)],
    ids=["in a whole vector", "bias not negative", "depthwise"],
)
def test_others_are_not(made, channel):
    assert not BIAS(GRAPH, made, *outputs(channel))


def test_no_bias_is_not_negative():
    bare = SimpleNamespace(inputs=["x", "w"], attributes={})
    assert not BIAS(GRAPH, bare, *outputs(16))


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_the_least_integer_may_come_out_one_larger(dtype):
    least = np.iinfo(dtype).min
    expected = np.array([[least, 0, 5]], dtype)
    assert CLAMP(None, None, expected, np.array([[least + 1, 0, 5]], dtype))
    assert not CLAMP(None, None, expected, np.array([[least + 2, 0, 5]], dtype))
    assert not CLAMP(None, None, expected, np.array([[least + 1, 1, 5]], dtype))
