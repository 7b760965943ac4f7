"""EDL and PDL containers: reading, selecting, decrypting, writing, and every kind of damage."""

import hashlib
import struct
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from espdl_hil.errors import ArtifactError, ConfigError
from espdl_hil.espdl import PackageEntry, load_graph, read_package, write_package
from espdl_hil.espdl.container import read_edl, select_model

KEY = bytes(range(100, 116))


def edl(payload=b"payload!", magic=b"EDL2", mode=0):
    pad = b"" if magic == b"EDL1" else bytes(4)
    return magic + struct.pack("<II", mode, len(payload)) + pad + payload


def encrypt(data, key=KEY):
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(range(16, 32)))).encryptor()
    return data[:4] + struct.pack("<I", 1) + data[8:16] + cipher.update(data[16:])


def package(magic, models, align=16):
    """PDL1 or PDL2 as ESP-DL's packer lays it out."""
    names = b"".join(name.encode() for name, _ in models)
    name_at = 8 + 12 * len(models)
    data_at = -(-(name_at + len(names)) // align) * align
    head, blobs = magic + struct.pack("<I", len(models)), b""
    for name, data in models:
        head += struct.pack("<III", data_at + len(blobs), name_at, len(name))
        name_at += len(name)
        blobs += data + bytes(-len(data) % align)
    return (head + names).ljust(data_at, b"\0") + blobs


@pytest.mark.parametrize(("magic", "offset"), [(b"EDL1", 12), (b"EDL2", 16)])
def test_edl_is_unwrapped(magic, offset):
    found = read_edl(edl(magic=magic), label="f")
    assert (found.payload, found.span.offset, found.span.size) == (b"payload!", offset, 8)
    assert (found.magic, found.encrypted, found.file_bytes) == (magic.decode(), False, offset + 8)


def test_zero_padding_after_the_data_is_accepted():
    assert read_edl(edl() + bytes(8), label="f").payload == b"payload!"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "f: expected magic EDL1 or EDL2, found b'' (at byte 0)"),
        (b"version https://git-lfs", "found b'vers' (at byte 0)"),
        (b"EDL2\0\0", "f: the header needs 16 bytes, the file has 6 (at byte 6)"),
        (edl(mode=2), "f: encryption mode 2, expected 0 (plain) or 1 (AES) (at byte 4)"),
        (edl()[:-1], "announces 8 bytes of data, the file ends after 7 (at byte 8)"),
        (
            edl() + bytes(16),
            "f: 16 bytes follow the data, expected zero padding to 16 (at byte 24)",
        ),
        (edl() + b"x", "f: 1 bytes follow the data, expected zero padding to 16 (at byte 24)"),
    ],
)
def test_damaged_edl_is_refused(data, message):
    with pytest.raises(ArtifactError) as caught:
        read_edl(data, label="f")
    assert message in str(caught.value)
    assert caught.value.path == "f"


def test_encrypted_file_needs_its_key(golden):
    plain = golden("tcn_res.esp32s3.int8")[0]
    secret = encrypt(plain)
    graph = load_graph(secret, key=KEY)
    assert graph.header.encrypted
    assert graph.nodes == load_graph(plain).nodes
    with pytest.raises(ArtifactError, match=r"is encrypted and no key was given \(at byte 4\)"):
        load_graph(secret)
    with pytest.raises(ConfigError, match="an AES-128 key has 16 bytes, this one has 3"):
        load_graph(secret, key=b"abc")
    with pytest.raises(ArtifactError, match="is this the right key"):
        load_graph(secret, key=bytes(16))


def test_an_encrypted_file_names_the_package_that_it_needs(monkeypatch):
    secret = encrypt(edl(b"payload"))
    assert read_edl(secret, label="f", key=KEY).payload == b"payload"
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(ConfigError) as caught:
        read_edl(secret, label="f", key=KEY)
    assert str(caught.value) == (
        "f: the model is encrypted, and the package that decrypts it is not installed\n"
        "  hint: pip install 'espdl-hil[encrypted]'"
    )


OTHERS = """
import sys
for name in {blocked}:
    sys.modules[name] = None
from espdl_hil.interpreter import load
load(sys.stdin.buffer.read(), "esp32s3")
"""


@pytest.mark.parametrize(
    ("blocked", "code"), [(("flatbuffers", "cryptography"), 0), (("numpy",), 1)]
)
def test_a_plain_file_needs_numpy_alone(golden, blocked, code):
    script = OTHERS.format(blocked=blocked)
    data = golden("tcn_res.esp32s3.int8")[0]
    done = subprocess.run([sys.executable, "-c", script], input=data, capture_output=True)
    assert done.returncode == code, done.stderr.decode()


def test_bare_edl_is_a_package_of_one():
    assert read_package(edl()) == (PackageEntry("", edl()),)


@pytest.mark.parametrize(("magic", "model"), [(b"PDL1", b"EDL1"), (b"PDL2", b"EDL2")])
def test_package_entries_keep_their_order(magic, model):
    models = [("first", edl(b"one", model)), ("second", edl(b"second model", model))]
    entries = read_package(package(magic, models, 1 if magic == b"PDL1" else 16))
    assert entries == tuple(PackageEntry(name, data) for name, data in models)


def test_pdl3_survives_a_round_trip_and_a_larger_partition():
    models = [("tcn", edl(b"12345")), ("été", edl(b"x" * 40))]
    data = write_package(models, version="v7")
    assert data[4:8] == b"v7\0\0"
    assert struct.unpack_from("<I", data, 20)[0] == len(data)
    zeroed = data[:24] + bytes(32) + data[56:]
    assert data[24:56] == hashlib.sha256(zeroed).digest()
    for flash in (data, data + b"\xff" * 4096):
        entries = read_package(flash)
        assert [(entry.name, entry.data) for entry in entries] == models
    offsets = [struct.unpack_from("<I", data, 60 + 12 * i)[0] for i in range(2)]
    assert all(offset % 16 == 0 for offset in offsets)


def test_an_empty_package_is_sound_but_holds_no_model():
    assert read_package(write_package([])) == ()
    with pytest.raises(ArtifactError, match="<bytes>: the package holds no model"):
        load_graph(write_package([]))


@pytest.mark.parametrize(
    ("entries", "version", "message"),
    [
        ([("a", edl()), ("a", edl())], "v1", "a package needs unique model names"),
        ([("a", edl())], "a version too long", "is not 15 ASCII characters or fewer"),
        ([("a", edl(magic=b"EDL1"))], "v1", "a: a PDL3 package holds whole EDL2 files"),
        ([("a", edl()[:-1])], "v1", "a: a PDL3 package holds whole EDL2 files"),
        ([("a", b"EDL2")], "v1", "a: a PDL3 package holds whole EDL2 files"),
    ],
)
def test_what_cannot_be_packed(entries, version, message):
    with pytest.raises((ConfigError, ArtifactError), match=message):
        write_package(entries, version=version)


def pdl2(**changes):
    """A package of one model, with one header word replaced."""
    data = bytearray(package(b"PDL2", [("m", edl())]))
    words = {"count": 4, "data": 8, "name": 12, "length": 16}
    for name, value in changes.items():
        struct.pack_into("<I", data, words[name], value)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PDL2", "the package header is cut short (at byte 4)"),
        (b"PDL3" + bytes(50), "the package header is cut short (at byte 54)"),
        (b"PDL9" + bytes(60), "expected magic EDL1, EDL2, PDL1, PDL2 or PDL3, found b'PDL9'"),
        (pdl2(count=2**31), "announces 2147483648 models"),
        (pdl2(name=2**31), "the name of a model lies outside the package (at byte 12)"),
        (pdl2(length=2**31), "the name of a model lies outside the package (at byte 12)"),
        (pdl2(data=8), "model 'm' should start at byte 8 with EDL2, found"),
        (pdl2(data=2**32 - 4), "should start at byte 4294967292 with EDL2, found b''"),
        (pdl2()[:-9], "model 'm' announces 8 bytes of data, the package ends before"),
        (package(b"PDL2", [("m", edl())], 4), "starts at byte 24, expected a multiple of 16"),
        (package(b"PDL2", [("m", edl()), ("m", edl())]), "two models of the package share a name"),
        (pdl2().replace(b"m", b"\xff"), "the name of a model is not UTF-8 text (at byte 20)"),
        (write_package([("m", edl())])[:-1], "announces 112 bytes, the file has 111 (at byte 20)"),
    ],
)
def test_damaged_package_is_refused(data, message):
    with pytest.raises(ArtifactError) as caught:
        read_package(data, label="p")
    assert str(caught.value).startswith("p: ")
    assert message in str(caught.value)


def test_every_byte_of_pdl3_is_covered_by_its_hash():
    data = write_package([("m", edl())])
    for position in range(24, len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(ArtifactError, match="SHA-256 of the package does not match"):
            read_package(bytes(damaged))


ENTRIES = (PackageEntry("a", b"1"), PackageEntry("b", b"2"))


@pytest.mark.parametrize(("model", "data"), [("a", b"1"), ("b", b"2"), (0, b"1"), (1, b"2")])
def test_models_are_selected_by_name_or_index(model, data):
    assert select_model(ENTRIES, model, label="p").data == data
    assert select_model(ENTRIES[:1], None, label="p") is ENTRIES[0]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            None,
            "p: the package holds 2 models (0: 'a', 1: 'b')\n  hint: select one by name or index",
        ),
        ("c", "p: no model 'c' in the package; it holds 0: 'a', 1: 'b'"),
        (2, "p: no model 2 in the package; it holds 0: 'a', 1: 'b'"),
        (-1, "p: no model -1 in the package; it holds 0: 'a', 1: 'b'"),
    ],
)
def test_a_model_that_is_not_there(model, message):
    with pytest.raises(ConfigError) as caught:
        select_model(ENTRIES, model, label="p")
    assert str(caught.value) == message


def test_models_of_a_package_that_share_their_bytes():
    sound = package(b"PDL2", [("a", edl()), ("b", edl())])
    assert len(read_package(sound)) == 2
    first = struct.unpack_from("<I", sound, 8)[0]
    shared = sound[:20] + struct.pack("<I", first) + sound[24:]
    assert [entry.data for entry in read_package(shared)] == [edl(), edl()]  # small enough
    many = [(f"{i:02}", edl(bytes(4000))) for i in range(9)]
    bomb = bytearray(package(b"PDL2", many))
    for i in range(9):
        bomb[8 + 12 * i : 12 + 12 * i] = struct.pack("<I", struct.unpack_from("<I", bomb, 8)[0])
    with pytest.raises(ArtifactError, match="model 2 of the package lies in others"):
        read_package(bytes(bomb[: struct.unpack_from("<I", bomb, 8)[0] + 8100]))
