"""How far runs may be apart: the exporter's float sums, a chip's float steps."""

from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil.compare import EXACT, Tolerance
from espdl_hil.proof.comparison import compare_alike, compare_reference, interpreter_tolerance
from espdl_hil.reference import Judged


def expected(bits, op_type="Conv", target="esp32s3", *, file=0, judged=(), **changes):
    """A case whose file gives *file* in one element where the reference gives 0."""
    attributes = {"quant_type": f"S{bits}"}
    return SimpleNamespace(
        case=SimpleNamespace(bits=bits, target=target, tolerance=EXACT, **changes),
        artifacts=SimpleNamespace(reference=output(bits, 0)),
        offline=output(bits, file),
        judged=judged,
        offline_graph=SimpleNamespace(
            nodes=[SimpleNamespace(op_type=op_type, attributes=attributes)]
        ),
        axes=lambda names: dict.fromkeys(names, 1),
    )


def output(bits, lsb):
    tensor = np.zeros((1, 6, 4), f"int{bits}")
    tensor[0, 3, 2] = lsb
    return {"output": tensor}


def a_node(given, low, high):
    """A node that gives *given* where the reference gives 0."""
    return Judged(
        node="/gru",
        operator="GRU",
        tensor="output",
        elements=24,
        differing=int(given != 0),
        beyond=int(not low <= given <= high),
        used=abs(given) if low <= given <= high else 0,
        bound=max(high, -low),
        mean_bound=high / 24,
        excused=0,
        why="float32 gates",
        first="" if low <= given <= high else f"element [0]: the file gives {given}",
    )


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("lsb", [1, -1, 15])
def test_a_device_that_differs_from_its_file_fails(bits, lsb):
    found = compare_reference(expected(bits), output(bits, lsb), "simulated")

    assert not found.passed
    assert "exporter's reference: 1 of 24 differ" in str(found)
    assert "frame 3" in str(found)


def test_what_nodes_within_their_bounds_make_of_it_passes_and_is_shown():
    """31 LSB at the output from 1 LSB in a gate, as the file's own run has it."""
    of = expected(16, file=31, judged=(a_node(1, 0, 1),))

    found = compare_reference(of, output(16, 31), "simulated")

    assert found.passed
    assert (found.check.differing, found.check.max_lsb) == (1, 31)
    used = ["exact", "1 of 1 LSB at GRU '/gru'", "31 of 31 LSB at outputs"]
    assert found.check.tolerance == "; ".join(used)


@pytest.mark.parametrize(("file", "device"), [(31, 32), (31, -32), (0, 31)])
def test_more_than_the_file_makes_of_it_fails(file, device):
    of = expected(16, file=file, judged=(a_node(1, 0, 1),))

    assert not compare_reference(of, output(16, device), "simulated").passed


def test_an_output_that_no_node_was_judged_for_is_exact():
    of = expected(16, file=31)

    assert not compare_reference(of, output(16, 31), "simulated").passed


@pytest.mark.parametrize("lsb", [0, 31])
def test_a_node_beyond_its_bound_fails_whatever_the_outputs_are(lsb):
    of = expected(16, file=lsb, judged=(a_node(0, 0, 0), a_node(2, 0, 1), a_node(3, 0, 1)))

    found = compare_reference(of, output(16, lsb), "simulated")

    assert not found.passed
    assert found.check.outcome == "failed"
    assert "GRU '/gru': 1 of 24 elements are not what" in found.check.error
    assert "1 more nodes" in found.check.error


@pytest.mark.parametrize(
    ("declared", "lsb", "passed"), [(0, 1, False), (1, 1, True), (1, 2, False)]
)
def test_a_declared_tolerance_is_honoured(declared, lsb, passed):
    of = expected(8)
    of.case.tolerance = Tolerance(max_lsb=declared)

    found = compare_reference(of, output(8, lsb), "simulated")

    assert found.passed is passed
    assert found.ledger[-1].kind == ("declared" if declared else "default")


@pytest.mark.parametrize(("substrate", "passed"), [("silicon", True), ("simulated", False)])
def test_a_boards_float_steps_come_on_top(substrate, passed):
    of = expected(16, "GRU", file=3, judged=(a_node(1, 0, 1),))

    assert compare_reference(of, output(16, 4), substrate).passed is passed
    assert not compare_reference(of, output(16, 5), substrate).passed


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
