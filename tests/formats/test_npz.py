"""Arrays of an .npz: what NumPy writes is read, what lies about its size is refused."""

import io
import struct
import zipfile

import numpy as np
import pytest

from espdl_hil.formats.npz import ROOM_BYTES, UNREADABLE, read_members, read_npz


def npz(compression=zipfile.ZIP_DEFLATED, **members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    buffer.seek(0)
    return buffer


def array_file(description, shape, data, version=b"\1\0"):
    text = f"{{'descr': {description}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(save, rng):
    buffer = io.BytesIO()
    arrays = {
        "bytes": rng.integers(-128, 128, (2, 3), dtype=np.int8),
        "fortran": np.asfortranarray(rng.standard_normal((3, 4))),
        "big": np.arange(4, dtype=">i2"),
        "flag": np.array(True),
        "empty": np.zeros((0, 7), np.float32),
        "file": np.arange(3),
    }
    save(buffer, **{name: array for name, array in arrays.items() if name != "file"})
    found = read_npz(buffer)
    assert set(found) == arrays.keys() - {"file"}
    for name, array in found.items():
        assert array.dtype == arrays[name].dtype
        assert np.array_equal(array, arrays[name])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (array_file("'|O'", "(1,)", bytes(8)), "are no numbers"),
        (array_file("[('a', '<i4')]", "(2,)", bytes(8)), "are no numbers"),
        (array_file("'|i1'", "(-8,)", bytes(8)), "are no numbers"),
        (array_file("'|i1'", "(1073741824, 8)", bytes(8)), "has 8589934592 bytes, 8 are there"),
        (array_file("'<i8'", "(2,)", bytes(8)), "has 16 bytes, 8 are there"),
        (array_file("'|i1'", "(2,)", bytes(8)), "has 2 bytes, 8 are there"),
        (array_file("'<i4'", "(2147483648, 2147483648, 4)", b""), "bytes, 0 are there"),
        (array_file("'|i1'", "(4294967296, 4294967296, 0)", b""), "impossible shape"),
        (array_file("'|i1'", "(8,)", bytes(8), b"\3\0"), "version"),
        (b"no array", "magic string"),
    ],
)
def test_headers_that_lie(data, message):
    with pytest.raises(ValueError, match=message):
        read_npz(npz(a=data))


@pytest.mark.parametrize("text", ["(" * 300, "'bogus'", "1", "'<i4', 'descr': (", "\\d"])
def test_headers_that_do_not_parse(text):
    with pytest.raises(UNREADABLE):
        read_npz(npz(a=array_file(text, "(1,)", bytes(4))))


def test_more_than_its_size_allows():
    bomb = npz(a=array_file("'|i1'", f"({2 * ROOM_BYTES},)", bytes(2 * ROOM_BYTES)))
    assert len(bomb.getvalue()) < ROOM_BYTES // 500
    with pytest.raises(ValueError, match="are the most for its size"):
        read_npz(bomb)
    with pytest.raises(ValueError, match="are the most for its size"):
        read_npz(npz(a=array_file("'|i1'", "(999,)", bytes(999))), room=999)


def test_a_member_that_expands_beyond_what_it_says():
    data = npz(a=array_file("'|i1'", "(1048576,)", bytes(2**20))).getvalue()
    size = len(array_file("'|i1'", "(1048576,)", bytes(2**20)))
    with pytest.raises(UNREADABLE):
        read_npz(io.BytesIO(data.replace(struct.pack("<I", size), struct.pack("<I", 200))))


def test_members(tmp_path):
    path = tmp_path / "a.zip"
    path.write_bytes(npz(a=b"1", b=b"22").getvalue())
    assert read_members(path, most=2, limits={"b.npy": 2}) == {"a.npy": b"1", "b.npy": b"22"}
    with pytest.raises(ValueError, match="2 members, expected 1 or fewer"):
        read_members(path, most=1, limits={})
    with pytest.raises(ValueError, match=r"'b.npy' has 2 bytes"):
        read_members(path, most=2, limits={"b.npy": 1})
    path.write_bytes(npz(zipfile.ZIP_LZMA, a=b"1").getvalue())
    with pytest.raises(ValueError, match="neither stored nor deflated"):
        read_members(path, most=2, limits={})
