"""State belongs to one stream: reset clears it, and no other stream can touch it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espdl_hil import Hil


def test_reset_replays(hil: Hil) -> None:
    """After a reset the same stimulus gives the same chunks, though the caches were half full."""
    assert hil.stream(after=hil.case.chunk_count // 2) == hil.stream()


def test_interleaved_models_keep_apart(hil: Hil) -> None:
    """Two models stepped in turn: this one gives what it gives alone."""
    assert hil.stream(beside=hil.neighbour()) == hil.stream()
