"""Does another course of the stream give what was observed? Looks at outputs only.

For faults that are gone when the stream is run again: what was sent, what was kept and what
came back is all that can be asked.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.diagnosis.cause import Cause, Explanation
from espdl_hil.diagnosis.replay import (
    OTHER_ROUNDING,
    Stream,
    agree,
    cold_outputs,
    crop,
    rounding_name,
    same,
)
from espdl_hil.diagnosis.state import received, shifted, wrong_bits
from espdl_hil.errors import HarnessError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from espdl_hil.diagnosis.mismatch import Case, Tensors

DELAY_CHUNKS = 2  # chunks after which a wrong input may first show
FEW_BITS = 16  # that many wrong bits are damage, not other numbers
MAX_STEPS = 4000  # interpreter steps that one question may cost, seconds at most


class Course:
    """A stream's observed outputs against other courses of it.

    Args:
        case: The stream that went wrong.
        expected: The outputs of the right course, on the host.
    """

    def __init__(self, case: Case, expected: Sequence[Tensors]) -> None:
        self.case = case
        self.expected = expected
        self.stream = Stream(case)
        self.first = next(
            (i for i in range(len(expected)) if not self._same(i, expected[i])), len(expected)
        )

    def explain(self) -> Explanation | None:
        """The first course that gives every observed output."""
        for question in (
            self._target,
            self._not_reset,
            self._dropped,
            self._order,
            self._answer,
            self._damaged_input,
            self._by_elimination,
        ):
            found = question()
            if found is not None:
                return found
        return None

    def _same(self, chunk: int, outputs: Tensors) -> bool:
        """Whether *outputs* are those observed at a chunk."""
        return agree(outputs, self.case.observed[chunk])

    def _all_same(self, course: Sequence[Tensors], start: int = 0) -> bool:
        return all(self._same(start + i, outputs) for i, outputs in enumerate(course))

    def _span(self) -> str:
        return f"reproduces all {len(self.expected)} chunks"

    def _target(self) -> Explanation | None:
        """The rounding of another chip in every node."""
        other = OTHER_ROUNDING.get(self.case.target)
        if other is None:
            return None
        try:
            stream = Stream(self.case, other)
        except HarnessError:
            return None  # exponents per channel: no other chip runs this file
        if not self._all_same(cold_outputs(stream, self.case.chunks)):
            return None
        names = rounding_name(other), rounding_name(self.case.target)
        fact = f"rounding {names[0]} instead of {names[1]} in every node {self._span()}"
        return Explanation(Cause.ROUNDING, (fact,))

    def _not_reset(self) -> Explanation | None:
        """State left over by a stream before this one, whole or in part."""
        if self.first:
            return None
        chunks = self.case.chunks
        most = min(len(chunks), MAX_STEPS // (2 * len(chunks)))
        parts = (chunks[:count] for count in range(1, most))
        for before in (*reversed(self.case.facts.previous), chunks, *parts):
            course = cold_outputs(self.stream, [*before, *chunks])[len(before) :]
            if self._all_same(course):
                fact = f"the state that {len(before)} earlier chunks leave behind {self._span()}"
                return Explanation(Cause.NOT_RESET, (fact,))
        return None

    def _dropped(self) -> Explanation | None:
        """State lost at every chunk, or at one."""
        chunks = self.case.chunks
        if self._all_same([cold_outputs(self.stream, [chunk])[0] for chunk in chunks]):
            return Explanation(Cause.DROPPED, (f"a reset before each chunk {self._span()}",))
        for lost in range(max(1, self.first - 2), min(self.first + 1, len(chunks))):
            if self._all_same(cold_outputs(self.stream, chunks[lost:]), lost):
                fact = f"a reset before chunk {lost} {self._span()}"
                return Explanation(Cause.DROPPED, (fact,))
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
            if not self._ends(way, chunk):
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

    def _ends(self, order: list[int], chunk: int) -> bool:
        """Whether chunks in this order end in the output observed at a chunk."""
        chunks = [self.case.chunks[number] for number in order]
        return self._same(chunk, cold_outputs(self.stream, chunks)[-1])

    def _damaged_input(self) -> Explanation | None:
        """One bit of one input, at the first wrong chunk or a little before."""
        for at in range(self.first, max(-1, self.first - DELAY_CHUNKS - 1), -1):
            for name, sent in self.case.chunks[at].items():
                raw = np.ascontiguousarray(sent).view(np.uint8).reshape(-1)
                for bit in range(min(8 * raw.size, MAX_STEPS // (self.first + 1))):
                    damaged = raw.copy()
                    damaged[bit // 8] ^= 1 << (bit % 8)
                    course = list(self.case.chunks)
                    course[at] = {**course[at], name: damaged.view(sent.dtype).reshape(sent.shape)}
                    if self._ends_with(course, self.first) and self._all_same(
                        cold_outputs(self.stream, course)
                    ):
                        place = f"bit {bit % 8} of byte {bit // 8} of input {name}"
                        fact = f"{place} flipped on its way at chunk {at} {self._span()}"
                        return Explanation(Cause.TRANSPORT, (fact,))
        return None

    def _ends_with(self, course: Sequence[Tensors], chunk: int) -> bool:
        return self._same(chunk, cold_outputs(self.stream, course[: chunk + 1])[-1])

    def _answer(self) -> Explanation | None:
        """A wrong answer among right ones, a few bits or displaced: it was damaged on its way."""
        wrong = self._wrong()
        chunk = wrong[0]
        if any(b - a == 1 for a, b in pairwise(wrong)) or len(wrong) * 2 > len(self.expected):
            return None
        observed = self.case.observed[chunk]
        pairs = {n: (crop(self.expected[chunk][n], v), v) for n, v in observed.items()}
        name = next(n for n, pair in pairs.items() if not same(*pair))
        expected, answer = pairs[name]
        before = crop(self.case.observed[chunk - 1][name], answer) if chunk else None
        found = received(expected, answer, before, name)
        plain = wrong_bits(expected, answer) <= FEW_BITS or shifted(expected, answer) is not None
        if not chunk and not plain and found.cause is Cause.TRANSPORT:
            return None  # rather a state left over, which one chunk was enough to forget
        after = f"the answers around chunk {chunk} are right"
        return replace(found, evidence=(*found.evidence, after))

    def _by_elimination(self) -> Explanation | None:
        """An unknown state at the start, or an unknown damage to an input."""
        if self.case.probe is None:
            return None  # it may be wrong each time
        wrong = self._wrong()
        last = f"to chunk {wrong[-1]}" if wrong[-1] < len(self.expected) - 1 else "to the end"
        if not wrong[0]:
            fact = f"wrong from the first chunk {last}: by elimination, the state before it"
            return Explanation(Cause.NOT_RESET, (fact,))
        fact = f"wrong from chunk {wrong[0]} {last}: by elimination, an input arrived damaged"
        return Explanation(Cause.TRANSPORT, (fact,))

    def _wrong(self) -> list[int]:
        return [i for i, outputs in enumerate(self.expected) if not self._same(i, outputs)]


def _around(order: Sequence[int], at: int) -> str:
    return " ".join(map(str, order[max(0, at - 1) : at + 4]))
