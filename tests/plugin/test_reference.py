"""How far the offline run may be from the exporter's own execution."""

from types import SimpleNamespace

import numpy as np
import pytest

from harness.plugin.hil import Hil


class Differing(Hil):
    """A case whose offline run differs from the reference in one element."""

    def __init__(self, bits, lsb):
        self.case = SimpleNamespace(bits=bits, id="case")
        reference = np.zeros((1, 6, 4), f"int{bits}")
        offline = reference.copy()
        offline[0, 3, 2] = lsb
        self.runs = {"output": reference}, {"output": offline}

    @property
    def expected(self):
        return SimpleNamespace(artifacts=SimpleNamespace(reference=self.runs[0]))

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
