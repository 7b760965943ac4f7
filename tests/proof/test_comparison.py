"""How far runs may be apart: the exporter's float sums, a chip's float steps."""

from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil.proof.comparison import compare_alike, compare_reference, interpreter_tolerance


def expected(bits, op_type="Conv", target="esp32s3", **attributes):
    attributes |= {"quant_type": f"S{bits}"}
    return SimpleNamespace(
        case=SimpleNamespace(bits=bits, target=target),
        artifacts=SimpleNamespace(reference={"output": np.zeros((1, 6, 4), f"int{bits}")}),
        offline_graph=SimpleNamespace(
            nodes=[SimpleNamespace(op_type=op_type, attributes=attributes)]
        ),
        axes=lambda names: dict.fromkeys(names, 1),
    )


def compare(bits, lsb, op_type="Conv"):
    offline = np.zeros((1, 6, 4), f"int{bits}")
    offline[0, 3, 2] = lsb
    return compare_reference(expected(bits, op_type), {"output": offline})


@pytest.mark.parametrize(("bits", "lsb"), [(8, 0), (16, 1), (16, -8)])
def test_what_float32_sums_can_do_passes(bits, lsb):
    assert compare(bits, lsb).passed


@pytest.mark.parametrize(("bits", "lsb"), [(8, 1), (8, -1), (16, 9), (16, 128)])
def test_more_fails_with_the_place(bits, lsb):
    found = compare(bits, lsb)
    assert not found.passed
    assert "exporter's reference: 1 of 24 differ" in str(found)
    assert "frame 3" in str(found)


@pytest.mark.parametrize(
    ("substrate", "bits", "op_type", "passed"),
    [
        ("silicon", 16, "GRU", True),
        ("emulated", 16, "LayerNormalization", True),
        ("simulated", 16, "GRU", False),
        ("silicon", 8, "GRU", False),
        ("silicon", 16, "Conv", False),
        ("silicon", 16, "Mul", False),
        ("silicon", 8, "PRelu", False),
    ],
)
def test_only_a_boards_float_steps_may_round_otherwise(substrate, bits, op_type, passed):
    of = expected(bits, op_type)
    wanted = {"output": np.zeros((1, 6, 4), f"int{bits}")}
    found = compare_alike(
        of,
        [wanted],
        [{"output": wanted["output"] + np.int8(1)}],
        what="",
        streaming=False,
        against="interpreter",
        tolerance=interpreter_tolerance(of, substrate),
    )
    assert found.passed == passed


@pytest.mark.parametrize(
    ("op_type", "max_lsb"), [("GRU", 1), ("LayerNormalization", 1), ("Conv", 0)]
)
@pytest.mark.parametrize("target", ["esp32s3", "esp32p4", "esp32", "esp32c3"])
def test_float_steps_are_the_same_without_a_vector_unit(target, op_type, max_lsb):
    assert interpreter_tolerance(expected(16, op_type, target), "emulated").max_lsb == max_lsb
