"""State belongs to one stream: reset clears it, and no other stream can touch it."""

from espdl_hil.plugin import Hil


def test_reset_replays(hil: Hil) -> None:
    """After a reset the same stimulus gives the same chunks, whatever ran before."""
    with hil.loaded() as model:
        first = hil.stream(model=model)
        hil.stream(hil.chunks[: len(hil.chunks) // 2], model=model)  # caches half full
        assert hil.judge(first, hil.stream(model=model)).outcome == "passed"


def test_interleaved_models_keep_apart(hil: Hil) -> None:
    """Two models stepped in turn give what each gives alone."""
    alone = hil.stream()
    with hil.neighbour() as neighbour:
        together = hil.stream_interleaved(neighbour)
    assert hil.judge(alone, together).outcome == "passed"
