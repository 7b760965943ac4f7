"""Accumulators that saturate: which nodes can, what is counted, what it costs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from espdl_hil.errors import UnsupportedOpError
from espdl_hil.espdl import load_graph
from espdl_hil.interpreter import load
from espdl_hil.operators import check_graph
from espdl_hil.operators.saturation import LaneLog


def dense(lab, channels, outputs, weight, *, bias=0, chip="esp32s3", dtype=np.int8, exponent=-1):
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
        [(dtype, exponent)],
        activation="Linear",
    )


def saturations(graph, chip, *inputs):
    session = load(graph, chip)
    for x in inputs:
        session.step({"x0": x})
    return session.lane_saturations


def filled(channels, *values):
    x = np.zeros((1, channels), np.int8)
    x[0, : len(values)] = values
    return x


def test_small_weights_are_never_looked_at(lab):
    session = load(dense(lab, 32, 16, 127), "esp32s3")  # 32 * 127 * 128 < 2**19
    assert session._lanes == []
    assert session.lane_saturations == ()


def test_only_what_the_input_reaches_counts(lab):
    graph = dense(lab, 64, 19, 127)  # 16 channels in lanes, a tail of 3
    assert saturations(graph, "esp32s3", filled(64, *[60] * 64)) == ()
    (log,) = saturations(graph, "esp32s3", np.full((1, 64), 127, np.int8))
    assert (log.node, log.bits, log.elements, log.saturated) == ("node", 20, 19, 16)
    assert log.channels == set(range(16))


def test_a_sum_that_comes_back_has_saturated(lab):
    x = np.full((1, 128), 127, np.int8)
    x[0, 64:] = -127  # the total is zero, the way there is not
    session = load(dense(lab, 128, 16, 127, exponent=2), "esp32s3")
    found = session.step({"x0": x})["y0"]
    assert (found == (2**19 - 1 - 64 * 127 * 127 + 2**12) >> 13).all()
    (log,) = session.lane_saturations
    assert log.saturated == 16


def test_the_bias_counts(lab):
    x = filled(64, *[60] * 64)
    assert saturations(dense(lab, 64, 16, 127), "esp32s3", x) == ()
    assert saturations(dense(lab, 64, 16, 127, bias=2**18), "esp32s3", x) != ()


def test_a_bias_that_no_lane_holds_is_refused_and_wraps(lab):
    graph = dense(lab, 3, 16, 0, bias=2**19 + 1024, exponent=-1)
    with pytest.raises(UnsupportedOpError, match="exceeds the 20-bit lanes of the chip"):
        check_graph(graph, "esp32s3")
    found = load(graph, "esp32s3").step({"x0": filled(3)})["y0"]
    assert (found == -128).all()  # not 127


@pytest.mark.parametrize("chip", ["esp32p4", "c"])
def test_other_chips_have_wider_lanes(lab, chip):
    graph = dense(lab, 64, 16, 127, chip=chip)
    assert saturations(graph, chip, np.full((1, 64), 127, np.int8)) == ()


def test_channels_behind_the_last_block_have_40_bits(lab):
    assert saturations(dense(lab, 64, 15, 127), "esp32s3", np.full((1, 64), 127, np.int8)) == ()


@pytest.mark.parametrize(("terms", "saturated"), [(511, 0), (512, 8)])
def test_int16_has_40_bits(lab, terms, saturated):
    graph = dense(lab, terms, 8, -32768, dtype=np.int16, exponent=20)
    logs = saturations(graph, "esp32s3", np.full((1, terms), -32768, np.int16))
    # 512 products of 2**30 reach 2**39, one more than fits
    assert sum(log.saturated for log in logs) == saturated
    assert all(log.bits == 40 for log in logs)


def test_steps_add_up_and_reset_forgets(lab):
    session = load(dense(lab, 64, 16, 127), "esp32s3")
    for value in (127, 0, 127):
        session.step({"x0": np.full((1, 64), value, np.int8)})
    (log,) = session.lane_saturations
    assert (log.elements, log.saturated) == (48, 32)
    session.reset()
    assert session.lane_saturations == ()
    session.step({"x0": np.full((1, 64), 127, np.int8)})
    assert session.lane_saturations[0].elements == 16


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
    (log,) = saturations(graph, "esp32s3", x)
    assert log.channels == {channels - 1}
    assert log.saturated == 25  # of 5 x 5 windows, whose corners have 36 taps


def test_a_product_of_matrices_is_one_node(lab):
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
    assert saturations(graph, "esp32s3", loud) == ()
    (log,) = saturations(graph, "esp32s3", loud[::-1].copy())
    assert log.saturated == 16


def test_a_computed_product_of_matrices_saturates(lab):
    first = lab.q(np.full((1, 1, 64), 127), -4)
    second = np.full((1, 64, 16), 127, np.int8)  # all alike, so packing changes nothing
    graph = lab.graph("MatMul", [first, lab.q(second, -7)], [(np.int8, 2)], activation="Linear")
    session = load(graph, "esp32s3")
    found = session.step({"x0": first.array, "x1": second})["y0"]
    assert (found == 64).all()  # (2**19 - 1 + 2**12) >> 13
    assert session.lane_saturations[0].saturated == 16
    quiet = session.step({"x0": first.array, "x1": second // 8})["y0"]
    assert (quiet == (64 * 127 * 15 + 2**12) >> 13).all()


def test_what_is_lost_is_measured_against_the_exact_sum(lab):
    graph = dense(lab, 64, 16, 127, exponent=2)
    session = load(graph, "esp32s3")
    found = session.step({"x0": np.full((1, 64), 127, np.int8)})["y0"]
    (log,) = session.lane_saturations
    meant = min(127, (64 * 127 * 127 + 2**12) >> 13)
    assert log.error == 16 * (meant - int(found[0, 0])) ** 2
    assert log.sqnr_lost_db == pytest.approx(10 * math.log10(1 + 12 * log.error / 16))


def test_the_row_says_layer_elements_loss_and_what_helps():
    log = LaneLog("conv3", 20, 400, 0)
    log.note(np.array([1, 1, 5]), np.array([-3, 4, 0]))
    assert str(log) == (
        "conv3: 3 of 400 elements (2 channels) saturated in 20-bit lanes, 2.4 dB of SQNR lost; "
        "what helps: int16 for this layer (40-bit lanes), a coarser scale of its input or weights, "
        "or its input channels split over two layers that are added"
    )
    assert "int16" not in str(LaneLog("conv3", 40, 400, 1, {7}))


def test_golden_networks_of_the_c_kernels_never_saturate(golden, golden_names):
    names = [name for name in golden_names if "esp32s3.int8" in name and "conv" in name]
    assert names
    for name in names:
        model, index, arrays = golden(name)
        session = load(load_graph(model), "esp32s3")
        session.step({n: arrays[f"s0/t0/in/{n}".replace("//", "/")] for n in index["inputs"]})
        assert session.lane_saturations == ()


def test_behind_a_relu_no_input_is_negative(lab, build_graph):
    """Weights of both signs, each of which fits a lane alone."""
    from espdl_hil.espdl import Node

    w = np.full((16, 1, 1, 128), 60, np.int8)
    w[..., 64:] = -60  # 64 * 60 * 127 < 2**19 < 128 * 60 * 127

    def nodes(activation):
        attributes = {"quant_type": "S8", "activation": activation}
        square = lab.packed(np.zeros((128, 1, 1, 128), np.int8), -7, "esp32s3").array
        tensors = {
            "x": (np.int8, (1, 128), -4),
            "first": (square, -7),
            "h": (np.int8, (1, 128), -4),
            "second": (lab.packed(w, -7, "esp32s3").array, -7),
            "y": (np.int8, (1, 16), -1),
        }
        chain = [
            Node("one", "Gemm", ("x", "first"), ("h",), attributes),
            Node("two", "Gemm", ("h", "second"), ("y",), {**attributes, "activation": "Linear"}),
        ]
        return load(build_graph(chain, tensors), "esp32s3")

    assert nodes("Relu")._lanes == []
    assert [log.node for log in nodes("Linear")._lanes] == ["two"]
