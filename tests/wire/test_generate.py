"""The firmware's headers are what the Python messages make of them."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from espdl_hil.wire import generate, messages
from espdl_hil.wire.schema import U8, U32, Text

INCLUDE = Path(__file__).parents[2] / "firmware/components/wire/include/wire"
ADVICE = f"stale: run python -m espdl_hil.wire.generate {INCLUDE.relative_to(Path.cwd())}"


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")


def is_current(name, text):
    path = INCLUDE / name
    return path.read_text() == generate.formatted(text, path)


def test_the_headers_are_current():
    assert is_current("codes.h", generate.codes_header()), ADVICE
    assert is_current("messages.h", generate.messages_header()), ADVICE


def test_a_new_field_makes_the_header_stale(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Reset(messages.Message):
        """Zero caches and bound state."""

        handle: U32
        soft: U8

    changed = [Reset if cls is messages.Reset else cls for cls in messages.all_messages()]
    Reset.TYPE = messages.Reset.TYPE
    monkeypatch.setattr(messages, "all_messages", lambda: changed)
    assert not is_current("messages.h", generate.messages_header())


def test_the_command_writes_what_is_checked_in(tmp_path):
    folder = tmp_path / "wire"
    folder.mkdir()
    (tmp_path / ".clang-format").write_text((INCLUDE.parents[3] / ".clang-format").read_text())
    subprocess.run([sys.executable, "-m", "espdl_hil.wire.generate", folder], check=True)
    for name in ("codes.h", "messages.h"):
        assert (folder / name).read_text() == (INCLUDE / name).read_text()


def test_a_struct_has_every_field_in_order():
    @dataclasses.dataclass(frozen=True)
    class Note:
        """What a *line* says, see ``Note``."""

        line: U8
        text: Text

    path = INCLUDE / "note.h"
    assert generate.formatted(generate._struct(Note), path) == (
        "// What a `line` says, see `Note`.\n"
        "struct Note {\n"
        "  uint8_t line = 0;\n"
        "  std::string_view text;\n"
        "  template <typename Archive>\n"
        "  void Serialize(Archive& archive) {\n"
        "    archive(line, text);\n"
        "  }\n"
        "};\n"
    )
