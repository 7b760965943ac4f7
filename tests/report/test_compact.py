import base64
import zlib

import numpy as np
import pytest

from espdl_hil.report.compact import MAX_BYTES, is_packed, pack, unpack


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint16", "float32", ">i2"])
@pytest.mark.parametrize("shape", [(0,), (5,), (2, 3)])
def test_what_is_unpacked_is_what_was_packed(dtype, shape):
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    packed = pack(array)
    assert is_packed(packed)
    assert np.array_equal(unpack(packed), array)


def test_equal_values_take_no_room():
    assert len(pack(np.zeros((512, 64), np.uint16))["zlib"]) < 120


def packed(data, shape=(4,), dtype="|i1"):
    text = base64.b64encode(zlib.compress(data)).decode()
    return {"dtype": dtype, "shape": list(shape), "zlib": text}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (packed(b"abc"), "not the 4 bytes of shape"),
        (packed(b"abcde"), "not the 4 bytes of shape"),
        (packed(b"abcd", dtype="<f8"), "dtype '<f8' is none of"),
        (packed(b"", (MAX_BYTES + 1,)), "at most"),
        (packed(b"abcd") | {"zlib": "AAAA"}, "not compressed by zlib"),
        (packed(b"abcd") | {"zlib": "?"}, "base64"),
    ],
)
def test_what_is_no_array_is_refused(value, text):
    assert not is_packed(value)
    with pytest.raises(ValueError, match=text):
        unpack(value)


@pytest.mark.parametrize("value", [None, [], {}, packed(b"abcd") | {"shape": [-1]}, {"dtype": 3}])
def test_what_has_another_form_is_no_array(value):
    assert not is_packed(value)
