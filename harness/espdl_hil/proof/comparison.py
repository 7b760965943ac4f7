"""What is compared with what, and what counts as equal. Knows arrays, not devices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from espdl_hil.compare import EXACT, Outcome, Tolerance, compare_streams
from espdl_hil.operators import float_step_lsb
from espdl_hil.proof.probe import canary_remarks
from espdl_hil.report import SIMULATED, Check

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from espdl_hil.compare import StreamVerdict
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.proof.expected import Expected

    Tensors = Mapping[str, NDArray[Any]]

# ESP-DL requantizes sums through float32, the reference through float64: now and then 1 LSB
# inside, which the layers behind may enlarge. One step of int8 is 256 of int16.
INT16_REFERENCE = Tolerance(max_lsb=8)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A run and what it should have given, compared in every element.

    Attributes:
        what: Says what differs, if anything does.
        streaming: Whether the streaming model ran, chunk by chunk, or the offline one, whole.
        expected: What each step should have given.
        observed: What each step gave.
        verdict: What was found.
        tolerance: What counted as equal.
        against: Who says what is expected: ``offline`` (the device's offline run), ``interpreter``,
            ``reference`` or ``stream`` (another run of the same model).
        steps: What the device said of its steps besides; empty when no device ran.
    """

    what: str
    streaming: bool
    expected: Sequence[Tensors]
    observed: Sequence[Tensors]
    verdict: StreamVerdict
    tolerance: Tolerance
    against: str
    steps: Sequence[StepResult] = ()

    @property
    def unwritten(self) -> str:
        """The device's first remark that it left an output unwritten, which fails any run."""
        for number, step in enumerate(self.steps):
            if step.unwritten is not None:
                return f"chunk {number}: {canary_remarks([step])[0]}"
        return ""

    @property
    def passed(self) -> bool:
        """Whether everything was compared, all of it is equal, and the device wrote all of it."""
        return self.verdict.outcome is Outcome.PASSED and not self.unwritten

    @property
    def check(self) -> Check:
        """The numbers that a row keeps."""
        elements = sum(array.size for chunk in self.expected for array in chunk.values())
        return Check.of(
            self.verdict, elements=elements, tolerance=self.tolerance, error=self.unwritten
        )

    def __str__(self) -> str:
        return "; ".join(filter(None, [f"{self.what}: {self.verdict}", self.unwritten]))


def compare_streaming(
    expected: Expected,
    stream: Sequence[Tensors],
    offline: Tensors,
    steps: Sequence[StepResult] = (),
) -> Comparison:
    """Compare a stream, chunk by chunk, with an offline run of the same frames.

    A model that accepts the chip's rounding has to give what is predicted of it, to the element.

    Args:
        expected: Says which offline frames belong to which chunk.
        stream: Outputs of each step.
        offline: Outputs of the offline model over the whole stimulus.
        steps: The steps that gave *stream*.
    """
    wanted, seen = expected.cut(offline), expected.trim(stream)
    if expected.case.model.chip_rounding == "accept" and (made := expected.chip_made):
        wanted = made.allow(wanted)
    tolerance = expected.case.tolerance
    verdict = compare_streams(
        wanted,
        seen,
        tolerance,
        frame_axes=expected.frame_axes,
        skip_frames=expected.skip_frames,
        silent_chunks=expected.silent_chunks,
    )
    what = "the stream differs from the offline run"
    return Comparison(what, True, wanted, seen, verdict, tolerance, "offline", steps=steps)


def compare_alike(
    expected: Expected,
    wanted: Sequence[Tensors],
    seen: Sequence[Tensors],
    *,
    what: str,
    streaming: bool,
    against: str,
    tolerance: Tolerance = EXACT,
    steps: Sequence[StepResult] = (),
) -> Comparison:
    """Compare two runs of the same kind, step by step.

    Args:
        expected: Knows the outputs' time axes.
        wanted: What each step should have given.
        seen: What each step gave.
        what: Says what differs, if anything does.
        streaming: Whether the streaming model ran.
        against: Who gave *wanted*.
        tolerance: What counts as equal.
        steps: The steps that gave *seen*.
    """
    verdict = compare_streams(wanted, seen, tolerance, frame_axes=expected.axes(wanted[0]))
    return Comparison(what, streaming, wanted, seen, verdict, tolerance, against, steps=steps)


def interpreter_tolerance(expected: Expected, substrate: str) -> Tolerance:
    """How far a device may be from the interpreter: the largest of its nodes' float steps.

    Real firmware alone has a compiler that may reorder them; a simulated devkit is exact.
    """
    if substrate == SIMULATED:
        return EXACT
    target, nodes = expected.case.target, expected.offline_graph.nodes
    steps_lsb = max((float_step_lsb(node, target) for node in nodes), default=0)
    return Tolerance(max_lsb=steps_lsb) if steps_lsb else EXACT


def compare_reference(expected: Expected, offline: Tensors) -> Comparison:
    """Compare an offline run with the exporter's own execution: exact at int8, 8 LSB at int16."""
    return compare_alike(
        expected,
        [expected.artifacts.reference],
        [offline],
        what="the offline run differs from the exporter's reference",
        streaming=False,
        against="reference",
        tolerance=EXACT if expected.case.bits == 8 else INT16_REFERENCE,
    )
