"""How far the offline run may be from the exporter's own execution."""

from types import SimpleNamespace

import numpy as np
import pytest

from espdl_hil.proof.hil import Hil


class Differing(Hil):
    """A case whose offline run differs from the reference in one element."""

    def __init__(self, bits, lsb, op_type="Conv"):
        self.graph = SimpleNamespace(nodes=[SimpleNamespace(op_type=op_type)])
        self.case = SimpleNamespace(bits=bits, id="case")
        reference = np.zeros((1, 6, 4), f"int{bits}")
        offline = reference.copy()
        offline[0, 3, 2] = lsb
        self.runs = {"output": reference}, {"output": offline}

    @property
    def expected(self):
        artifacts = SimpleNamespace(reference=self.runs[0])
        return SimpleNamespace(artifacts=artifacts, offline_graph=self.graph)

    def observe(self):
        return SimpleNamespace(offline=self.runs[1])

    def axes(self, names):
        return dict.fromkeys(names, 1)


@pytest.mark.parametrize(("bits", "lsb"), [(8, 0), (16, 1), (16, -8)])
def test_what_float32_sums_can_do_passes(bits, lsb):
    Differing(bits, lsb).verify_reference()


@pytest.mark.parametrize(("bits", "lsb"), [(8, 1), (8, -1), (16, 9), (16, 128)])
def test_more_fails_with_the_place(bits, lsb):
    with pytest.raises(pytest.fail.Exception, match=r"exporter's reference: 1 of 24 .* frame 3"):
        Differing(bits, lsb).verify_reference()


@pytest.mark.parametrize(("op_type", "hinted"), [("PRelu", True), ("Conv", False)])
def test_an_operator_that_is_known_to_differ_is_named(op_type, hinted):
    with pytest.raises(pytest.fail.Exception) as failure:
        Differing(8, 1, op_type).verify_reference()
    assert ("hint: ESP-DL floors the products of a PRelu" in str(failure.value)) == hinted


class OnDevice(Hil):
    """A case on a device of a kind, whose offline run is 1 LSB off the interpreter's."""

    def __init__(self, kind, bits, op_type):
        self.case = SimpleNamespace(bits=bits, id="case")
        self.info = SimpleNamespace(kind=kind)
        self.graph = SimpleNamespace(nodes=[SimpleNamespace(op_type=op_type)])
        self.wanted = {"output": np.zeros((1, 6, 4), f"int{bits}")}

    @property
    def dut(self):
        return SimpleNamespace(info=self.info)

    @property
    def expected(self):
        whole = {"input": np.zeros(1)}
        return SimpleNamespace(offline_graph=self.graph, whole=whole, offline=self.wanted)

    def observe(self):
        return SimpleNamespace(offline={"output": self.wanted["output"] + np.int8(1)})

    def axes(self, names):
        return dict.fromkeys(names, 1)


@pytest.mark.parametrize(
    ("kind", "bits", "op_type", "outcome"),
    [
        ("serial", 16, "GRU", "passed"),
        ("simulated", 16, "GRU", "failed"),
        ("serial", 8, "GRU", "failed"),
        ("serial", 16, "Conv", "failed"),
    ],
)
def test_only_a_boards_float_steps_may_round_otherwise(kind, bits, op_type, outcome):
    assert OnDevice(kind, bits, op_type)._offline_mismatch().verdict.outcome == outcome
