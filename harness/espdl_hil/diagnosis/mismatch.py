"""What a diagnosis is made from. Knows the shapes of other rooms, imports none of them.

``espdl_hil.interpreter.load`` fits ``Load``; ``espdl_hil.proof.probe`` makes a ``Probe`` of a
device.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from espdl_hil.compare.tolerance import EXACT, Tolerance

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from espdl_hil.compare.verdict import StreamVerdict
    from espdl_hil.espdl import Graph

Array: TypeAlias = "NDArray[Any]"
Tensors: TypeAlias = "Mapping[str, Array]"


class Session(Protocol):
    """A graph being executed on the host, exactly as the target would."""

    @property
    def trace(self) -> Mapping[str, Array]:
        """Every node output of the last step; valid until the next."""

    def step(self, inputs: dict[str, Array], /) -> Mapping[str, Array]:
        """Run once; graph outputs by name."""

    def reset(self) -> None:
        """Zero the caches."""


class Load(Protocol):
    """Prepares a graph for execution.

    Raises:
        ArtifactError: the target cannot run this graph.
    """

    def __call__(self, source: Graph, target: str, /) -> Session:
        """Prepare *source* for *target*."""


@dataclass(frozen=True)
class Look:
    """One step of a device, looked into.

    Attributes:
        outputs: Graph outputs as the host received them.
        seen: What was asked for, read on the device; a tensor that it cannot show is missing.
        unwritten: The device's remark that output memory kept its canary; empty if all was written.
    """

    outputs: Tensors
    seen: Mapping[str, Any]
    unwritten: str = ""


class Probe(Protocol):
    """A device that can run the stream again, from a reset."""

    def digests(self, names: Sequence[str], chunks: int) -> Sequence[Look]:
        """CRC-32 of the bytes of tensors, over the first *chunks* chunks."""

    def values(self, names: Sequence[str], chunks: int) -> Sequence[Look]:
        """The tensors themselves."""


@dataclass(frozen=True)
class Finding:
    """What lint says of the export.

    Attributes:
        rule: Rule id.
        node: Node at fault.
        text: The explanation.
        edit: What would help.
    """

    rule: str
    node: str
    text: str
    edit: str = ""


@dataclass(frozen=True)
class Facts:
    """What is known without running anything.

    Attributes:
        expected_sha256: Hash of the artifact that should run; empty if unknown.
        observed_sha256: Hash that the device computed over what it runs.
        unwritten: Chunk to the device's remark that output memory kept its canary.
        findings: Lint errors of the export.
        lane_warnings: Nodes whose sums may leave the S3's 20-bit lanes.
        previous: Streams that ran on this model before, the last one last.
        damaged_frames: Packets that the session saw damaged.
    """

    expected_sha256: str = ""
    observed_sha256: str = ""
    unwritten: Mapping[int, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    lane_warnings: tuple[str, ...] = ()
    previous: tuple[Sequence[Tensors], ...] = ()
    damaged_frames: int = 0

    @property
    def stale(self) -> bool:
        """Whether the device runs other bytes than it should."""
        known = bool(self.expected_sha256 and self.observed_sha256)
        return known and self.expected_sha256 != self.observed_sha256


@dataclass(frozen=True)
class Offline:
    """The model that the stream is measured by.

    Attributes:
        graph: The offline artifact.
        inputs: The whole stimulus, every graph input.
        total_stride: Frames of a chunk must be a multiple of this.
        latency_frames: Output frames by which the stream lags.
        warmup_frames: Leading frames that may differ by design.
    """

    graph: Graph
    inputs: Tensors
    total_stride: int = 1
    latency_frames: int = 0
    warmup_frames: int = 0


@dataclass(frozen=True)
class Case:
    """A stream that went wrong.

    All tensors are in the file's layout and exponent.

    Attributes:
        model: The model's name.
        target: The chip.
        bits: Quantization width.
        graph: The streaming artifact.
        chunks: What each step was given; without state inputs.
        observed: What each step gave.
        verdict: The judgement that failed.
        load: Executes graphs on the host.
        frame_axes: Time axis of each graph output; None if it has none.
        tolerance: What counts as equal inside the graph; float tensors are compared to its
            relative part.
        state: Recurrent state, graph input to the graph output that feeds it.
        offline: The offline model; None if the stream was only compared with the interpreter.
        probe: The device, to look into; None if it is gone.
        facts: What is known beforehand.
    """

    model: str
    target: str
    bits: int
    graph: Graph
    chunks: Sequence[Tensors]
    observed: Sequence[Tensors]
    verdict: StreamVerdict
    load: Load
    frame_axes: Mapping[str, int | None]
    tolerance: Tolerance = EXACT
    state: Mapping[str, str] = field(default_factory=dict)
    offline: Offline | None = None
    probe: Probe | None = None
    facts: Facts = Facts()
