"""What a diagnosis says. Knows words, not how causes are found."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from espdl_hil.streaming.names import is_made_up, module_of

if TYPE_CHECKING:
    from espdl_hil.espdl import Graph, Node

FACT_LINES = 5  # with the five other lines, a dozen at most


class Cause(StrEnum):
    """Why a device, or an export, gives other numbers than it should."""

    EXPORT = "export or plan"
    EXPONENT = "exponent or requantization"
    ROUNDING = "rounding mode"
    SATURATION = "saturation"
    LUT = "look-up table"
    WEIGHTS = "weight or packing corruption"
    NOT_RESET = "state not reset"
    DROPPED = "state dropped"
    ORDER = "chunk order"
    ROUNDING_LOST = "rounding mode lost"
    MISALIGNED = "misaligned-load mode"
    UNWRITTEN = "unwritten output"
    BUFFER = "damaged buffer"
    EMULATOR = "deviates as known"
    CHIP = "known chip behaviour"
    UNEXPLAINED = "unexplained"


_OTHER_TASK = (
    "keep code that uses the vector unit (esp-nn, esp-dsp) off this core while the model runs, or "
    "let it put CFG back"
)
NEXT_STEP = {
    Cause.EXPORT: "lint passed this export, so report it, with what `inspect` says of the node in "
    "both files",
    Cause.EXPONENT: "compare the exponents of this node in the flashed file (`inspect`) with those "
    "that the kernel uses",
    Cause.ROUNDING: "check that firmware and artifact are built for this chip, and how the kernel "
    "of this node rounds",
    Cause.SATURATION: "check how the kernel narrows its accumulator; a wider range at calibration "
    "stays clear of the limit",
    Cause.LUT: "read the table back from flash and compare; then the kernel's index arithmetic",
    Cause.WEIGHTS: "flash the models partition again; if it returns, test flash and PSRAM; check "
    "which target the file was exported for",
    Cause.NOT_RESET: "reset the model before the stream; if it was, check that the reset of the "
    "firmware reaches every cache",
    Cause.DROPPED: "keep one model instance for the whole stream and bind every state output to "
    "its input",
    Cause.ORDER: "send every chunk once, in order; check what repeats a request",
    Cause.ROUNDING_LOST: _OTHER_TASK,
    Cause.MISALIGNED: _OTHER_TASK,
    Cause.UNWRITTEN: "check that the runner copies this output after every step",
    Cause.BUFFER: "the wire has a CRC, so check the copies between packet and tensor, then PSRAM",
    Cause.EMULATOR: "nothing is wrong with the model: run it on a board, or where the emulator's "
    "instruction is mended",
    Cause.CHIP: "both files are right: avoid the other kernel, or declare chip_rounding='accept'; "
    "docs/operators.md, Code by size",
    Cause.UNEXPLAINED: "replay the repro bundle on the simulator; if it passes there, compare the "
    "kernel of this node on the chip",
}

KEEP_CACHE = (  # for a state that the model keeps itself
    "keep one model instance for the whole stream, and reset it before the stream only: nothing "
    "outside the model holds this cache"
)


def counted(count: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "wrong bit"), counted(2, "wrong bit")
    ('1 wrong bit', '2 wrong bits')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


@dataclass(frozen=True)
class Explanation:
    """A cause that reproduces what was observed.

    Attributes:
        cause: See ``Cause``.
        facts: What speaks for it, one a line, the strongest first.
        next_step: Overrides ``NEXT_STEP``.
    """

    cause: Cause
    facts: tuple[str, ...]
    next_step: str = ""


@dataclass(frozen=True)
class Place:
    """Where a difference is first seen.

    Attributes:
        chunk: Number of the chunk, from 0; None if it does not matter.
        frame: Frame of the tensor's stream; of the graph output's where no tensor is named.
        channel: Index on its last axis.
        operator: Operator that computed the tensor; empty if no operator is at fault.
        node: The operator's name.
        tensor: The tensor's name.
        module: Path of the author's module that the node is of; empty where it is of none.
    """

    chunk: int | None = None
    frame: int | None = None
    channel: int | None = None
    operator: str = ""
    node: str = ""
    tensor: str = ""
    module: str = ""

    @classmethod
    def at(cls, graph: Graph, node: Node, tensor: str, chunk: int) -> Place:
        """A place at a node of a file."""
        weights = [name for name in node.inputs if name in graph.initializers]
        module = module_of(node.name, node.op_type, weights)
        return cls(chunk, None, None, node.op_type, node.name, tensor, module)

    def __str__(self) -> str:
        of = {"frame": " of the tensor" if self.tensor else " of the output"}
        parts = [
            f"{name} {value}{of.get(name, '')}"
            for name in ("chunk", "frame", "channel")
            if (value := getattr(self, name)) is not None
        ]
        return ", ".join(parts) or "everywhere"


@dataclass(frozen=True)
class Diagnosis:
    """The answer to *why does it differ*.

    Attributes:
        model: The model's name.
        target: The chip.
        bits: Quantization width.
        summary: What differs, in one line.
        place: Where it begins.
        explanation: The cause and what speaks for it.
    """

    model: str
    target: str
    bits: int
    summary: str
    place: Place
    explanation: Explanation

    @property
    def cause(self) -> Cause:
        """The cause."""
        return self.explanation.cause

    @property
    def next_step(self) -> str:
        """What to do now."""
        return self.explanation.next_step or NEXT_STEP[self.cause]

    @property
    def text(self) -> str:
        """All of it in a dozen lines."""
        place, found = self.place, self.explanation
        operator = f"{place.operator} {place.node}" if place.node else "none: outside the graph"
        operator += f", module {place.module}" if place.module else ""
        is_named = place.tensor and not is_made_up(place.tensor)
        lines = [
            f"{self.model} on {self.target}, int{self.bits}: {self.summary}",
            f"cause     {self.cause}",
            f"operator  {operator}",
            f"begins    {place}" + (f"; tensor {place.tensor}" if is_named else ""),
        ]
        for number, fact in enumerate(found.facts[:FACT_LINES]):
            lines.append(f"{'' if number else 'facts':<9} {fact}")
        return "\n".join([*lines, f"next      {self.next_step}"])

    def to_json(self) -> dict[str, Any]:
        """The object that ``results.json`` keeps."""
        return {
            "cause": str(self.cause),
            **vars(self.place),
            "facts": list(self.explanation.facts),
            "next_step": self.next_step,
            "text": self.text,
        }
