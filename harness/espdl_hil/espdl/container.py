"""EDL and PDL containers. Knows magics, offsets and ciphers, not what a graph is.

The byte layouts are described in ``docs/espdl-format.md``.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espdl_hil.errors import ArtifactError, ConfigError
from espdl_hil.espdl.graph import Span

if TYPE_CHECKING:
    from collections.abc import Sequence

ALIGNMENT = 16  # of every EDL2 blob in a package; the SIMD kernels read weights in place
EDL_HEADER_BYTES = {b"EDL1": 12, b"EDL2": 16}
PDL_MAGICS = (b"PDL1", b"PDL2", b"PDL3")
PDL3_HASH = slice(24, 56)  # sha256 over the package in which these bytes are zero
PDL3_VERSION_BYTES = 16
PDL_ENTRY_BYTES = 12
AES_KEY_BYTES = 16
AES_COUNTER_BLOCK = bytes(range(0x10, 0x20))  # the loader uses this one for every file


@dataclass(frozen=True)
class PackageEntry:
    """One model of a package.

    Attributes:
        name: As stored, usually the file's name; empty for a bare EDL file.
        data: The EDL bytes, header included.
    """

    name: str
    data: bytes


@dataclass(frozen=True)
class Edl:
    """One unwrapped EDL file.

    Attributes:
        magic: ``EDL1`` or ``EDL2``.
        encrypted: The payload was encrypted.
        payload: The FlatBuffer, decrypted.
        span: Where the payload stands in the file.
        file_bytes: Size of the file.
    """

    magic: str
    encrypted: bool
    payload: bytes
    span: Span
    file_bytes: int


def read_edl(data: bytes, *, label: str, key: bytes | None = None) -> Edl:
    """Unwrap an EDL1 or EDL2 file.

    Args:
        data: The whole file.
        label: Its name, for messages.
        key: AES-128 key of an encrypted file, 16 bytes; ignored for a plain one.

    Raises:
        ArtifactError: Not an EDL file, cut short, followed by something else, or encrypted and
            there is no key.
        ConfigError: The key has the wrong length, or ``cryptography`` is not installed.
    """
    header_bytes = EDL_HEADER_BYTES.get(data[:4])
    if header_bytes is None:
        hint = "Git LFS pointers and .onnx files are not models; export one with esp-ppq"
        raise _damage(label, 0, f"expected magic EDL1 or EDL2, found {data[:4]!r}", hint)
    if len(data) < header_bytes:
        message = f"the header needs {header_bytes} bytes, the file has {len(data)}"
        raise _damage(label, len(data), message)
    mode, size = struct.unpack_from("<II", data, 4)
    if mode not in (0, 1):
        raise _damage(label, 4, f"encryption mode {mode}, expected 0 (plain) or 1 (AES)")
    end, held = header_bytes + size, len(data) - header_bytes
    if size > held:
        message = f"the header announces {size} bytes of data, the file ends after {held}"
        raise _damage(label, 8, message, "the file is cut short: export or copy it again")
    if len(data) - end >= ALIGNMENT or any(data[end:]):
        message = f"{len(data) - end} bytes follow the data, expected zero padding to {ALIGNMENT}"
        raise _damage(label, end, message)
    payload = data[header_bytes:end]
    if mode == 1:
        payload = _decrypt(payload, key, label)
    return Edl(data[:4].decode(), mode == 1, payload, Span(header_bytes, size), len(data))


def _damage(label: str, offset: int, message: str, hint: str | None = None) -> ArtifactError:
    return ArtifactError(message, path=label, offset=offset, hint=hint)


def _decrypt(payload: bytes, key: bytes | None, label: str) -> bytes:
    if key is None:
        hint = "pass the 128-bit key that the exporter printed, as 32 hex digits"
        raise _damage(label, 4, "the model is encrypted and no key was given", hint)
    if len(key) != AES_KEY_BYTES:
        raise ConfigError(f"an AES-128 key has {AES_KEY_BYTES} bytes, this one has {len(key)}")
    try:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
    except ImportError:
        raise ConfigError(
            f"{label}: the model is encrypted, and the package that decrypts it is not installed",
            hint="pip install 'espdl-hil[encrypted]'",
        ) from None
    decryptor = Cipher(algorithms.AES(key), modes.CTR(AES_COUNTER_BLOCK)).decryptor()
    return decryptor.update(payload) + decryptor.finalize()


def read_package(data: bytes, *, label: str = "<bytes>") -> tuple[PackageEntry, ...]:
    """List the models of a PDL1, PDL2 or PDL3 package, or of a bare EDL file.

    Args:
        data: The file; a PDL3 package may be followed by anything (it knows its own size, and
            a flash partition is larger).
        label: Its name, for messages.

    Returns:
        The models in stored order; a bare EDL file gives one entry without a name.

    Raises:
        ArtifactError: Not a package, damaged, or its SHA-256 does not match.
    """
    magic = data[:4]
    if magic in EDL_HEADER_BYTES:
        return (PackageEntry("", data),)
    if magic not in PDL_MAGICS:
        message = f"expected magic EDL1, EDL2, PDL1, PDL2 or PDL3, found {magic!r}"
        raise _damage(label, 0, message)
    if magic == b"PDL3":
        data = _verify_pdl3(data, label)
    count_at = 56 if magic == b"PDL3" else 4
    first = count_at + 4
    if len(data) < first:
        raise _damage(label, len(data), "the package header is cut short")
    count = struct.unpack_from("<I", data, count_at)[0]
    if count * PDL_ENTRY_BYTES > len(data) - first:
        message = f"announces {count} models, its {len(data)} bytes have no room for them"
        raise _damage(label, count_at, f"the package {message}")
    entries: list[PackageEntry] = []
    room = len(data)
    for i in range(count):
        position = first + i * PDL_ENTRY_BYTES
        entry = _read_entry(data, magic, position, label)
        room -= len(entry.name.encode()) + len(entry.data)
        if room < 0:  # each entry is a copy of its bytes
            raise _damage(label, position, f"model {i} of the package lies in others")
        entries.append(entry)
    if len({entry.name for entry in entries}) != len(entries):
        raise _damage(label, first, "two models of the package share a name")
    return tuple(entries)


def _verify_pdl3(data: bytes, label: str) -> bytes:
    if len(data) < 60:
        raise _damage(label, len(data), "the package header is cut short")
    size = struct.unpack_from("<I", data, 20)[0]
    if size < 60 or size > len(data):
        message = f"the package announces {size} bytes, the file has {len(data)}"
        raise _damage(label, 20, message)
    data = data[:size]
    if _pdl3_hash(data) != data[PDL3_HASH]:
        message = "the SHA-256 of the package does not match its bytes"
        hint = "the package was damaged after it was written: pack or flash it again"
        raise _damage(label, PDL3_HASH.start, message, hint)
    return data


def _pdl3_hash(data: bytes) -> bytes:
    return hashlib.sha256(data[: PDL3_HASH.start] + bytes(32) + data[PDL3_HASH.stop :]).digest()


def _read_entry(data: bytes, magic: bytes, position: int, label: str) -> PackageEntry:
    data_at, name_at, name_bytes = struct.unpack_from("<III", data, position)
    if name_at + name_bytes > len(data):
        raise _damage(label, position + 4, "the name of a model lies outside the package")
    try:
        name = data[name_at : name_at + name_bytes].decode()
    except UnicodeDecodeError:
        raise _damage(label, name_at, "the name of a model is not UTF-8 text") from None
    expected, found = b"EDL1" if magic == b"PDL1" else b"EDL2", data[data_at : data_at + 4]
    if found != expected or data_at + 16 > len(data):
        message = f"should start at byte {data_at} with {expected.decode()}, found {found!r}"
        raise _damage(label, position, f"model {name!r} {message}")
    if magic != b"PDL1" and data_at % ALIGNMENT:
        message = f"starts at byte {data_at}, expected a multiple of {ALIGNMENT}"
        raise _damage(label, position, f"model {name!r} {message}")
    size = struct.unpack_from("<I", data, data_at + 8)[0]
    end = data_at + EDL_HEADER_BYTES[expected] + size
    if end > len(data):
        message = f"model {name!r} announces {size} bytes of data, the package ends before"
        raise _damage(label, data_at + 8, message)
    return PackageEntry(name, data[data_at:end])


def write_package(entries: Sequence[tuple[str, bytes]], *, version: str = "v1.0") -> bytes:
    """Pack EDL2 files into a PDL3 package.

    Args:
        entries: Name and whole file of each model.
        version: The package's own version, at most 15 ASCII characters.

    Returns:
        The package; its models start on multiples of 16 bytes.

    Raises:
        ConfigError: A name is repeated, or *version* does not fit.
        ArtifactError: A model is not an EDL2 file, or is cut short.
    """
    names = [name.encode() for name, _ in entries]
    if len(set(names)) != len(names):
        raise ConfigError(f"a package needs unique model names, got {[n for n, _ in entries]}")
    if not version.isascii() or len(version) >= PDL3_VERSION_BYTES:
        raise ConfigError(f"package version {version!r} is not 15 ASCII characters or fewer")
    for name, data in entries:
        edl_bytes = struct.unpack_from("<I", data, 8)[0] + 16 if len(data) >= 16 else 16
        if data[:4] != b"EDL2" or edl_bytes > len(data):
            raise ArtifactError("a PDL3 package holds whole EDL2 files", path=name, offset=0)
    name_at = 60 + PDL_ENTRY_BYTES * len(entries)
    blob_at = _align(name_at + sum(map(len, names)))
    table, blobs = bytearray(), bytearray()
    for stored, (_, data) in zip(names, entries, strict=True):
        table += struct.pack("<III", blob_at + len(blobs), name_at, len(stored))
        name_at += len(stored)
        blobs += data.ljust(_align(len(data)), b"\0")
    head = b"PDL3" + version.encode().ljust(PDL3_VERSION_BYTES, b"\0")
    head += struct.pack("<I", blob_at + len(blobs)) + bytes(32) + struct.pack("<I", len(entries))
    package = bytearray((head + table + b"".join(names)).ljust(blob_at, b"\0") + blobs)
    package[PDL3_HASH] = _pdl3_hash(bytes(package))
    return bytes(package)


def _align(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def select_model(
    entries: Sequence[PackageEntry], model: str | int | None, *, label: str
) -> PackageEntry:
    """Pick one model of a package.

    Args:
        entries: What `read_package` returned.
        model: Name, index, or None for the only one.
        label: The file's name, for messages.

    Raises:
        ArtifactError: The package is empty.
        ConfigError: There is no such model, or None was given and there are several.
    """
    if not entries:
        raise ArtifactError("the package holds no model", path=label)
    if model is None and len(entries) == 1:
        return entries[0]
    names = ", ".join(f"{i}: {entry.name!r}" for i, entry in enumerate(entries))
    if model is None:
        raise ConfigError(
            f"{label}: the package holds {len(entries)} models ({names})",
            hint="select one by name or index",
        )
    if isinstance(model, int) and 0 <= model < len(entries):
        return entries[model]
    for entry in entries:
        if entry.name == model:
            return entry
    raise ConfigError(f"{label}: no model {model!r} in the package; it holds {names}")
