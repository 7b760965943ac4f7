"""Turns ``harness/espdl_hil/wire/vectors.json`` into C++ that checks it. Used by the build.

Usage: vectors_to_cpp.py VECTORS.json OUTPUT.cpp
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ITEMS = {"models": "ModelInfo", "tensors": "TensorInfo", "pairs": "StatePair", "items": "WatchItem"}
FAULTS = {
    "cobs": "kCobs",
    "crc": "kCrc",
    "length": "kLength",
    "version": "kVersion",
    "truncated": "kTruncated",
}
HASH_FIELDS = {"sha256", "app_sha256", "model_sha256"}
TEXT_FIELDS = {
    "name",
    "output",
    "input",
    "text",
    "target",
    "idf_version",
    "espdl_version",
    "app_version",
}


def literal(data: bytes) -> str:
    """Return a C++ string literal of any bytes."""
    return '"' + "".join(f"\\{byte:03o}" for byte in data) + '"'


def assign(target: str, name: str, value: Any) -> list[str]:
    """Return statements that set one field of ``target``."""
    field = f"{target}.{name}"
    if name == "memory":
        return [line for key, item in value.items() for line in assign(field, key, item)]
    if name == "dims":
        lines = [f"{target}.rank = {len(value)};"]
        return lines + [f"{field}[{axis}] = {size}u;" for axis, size in enumerate(value)]
    if name in HASH_FIELDS:
        return [f"{field} = Digest({literal(bytes.fromhex(value))});"]
    if name == "data":
        data = bytes.fromhex(value)
        return [f"{field} = AsBytes({literal(data)}, {len(data)});"]
    if name in TEXT_FIELDS:
        data = value.encode()
        return [f"{field} = std::string_view({literal(data)}, {len(data)});"]
    return [f"{field} = {value}{'' if value < 0 else 'u'};"]


def build(vector: dict[str, Any]) -> list[str]:
    """Return statements that build the message of ``vector`` in ``want``."""
    lines = []
    for name, value in vector["fields"].items():
        if name not in ITEMS:
            lines += assign("want", name, value)
            continue
        for item in value:
            lines.append(f"{{ {ITEMS[name]} item;")
            lines += [line for key, part in item.items() for line in assign("item", key, part)]
            lines.append("CHECK(items.Append(item)); }")
        lines.append(f"want.count = {len(value)};")
        lines.append("want.items = Bytes(item_bytes, items.size());")
    return lines


def message_test(index: int, vector: dict[str, Any]) -> list[str]:
    """Return the test of one message vector."""
    frame = bytes.fromhex(vector["frame"])
    header = f"{vector['type']}, {vector['session']}u, {vector['seq']}u, {vector['credits']}"
    return [
        f"TEST(MessageVector{index}) {{  // {vector['name']}",
        "uint8_t item_bytes[2048]; PayloadWriter items(item_bytes); (void)items;",
        f"{vector['message']} want;",
        *build(vector),
        f"CheckMessage(want, {header}, AsBytes({literal(frame)}, {len(frame)}));",
        "}",
    ]


def stream_test(index: int, vector: dict[str, Any]) -> list[str]:
    """Return the test of one stream vector."""
    data = bytes.fromhex(vector["bytes"])
    lines = [f"TEST(StreamVector{index}) {{  // {vector['name']}", "ExpectedStream want;"]
    for packet in vector["packets"]:
        payload = bytes.fromhex(packet["payload"])
        lines.append(
            f"want.packets.push_back({{{packet['type']}, {packet['seq']}u, "
            f"std::string({literal(payload)}, {len(payload)})}});"
        )
    lines += [f"want.faults.push_back(Fault::{FAULTS[fault]});" for fault in vector["faults"]]
    lines.append(f"want.console_bytes = {len(vector['console']) // 2};")
    lines.append(
        f"CheckStream(want, {vector['max_length']}, AsBytes({literal(data)}, {len(data)}));"
    )
    return [*lines, "}"]


def main(source: str, output: str) -> None:
    """Write the C++ file."""
    vectors = json.loads(Path(source).read_text(encoding="utf-8"))
    lines = ['#include "vectors.h"', "namespace hil {", "namespace {"]
    for index, vector in enumerate(vectors["messages"]):
        lines += message_test(index, vector)
    for index, vector in enumerate(vectors["streams"]):
        lines += stream_test(index, vector)
    lines += ["}  // namespace", "}  // namespace hil", ""]
    Path(output).write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
