"""Pages as a reader follows them: their commands, edits and printed output. Knows Markdown only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"`((?:pytest|espdl-hil|make|python3?|pip|docker|idf\.py|esptool) [^`]+)`")
NEEDS = re.compile(r"needs (?:a board|an emulator|ESP-IDF)")
SHELL = ("sh", "bash", "console")


class Command(NamedTuple):
    """One command of a page.

    Attributes:
        page: Its file's name.
        text: As a reader would type it, without the comment behind it.
        excused: Whether the words "needs a board" (an emulator, ESP-IDF) stand by it.
    """

    page: str
    text: str
    excused: bool


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, what it holds, and the paragraph that leads to it."""

    language: str
    text: str
    before: str


def blocks(page: str) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    for found in FENCE.finditer(page):
        before = page[: found.start()].rstrip().rpartition("\n\n")[2]
        yield Block(found[1], found[2], before)


def commands(page: Path, root: Path) -> list[Command]:
    """Every command of a page: of its shell blocks, behind a ``$``, and in running text."""
    text = page.read_text(encoding="utf-8")
    name = str(page.relative_to(root))
    found = []
    for block in blocks(text):
        for line in lines_of(block):
            excused = bool(NEEDS.search(line) or NEEDS.search(block.before))
            found.append(Command(name, _bare(line), excused))
    prose = FENCE.sub("", text)
    for paragraph in re.split(r"\n\n|\n(?=[-|*])", prose):
        excused = bool(NEEDS.search(paragraph))
        found += [Command(name, match[1], excused) for match in INLINE.finditer(_joined(paragraph))]
    return found


def lines_of(block: Block) -> list[str]:
    """The commands of a block, comments included; continued lines are joined."""
    text = block.text.replace("\\\n", " ")
    if block.language in SHELL:
        lines = text.splitlines()
    elif block.language == "":
        lines = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    else:
        lines = []
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _bare(line: str) -> str:
    return re.sub(r"\s+#.*", "", re.sub(r"\s+", " ", line.partition(" #")[0])).strip()


def _joined(paragraph: str) -> str:
    return re.sub(r"\s*\n\s*", " ", paragraph)
