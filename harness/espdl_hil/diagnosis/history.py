"""Does another history of the stream give what was observed? Looks at outputs only.

For faults that are gone when the stream is run again: what was sent, what was kept and what
came back is all that can be asked.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis.cause import KEEP_CACHE, Cause, Explanation, counted
from espdl_hil.diagnosis.replay import HostRun, agree, crop, same
from espdl_hil.diagnosis.state import damaged_output, is_damage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from espdl_hil.compare import Tensors
    from espdl_hil.diagnosis.mismatch import Mismatch

DELAY_CHUNKS = 2  # chunks after which a wrong input may first show
MAX_STEPS = 4000  # interpreter steps that one question may cost, seconds at most


class StreamHistory:
    """A stream's observed outputs against other histories of it; *expected* are the right ones."""

    def __init__(self, mismatch: Mismatch, expected: Sequence[Tensors]) -> None:
        self.mismatch = mismatch
        self.expected = expected
        self.host = HostRun(mismatch.graph, mismatch.target, mismatch.state)
        self.first = next(
            (i for i in range(len(expected)) if not self._same(i, expected[i])), len(expected)
        )

    def explain(self, *, by_elimination: bool) -> Explanation:
        """The first history that gives every observed output.

        Else one *by elimination*, if a second run was right: the fault is not there each time.
        """
        return (
            self._not_reset()
            or self._dropped()
            or self._order()
            or self._answer()
            or self._damaged_input()
            or (self._by_elimination() if by_elimination else Explanation(Cause.UNEXPLAINED, ()))
        )

    def _same(self, chunk: int, outputs: Tensors) -> bool:
        """Whether *outputs* are those observed at a chunk."""
        return agree(outputs, self.mismatch.observed[chunk])

    def _all_same(self, run: Sequence[Tensors], start: int = 0) -> bool:
        return all(self._same(start + i, outputs) for i, outputs in enumerate(run))

    def _span(self) -> str:
        count = len(self.expected)
        return "reproduces the chunk" if count == 1 else f"reproduces all {count} chunks"

    def _not_reset(self) -> Explanation | None:
        """State left over by a stream before this one, whole or in part."""
        if self.first:
            return None
        chunks = self.mismatch.chunks
        most = min(len(chunks), MAX_STEPS // (2 * len(chunks)))
        parts = (chunks[:count] for count in range(1, most))
        for before in (chunks, *parts):
            run = self.host.run_cold([*before, *chunks])[len(before) :]
            if self._all_same(run):
                earlier = counted(len(before), "earlier chunk")
                leave = "leaves" if len(before) == 1 else "leave"
                fact = f"the state that {earlier} {leave} behind {self._span()}"
                return Explanation(Cause.NOT_RESET, (fact,))
        return None

    def _dropped(self) -> Explanation | None:
        """State lost at every chunk, or at one."""
        chunks = self.mismatch.chunks
        step = "" if self.mismatch.state else KEEP_CACHE
        if self._all_same([self.host.run_cold([chunk])[0] for chunk in chunks]):
            fact = f"a reset before each chunk {self._span()}"
            return Explanation(Cause.DROPPED, (fact,), step)
        for lost in range(max(1, self.first - 2), min(self.first + 1, len(chunks))):
            if self._all_same(self.host.run_cold(chunks[lost:]), lost):
                fact = f"a reset before chunk {lost} {self._span()}"
                return Explanation(Cause.DROPPED, (fact,), step)
        return None

    def _order(self) -> Explanation | None:
        """Chunks swapped, repeated or lost: a search for an order that gives every output."""
        count, start = len(self.expected), max(0, self.first - DELAY_CHUNKS)
        asked = list(range(count))
        open_ways = [self._ways(asked[:start], start)]
        steps = 0
        while open_ways and steps < MAX_STEPS:
            way = next(open_ways[-1], None)
            chunk = start + len(open_ways) - 1
            if way is None:
                open_ways.pop()
                continue
            steps += len(way)
            if not self._ends([self.mismatch.chunks[number] for number in way], chunk):
                continue
            if chunk < count - 1:
                open_ways.append(self._ways(way, chunk + 1))
            elif way != asked:
                return self._ordered(way, asked)
        return None

    def _ordered(self, order: list[int], asked: list[int]) -> Explanation:
        pairs = enumerate(zip(order, asked, strict=False))
        at = next((i for i, (a, b) in pairs if a != b), len(asked))
        fact = f"chunks run in the order {_around(order, at)} instead of {_around(asked, at)}"
        twice = () if len(order) == len(asked) else ("a step ran more than once",)
        return Explanation(Cause.ORDER, (f"{fact}: {self._span()}", *twice))

    def _ways(self, order: list[int], chunk: int) -> Iterator[list[int]]:
        """Ways to go on, the likeliest first: in order, after the last one, a step twice, any."""
        count = len(self.expected)
        usual = [chunk, *(last + 1 for last in order[-1:] if last + 1 < count)]
        for number in dict.fromkeys(usual):
            yield [*order, number]
        for again in dict.fromkeys((chunk, max(chunk - 1, 0))):
            yield [*order, again, chunk]
        for number in sorted(range(count), key=lambda number: abs(number - chunk)):
            if number not in usual:
                yield [*order, number]

    def _ends(self, run: Sequence[Tensors], chunk: int) -> bool:
        """Whether this run ends in the output observed at a chunk."""
        return self._same(chunk, self.host.run_cold(run)[-1])

    def _damaged_input(self) -> Explanation | None:
        """One bit of one input, at the first wrong chunk or a little before."""
        for at in range(self.first, max(-1, self.first - DELAY_CHUNKS - 1), -1):
            for name, sent in self.mismatch.chunks[at].items():
                raw = np.ascontiguousarray(sent).view(np.uint8).reshape(-1)
                for bit in range(min(8 * raw.size, MAX_STEPS // (self.first + 1))):
                    damaged = raw.copy()
                    damaged[bit // 8] ^= 1 << (bit % 8)
                    run = list(self.mismatch.chunks)
                    run[at] = {**run[at], name: damaged.view(sent.dtype).reshape(sent.shape)}
                    ends = self._ends(run[: self.first + 1], self.first)
                    if ends and self._all_same(self.host.run_cold(run)):
                        place = f"bit {bit % 8} of byte {bit // 8} of input {name}"
                        fact = f"{place} flipped before chunk {at} {self._span()}"
                        return Explanation(Cause.BUFFER, (fact,))
        return None

    def _answer(self) -> Explanation | None:
        """A wrong answer among right ones, a few bits or displaced: it was damaged later."""
        wrong = self._wrong()
        chunk = wrong[0]
        if any(b - a == 1 for a, b in pairwise(wrong)) or len(wrong) * 2 > len(self.expected):
            return None
        observed = self.mismatch.observed[chunk]
        pairs = {n: (crop(self.expected[chunk][n], v), v) for n, v in observed.items()}
        name = next(n for n, pair in pairs.items() if not same(*pair))
        expected, answer = pairs[name]
        before = crop(self.mismatch.observed[chunk - 1][name], answer) if chunk else None
        found = damaged_output(expected, answer, before, name)
        if not chunk and not is_damage(expected, answer) and found.cause is Cause.BUFFER:
            return None  # rather a state left over, which one chunk was enough to forget
        after = f"the answers around chunk {chunk} are right"
        return replace(found, facts=(*found.facts, after))

    def _by_elimination(self) -> Explanation:
        """An unknown state at the start, or an unknown damage to an input."""
        wrong = self._wrong()
        last = f"to chunk {wrong[-1]}" if wrong[-1] < len(self.expected) - 1 else "to the end"
        if not wrong[0]:
            fact = f"wrong from the first chunk {last}: by elimination, the state before it"
            return Explanation(Cause.NOT_RESET, (fact,))
        fact = f"wrong from chunk {wrong[0]} {last}: by elimination, an input arrived damaged"
        return Explanation(Cause.BUFFER, (fact,))

    def _wrong(self) -> list[int]:
        return [i for i, outputs in enumerate(self.expected) if not self._same(i, outputs)]


def _around(order: Sequence[int], at: int) -> str:
    return " ".join(map(str, order[max(0, at - 1) : at + 4]))
