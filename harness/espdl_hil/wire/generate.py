"""Writes the firmware's ``codes.h`` and ``messages.h`` from ``messages.py``.

``python -m espdl_hil.wire.generate firmware/components/wire/include/wire``
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from espdl_hil.wire import messages, schema

if TYPE_CHECKING:
    from collections.abc import Iterator
    from enum import IntEnum, IntFlag

_GENERATED: Final = (
    "// Generated from harness/espdl_hil/wire/messages.py by generate.py beside it.\n"
)
_MESSAGES: Final = """\
// The messages of protocol.md section 3. Field order is the wire's; units and meanings are there.
//
// A list is `count` and the raw bytes of its items, always last: iterate with a
// PayloadReader over `items`, or append records to a PayloadWriter.
"""
_CPP_NAMES: Final = {"Memory": "MemoryInfo", "WireTensor": "TensorInfo"}  # where they differ
_CPP_FIELDS: Final = {
    schema.codec_of(annotation): text
    for annotation, text in (
        (schema.U8, "uint8_t {} = 0;"),
        (schema.U16, "uint16_t {} = 0;"),
        (schema.I16, "int16_t {} = 0;"),
        (schema.U32, "uint32_t {} = 0;"),
        (schema.U64, "uint64_t {} = 0;"),
        (schema.Text, "std::string_view {};"),
        (schema.Hash, "Sha256Digest {}{{}};"),
        (schema.Data, "Bytes {};"),
    )
}
_DIMS: Final = schema.codec_of(schema.Dims)


def codes_header() -> str:
    """Return ``codes.h``: the error codes."""
    codes = "".join(f"k{_pascal(code.name)} = {code.value},\n" for code in messages.ErrorCode)
    return _header(
        "WIRE_CODES_H_",
        "// The error codes of protocol.md section 4.\n",
        ["cstdint"],
        [],
        f"enum class Code : uint16_t {{\nkOk = 0,\n{codes}}};\n",
    )


def messages_header() -> str:
    """Return ``messages.h``: types, flags, and a struct for each message and record."""
    body = [
        _types(),
        f"inline constexpr uint8_t kReplyBit = 0x{messages.REPLY:02X};\n",
        f"inline constexpr size_t kMaxName = {messages.MAX_NAME};  // bytes of a name\n"
        f"inline constexpr size_t kMaxRank = {messages.MAX_RANK};\n",
        *map(_enum, (messages.TensorKind, messages.WatchMode, messages.RejectReason)),
        *map(
            _flags,
            (messages.DeviceFlag, messages.StartFlag, messages.ChunkFlag, messages.TensorFlag),
        ),
        *map(_struct, _records()),
        *(_struct(cls) for cls in messages.all_messages()),
    ]
    return _header(
        "WIRE_MESSAGES_H_",
        _MESSAGES,
        ["cstddef", "cstdint", "string_view"],
        ["wire/payload.h", "wire/span.h"],
        "\n".join(body),
    )


def main(folder: str) -> None:
    """Write both headers, formatted with clang-format as ``.clang-format`` there says."""
    for name, text in (("codes.h", codes_header()), ("messages.h", messages_header())):
        path = Path(folder) / name
        path.write_text(formatted(text, path), encoding="utf-8")


def formatted(text: str, path: Path) -> str:
    """Return C++ in the style that holds for a file at *path*."""
    command = ["clang-format", f"--assume-filename={path}"]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout


def _header(guard: str, what: str, system: list[str], own: list[str], body: str) -> str:
    includes = "".join(f"#include <{name}>\n" for name in system)
    includes += "\n" if own else ""
    includes += "".join(f'#include "{name}"\n' for name in own)
    return (
        f"{what}//\n{_GENERATED}#ifndef {guard}\n#define {guard}\n\n{includes}\n"
        f"namespace hil {{\n\n{body}\n}}  // namespace hil\n\n#endif  // {guard}\n"
    )


def _types() -> str:
    requests = "".join(
        f"k{cls.__name__.removesuffix('Reply')} = 0x{cls.TYPE:02X},\n"
        for cls in messages.all_messages()
        if not cls.TYPE & messages.REPLY or cls.TYPE >= messages.Booted.TYPE
    )
    return f"enum class Type : uint8_t {{\n{requests}}};\n"


def _enum(kind: type[IntEnum]) -> str:
    members = ", ".join(f"k{_pascal(member.name)} = {member.value}" for member in kind)
    return f"{_comment(kind)}enum class {kind.__name__} : uint8_t {{ {members} }};\n"


def _flags(kind: type[IntFlag]) -> str:
    prefix = kind.__name__.removesuffix("Flag")
    return _comment(kind) + "".join(
        f"inline constexpr uint16_t k{prefix}{_pascal(str(flag.name))} = {flag.value};\n"
        for flag in kind
    )


def _records() -> list[type[Any]]:
    """The dataclasses inside messages, in the order in which they are first used."""
    kinds: dict[type[Any], None] = {messages.LaterStep: None, messages.LaterUnwritten: None}
    for cls in messages.all_messages():
        for _, codec in schema.fields_of(cls):
            inner = codec.item if isinstance(codec, schema.Counted) else codec
            if isinstance(inner, schema.Record):
                kinds[inner.kind] = None
    return list(kinds)


def _struct(kind: type[Any]) -> str:
    fields = schema.fields_of(kind)
    declared = "\n".join(line for name, codec in fields for line in _declare(name, codec))
    scalars = [part for name, codec in fields for part in _archived(name, codec)]
    loop = (
        "for (size_t axis = 0; axis < rank && axis < kMaxRank; ++axis) { archive(dims[axis]); }\n"
        if any(codec is _DIMS for _, codec in fields)
        else ""
    )
    return (
        f"{_comment(kind)}struct {_name(kind)} {{\n{declared}\n"
        f"template <typename Archive>\nvoid Serialize(Archive& archive) {{\n"
        f"archive({', '.join(scalars)});\n{loop}}}\n}};\n"
    )


def _declare(name: str, codec: schema.Codec) -> Iterator[str]:
    if codec is _DIMS:
        yield "uint8_t rank = 0;  // above kMaxRank it does not parse: bytes are left over"
        yield f"uint32_t {name}[kMaxRank] = {{}};"
    elif isinstance(codec, schema.Counted) and isinstance(codec.item, schema.Record):
        yield "uint16_t count = 0;"
        yield f"Bytes items;  // {_name(codec.item.kind)}"
    elif isinstance(codec, schema.Record):
        yield f"{_name(codec.kind)} {name};"
    else:
        yield _CPP_FIELDS[codec].format(name)


def _archived(name: str, codec: schema.Codec) -> tuple[str, ...]:
    if codec is _DIMS:
        return ("rank",)
    return ("count", "items") if isinstance(codec, schema.Counted) else (name,)


def _name(kind: type[Any]) -> str:
    return _CPP_NAMES.get(kind.__name__, kind.__name__)


def _pascal(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def _comment(kind: type[Any]) -> str:
    words = (kind.__doc__ or "").splitlines()[0].replace("``", "`").replace("*", "`")
    return textwrap.indent(textwrap.fill(words, 96), "// ") + "\n"


if __name__ == "__main__":
    main(*sys.argv[1:])
