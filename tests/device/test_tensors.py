"""Tensors between the wire and numpy."""

from __future__ import annotations

import numpy as np
import pytest

from espdl_hil.device.tensors import TensorSpec, pack, unpack
from espdl_hil.wire.messages import WireTensor

INT8 = TensorSpec("x", np.dtype("i1"), (1, 2, 3), -4)
INT16 = TensorSpec("y", np.dtype("<i2"), (2,), None)


def wire(**changes):
    fields = {"name": "y", "dtype": 5, "exponent": 0, "flags": 1, "bytes": 4, "dims": (2,)}
    return WireTensor(**{**fields, **changes})


def test_a_description_is_read():
    assert TensorSpec.from_wire(wire()) == INT16
    assert TensorSpec.from_wire(wire(name=""), "y") == INT16
    assert TensorSpec.from_wire(
        wire(dtype=3, dims=(), bytes=1, flags=0, exponent=-7)
    ) == TensorSpec("y", np.dtype("i1"), (), -7)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"dtype": 8}, "'y' has unknown element type 8"),
        ({"bytes": 5}, r"'y' of shape \(2,\) and type int16 cannot have 5 bytes"),
        ({"dims": (2**31, 2**31, 2**31)}, "cannot have 4 bytes"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(changes, why):
    with pytest.raises(ValueError, match=why):
        TensorSpec.from_wire(wire(**changes))


def test_tensors_travel_one_after_the_other():
    x = np.arange(6, dtype=np.int8).reshape(1, 2, 3)
    y = np.array([-2, 300], dtype=np.int16)
    data = pack([INT8, INT16], {"y": y, "x": x})
    assert data == bytes(range(6)) + b"\xfe\xff\x2c\x01"
    back = unpack([INT8, INT16], data)
    np.testing.assert_array_equal(back["x"], x)
    np.testing.assert_array_equal(back["y"], y)
    assert back["y"].flags.writeable


def test_big_endian_values_are_the_same_values():
    y = np.array([1, 2], dtype=">i2")
    assert pack([INT16], {"y": y}) == b"\x01\x00\x02\x00"


def test_missing_bytes_are_noticed():
    with pytest.raises(ValueError, match="9 bytes came for tensors of 10 bytes"):
        unpack([INT8, INT16], bytes(9))
