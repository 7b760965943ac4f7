"""The check of the S3's 20-bit accumulators."""

from __future__ import annotations

import numpy as np
import pytest

from espdl_hil.interpreter import load
from espdl_hil.operators.s3_accumulator import LANE_LIMIT


def dense(lab, channels, outputs, weight, *, bias=0, chip="esp32s3", dtype=np.int8):
    """A Gemm with one weight everywhere."""
    w = np.full((outputs, 1, 1, channels), weight, dtype)
    wide = np.int32 if dtype == np.int8 else np.int64
    return lab.graph(
        "Gemm",
        [
            lab.q(np.zeros((1, channels)), -4, dtype),
            lab.packed(w, -7, chip),
            lab.const(np.full(outputs, bias), -11, wide),
        ],
        [(dtype, -1)],
        activation="Linear",
    )


def warnings(graph, chip, *inputs, **options):
    session = load(graph, chip, **options)
    for x in inputs:
        session.step({"x0": x})
    return session.lane_warnings


def filled(channels, *values):
    x = np.zeros((1, channels), np.int8)
    x[0, : len(values)] = values
    return x


def test_small_weights_are_never_watched(lab):
    session = load(dense(lab, 32, 16, 127), "esp32s3")  # 32 * 127 * 128 < 2**19
    assert session._lanes == []
    assert session.lane_warnings == ()


def test_only_what_the_input_can_reach_warns(lab):
    graph = dense(lab, 64, 16, 127)  # bound 64 * 127 * 128
    assert warnings(graph, "esp32s3", filled(64, *[60] * 64)) == ()
    (warning,) = warnings(graph, "esp32s3", np.full((1, 64), 127, np.int8))
    assert (warning.node, warning.bound) == ("node", 64 * 127 * 128)
    assert warning.observed == 64 * 127 * 127 > LANE_LIMIT == warning.limit
    assert str(warning) == (
        "node: a running sum could reach 1032256, a 20-bit lane of the ESP32-S3 saturates at "
        "524287 (any input: 1040384)"
    )


def test_a_sum_that_comes_back_still_warns(lab):
    x = np.full((1, 128), 127, np.int8)
    x[0, 64:] = -127  # the total is zero, the way there is not
    (warning,) = warnings(dense(lab, 128, 16, 127), "esp32s3", x)
    assert warning.observed == 64 * 127 * 127


def test_the_bias_counts(lab):
    x = filled(64, *[60] * 64)
    assert warnings(dense(lab, 64, 16, 127), "esp32s3", x) == ()
    assert warnings(dense(lab, 64, 16, 127, bias=2**18), "esp32s3", x) != ()


@pytest.mark.parametrize("chip", ["esp32p4", "c"])
def test_other_chips_have_wider_lanes(lab, chip):
    graph = dense(lab, 64, 16, 127, chip=chip)
    assert warnings(graph, chip, np.full((1, 64), 127, np.int8)) == ()


def test_channels_behind_the_last_block_have_40_bits(lab):
    assert warnings(dense(lab, 64, 15, 127), "esp32s3", np.full((1, 64), 127, np.int8)) == ()


def test_int16_has_40_bits(lab):
    graph = dense(lab, 64, 16, 127, dtype=np.int16)
    assert warnings(graph, "esp32s3", np.full((1, 64), 32767, np.int16)) == ()


def test_without_watching_only_the_last_step_counts(lab):
    graph = dense(lab, 64, 16, 127)
    loud, quiet = np.full((1, 64), 127, np.int8), np.zeros((1, 64), np.int8)
    assert warnings(graph, "esp32s3", loud, quiet) == ()
    assert warnings(graph, "esp32s3", loud, quiet, lane_check=True) != ()


def test_reset_forgets(lab):
    session = load(dense(lab, 64, 16, 127), "esp32s3", lane_check=True)
    session.step({"x0": np.full((1, 64), 127, np.int8)})
    assert session.lane_warnings
    session.reset()
    assert session.lane_warnings == ()


@pytest.mark.parametrize("channels", [17, 33])
def test_every_depthwise_channel_is_in_a_lane(lab, channels):
    w = np.full((channels, 7, 7, 1), 127, np.int8)
    graph = lab.graph(
        "Conv",
        [lab.q(np.zeros((1, 9, 9, channels)), -4), lab.packed(w, -7, "esp32s3", depthwise=True)],
        [(np.int8, -1)],
        group=channels,
        kernel_shape=(7, 7),
        strides=(1, 1),
        dilations=(1, 1),
        pads=(1, 1, 1, 1),
        activation="Linear",
    )
    x = np.zeros((1, 9, 9, channels), np.int8)
    x[..., -1] = 127  # the last channel, behind the last block of 16
    (warning,) = warnings(graph, "esp32s3", x)
    assert warning.observed == 49 * 127 * 127


def test_a_dense_convolution_pads_with_nothing(lab):
    w = np.full((16, 3, 3, 16), 127, np.int8)
    graph = lab.graph(
        "Conv",
        [lab.q(np.zeros((1, 3, 3, 16)), -4), lab.packed(w, -7, "esp32s3")],
        [(np.int8, -1)],
        group=1,
        kernel_shape=(3, 3),
        strides=(1, 1),
        dilations=(1, 1),
        pads=(1, 1, 1, 1),
        activation="Linear",
    )
    (warning,) = warnings(graph, "esp32s3", np.full((1, 3, 3, 16), 127, np.int8))
    assert warning.observed == 9 * 16 * 127 * 127  # the middle; the borders see fewer


def test_a_product_of_matrices_is_watched_one_by_one(lab):
    w = np.zeros((2, 64, 16), np.int8)
    w[1] = 127
    graph = lab.graph(
        "MatMul",
        [lab.q(np.zeros((2, 1, 64)), -4), lab.packed_matrices(w, -7, "esp32s3")],
        [(np.int8, -1)],
        activation="Linear",
    )
    loud = np.zeros((2, 1, 64), np.int8)
    loud[0] = 127
    assert warnings(graph, "esp32s3", loud) == ()
    assert len(warnings(graph, "esp32s3", loud[::-1].copy())) == 1
