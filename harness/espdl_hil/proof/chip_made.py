"""Where a chip itself makes a stream differ from the offline run: another kernel for another size.

ESP-DL takes some kernels by the size of a node, and two of them may round otherwise, so the chunk
of a stream and the whole sequence can differ on one chip though both files are right. What is
predicted is each element: those that differ when every node is computed as the chip does, provided
that none does when all sizes have the same code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.compare import compare
from espdl_hil.diagnosis.cause import counted
from espdl_hil.errors import HarnessError
from espdl_hil.operators import code_by_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from espdl_hil.compare import Array, Tensors
    from espdl_hil.espdl import Graph

    Runs = Callable[[frozenset[str]], tuple[Sequence[Tensors], Sequence[Tensors]]]

EDIT = {
    "Div": "a factor of 1 / divisor there, of 8 channels or more",
    "MatMul": "time as rows there, not as columns",
    "Mul": "8 channels or more there",
}


@dataclass(frozen=True)
class OtherCode:
    """A node that the chip computes otherwise in a chunk than in the whole sequence.

    Attributes:
        operator: ONNX spelling.
        node: Its name.
        whole: The code in the offline file.
        chunk: The code in the streaming file.
    """

    operator: str
    node: str
    whole: str
    chunk: str

    def __str__(self) -> str:
        if "SIMD" in (self.whole, self.chunk):
            how = f"SIMD only {'offline' if self.whole == 'SIMD' else 'in chunks'}"
        else:
            how = f"{self.whole} offline, {self.chunk} in a chunk"
        return f"{self.operator} {self.node!r}, {how}"


@dataclass(frozen=True, eq=False)
class ChipMade:
    """What the chip itself makes differ.

    Attributes:
        nodes: Where it comes from.
        whole: The interpreter's offline run, cut into chunks.
        chunks: Its stream.
        edit: What avoids it.
    """

    nodes: tuple[OtherCode, ...]
    whole: Sequence[Tensors]
    chunks: Sequence[Tensors]
    edit: str

    def __str__(self) -> str:
        pairs = [(a[name], b[name]) for a, b in self._steps for name in a]
        found = [compare(a, b) for a, b in pairs]
        count = sum(difference.differing for difference in found)
        most = max((d.max_lsb for d in found if d.max_lsb is not None), default=None)
        size = "" if most is None else f" {most} LSB,"
        return f"chip: {counted(count, 'element')},{size} {'; '.join(map(str, self.nodes))}"

    @property
    def _steps(self) -> list[tuple[Tensors, Tensors]]:
        return list(zip(self.whole, self.chunks, strict=True))

    def allow(self, cut: Sequence[Tensors]) -> list[dict[str, Array]]:
        """What the stream has to give, to the element, once the chip's own part is granted.

        That is an offline run, cut into chunks, but the predicted value where the chip is predicted
        to change this very one.
        """
        return [
            {
                name: np.where((a[name] != b[name]) & (value == a[name]), b[name], value)
                for name, value in step.items()
            }
            for step, (a, b) in zip(cut, self._steps, strict=True)
        ]


def other_code(offline: Graph, streaming: Graph, target: str) -> tuple[OtherCode, ...]:
    """Nodes of both files that the chip computes by other code, and with other results."""
    whole, chunk = code_by_size(offline, target), code_by_size(streaming, target)
    return tuple(
        OtherCode(node.op_type, node.name, whole[node.name], chunk[node.name])
        for node in streaming.nodes
        if node.name in whole and whole[node.name] != chunk.get(node.name, whole[node.name])
    )


def predict(nodes: Sequence[OtherCode], runs: Runs, edit: str) -> ChipMade | None:
    """Say which elements the chip itself makes differ.

    Args:
        nodes: What the chip computes by other code.
        runs: Gives the interpreter's offline run, cut into chunks, and its stream, with some nodes
            computed alike at all sizes.
        edit: What avoids it.

    Returns:
        None if nothing differs, or if something would without the chip's part: then the
        conversion is wrong, and nothing is excused.
    """
    whole, chunks = runs(frozenset())
    every = frozenset(node.node for node in nodes)
    if _alike(whole, chunks) or not _alike(*runs(every)):
        return None
    alone = [node for node in nodes if not _alike(*runs(every - {node.node}))]
    return ChipMade(tuple(alone or nodes), whole, chunks, edit)


def _alike(whole: Sequence[Tensors], chunks: Sequence[Tensors]) -> bool:
    return not any(
        compare(step[name], chunk[name]).beyond
        for step, chunk in zip(whole, chunks, strict=True)
        for name in step
    )


def edit_for(
    nodes: Sequence[OtherCode],
    streaming: Graph,
    target: str,
    sizes: Mapping[str, tuple[int, int]],
    frames: int,
) -> str:
    """Say what avoids other code in chunks of a whole sequence of *frames* of the first input.

    *sizes* are the time axis and the frames of a chunk, of each input that has time.
    """
    chunk = next(iter(sizes.values()))[1]
    wanted = {node.node: node.whole for node in nodes}
    others = ", ".join(EDIT[name] for name in sorted({node.operator for node in nodes}))
    for times in range(2, frames // chunk + 1):
        if frames % (times * chunk):
            continue
        shapes = {
            info.name: tuple(
                times * length if axis == sizes[info.name][0] else length
                for axis, length in enumerate(info.shape)
            )
            for info in streaming.inputs
            if info.name in sizes
        }
        try:
            found = code_by_size(streaming, target, shapes)
        except HarnessError:
            break  # the file holds lengths of its chunk
        if all(found.get(name) == code for name, code in wanted.items()):
            return f"chunks of {times * chunk} frames, which have the whole's kernel; or {others}"
    return f"a longer chunk; or {others}"
