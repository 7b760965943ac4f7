"""StreamingCache: a concatenation that remembers."""

from __future__ import annotations

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError
from espdl_hil.interpreter import load


def cache(lab, shape, window, axis, dtype=np.int8):
    x = lab.q(np.zeros(shape), 0, dtype)
    return lab.graph("StreamingCache", [x], [(dtype, 0)], window_size=window, frame_axis=axis)


@pytest.mark.parametrize("axis", [1, -2])
@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize("window", [2, 4, 7])
def test_chunks_see_the_frames_before_them(lab, rng, dtype, chunk, window, axis):
    frames = rng.integers(-100, 100, (1, chunk * 6, 3)).astype(dtype)
    session = load(cache(lab, (1, chunk, 3), window, axis, dtype), "esp32s3")
    history = np.concatenate([np.zeros((1, window - 1, 3), dtype), frames], 1)
    for start in range(0, chunk * 6, chunk):
        found = session.step({"x0": frames[:, start : start + chunk]})["y0"]
        assert np.array_equal(found, history[:, start : start + chunk + window - 1])


def test_reset_forgets(lab):
    session = load(cache(lab, (1, 2, 1), 3, 1), "c")
    x = {"x0": np.array([[[1], [2]]], np.int8)}
    first = session.step(x)["y0"]
    assert session.step(x)["y0"].ravel().tolist() == [1, 2, 1, 2]
    session.reset()
    assert np.array_equal(session.step(x)["y0"], first)


def test_sessions_of_one_graph_do_not_share_state(lab):
    graph = cache(lab, (1, 1, 1), 2, 1)
    first, second = load(graph, "c"), load(graph, "c")
    first.step({"x0": np.array([[[5]]], np.int8)})
    assert second.step({"x0": np.array([[[6]]], np.int8)})["y0"].ravel().tolist() == [0, 6]


def test_an_inner_axis_is_refused(lab):
    with pytest.raises(UnsupportedOpError, match="interleaves other elements"):
        load(cache(lab, (1, 2, 3), 3, 2), "c")


def test_a_window_of_one_is_refused(lab):
    with pytest.raises(UnsupportedOpError, match="asserts on an empty cache"):
        load(cache(lab, (1, 2, 3), 1, 1), "c")
