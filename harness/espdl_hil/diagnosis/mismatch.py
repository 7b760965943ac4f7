"""What a diagnosis is made from: a stream that went wrong, and a device to look into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from espdl_hil.compare import EXACT, Tolerance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.compare import StreamVerdict, Tensors
    from espdl_hil.diagnosis.cause import Cause
    from espdl_hil.espdl import Graph


@dataclass(frozen=True)
class Look:
    """One step of a device, looked into.

    Attributes:
        seen: What was asked for, read on the device; a tensor that it cannot show is missing.
        unwritten: The device's remark that output memory kept its canary; empty if all was written.
    """

    seen: Mapping[str, Any]
    unwritten: str = ""


class Probe(Protocol):
    """A device that can run the stream again, from a reset; ``proof.probe`` makes one."""

    def digests(self, names: Sequence[str], chunks: int) -> Sequence[Look]:
        """CRC-32 of the bytes of tensors, over the first *chunks* chunks."""

    def values(self, names: Sequence[str], chunks: int) -> Sequence[Look]:
        """The tensors themselves."""


@dataclass(frozen=True)
class Offline:
    """The model that the stream is measured by.

    Attributes:
        graph: The offline artifact.
        inputs: The whole stimulus, every graph input.
        latency_frames: Output frames by which the stream lags.
        warmup_frames: Leading frames that may differ by design.
    """

    graph: Graph
    inputs: Tensors
    latency_frames: int = 0
    warmup_frames: int = 0


@dataclass(frozen=True)
class Mismatch:
    """A stream that went wrong.

    All tensors are in the file's layout and exponent.

    Attributes:
        model: The model's name.
        target: The chip.
        bits: Quantization width.
        graph: What ran.
        chunks: What each step was given; without state inputs.
        observed: What each step gave.
        verdict: The comparison that failed.
        frame_axes: Time axis of each graph output; None if it has none.
        tolerance: What counts as equal inside the graph; float tensors are compared to its
            relative part.
        state: Recurrent state, graph input to the graph output that feeds it.
        offline: The offline model; None if the stream was only compared with the interpreter.
        unwritten: Chunk to the device's remark that output memory kept its canary.
        vector_unit: Chunk to the causes that the device names after it: other code had changed
            modes of the vector unit while it ran.
    """

    model: str
    target: str
    bits: int
    graph: Graph
    chunks: Sequence[Tensors]
    observed: Sequence[Tensors]
    verdict: StreamVerdict
    frame_axes: Mapping[str, int | None]
    tolerance: Tolerance = EXACT
    state: Mapping[str, str] = field(default_factory=dict)
    offline: Offline | None = None
    unwritten: Mapping[int, str] = field(default_factory=dict)
    vector_unit: Mapping[int, Cause] = field(default_factory=dict)
