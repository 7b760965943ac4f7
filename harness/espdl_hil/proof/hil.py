"""The ``hil`` fixture's object: one case on its device, and the checks that tests call."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from espdl_hil.compare import EXACT, Tolerance, compare_streams, parse_tolerance
from espdl_hil.errors import ConfigError
from espdl_hil.proof.package import PACKAGE_BYTES, offline_name, streaming_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from espdl_hil.compare import StreamVerdict
    from espdl_hil.device.dut import Dut
    from espdl_hil.device.model import Model
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.expected import Expected
    from espdl_hil.proof.rig import Rig
    from espdl_hil.proof.rows import RowBook
    from espdl_hil.simulator import Devkit

    Tensors = dict[str, NDArray[Any]]

_Result = TypeVar("_Result")
# ESP-DL requantizes sums through float32, the reference through float64: now and then 1 LSB
# inside, which the layers behind may enlarge. One step of int8 is 256 of int16.
INT16_REFERENCE = Tolerance(max_lsb=8)
# ESP-DL is built with -ffast-math: on a chip, int16 behind a float step may be off by a rounding.
INT16_FLOAT_STEP = Tolerance(max_lsb=1)
# Operators that the exporter executes otherwise than ESP-DL's portable kernel, and what helps.
KNOWN_TO_DIFFER = {
    "PRelu": "ESP-DL floors the products of a PRelu, the exporter rounds them; a LeakyRelu or Relu "
    "is computed alike",
}
FLOAT_STEPS = frozenset({"GRU", "LSTM", "LayerNormalization", "LogSoftmax", "Softmax"})


@dataclass(frozen=True)
class Observation:
    """What the device gave for the stimulus of a case.

    Attributes:
        stream: Outputs of the streaming model, one entry a chunk.
        offline: Outputs of the offline model.
        latency_us: Time of each chunk on the chip; None on a device that measures none.
        stream_steps: The streaming model's steps with all that the device said of them.
        offline_step: The offline model's.
        hashes: SHA-256 of both models as the device computed them.
        boot_nonce: The boot that they ran on.
    """

    stream: list[Tensors]
    offline: Tensors
    latency_us: list[int] | None
    stream_steps: Sequence[StepResult]
    offline_step: StepResult
    hashes: Mapping[str, str]
    boot_nonce: str


@dataclass(frozen=True)
class Check:
    """One comparison, and what it was made of.

    Attributes:
        what: What it found if it failed, in words.
        streaming: Whether the streaming model ran, chunk by chunk, or the offline one, whole.
        chunks: What each step was given.
        expected: What each step should have given.
        observed: What each step gave.
        verdict: The comparison.
        against_offline: Whether the offline model says what is expected, or the interpreter.
    """

    what: str
    streaming: bool
    chunks: Sequence[Tensors]
    expected: Sequence[Tensors]
    observed: Sequence[Tensors]
    verdict: StreamVerdict
    against_offline: bool = False


class Hil:
    """One case: a model at one width and chunk size, on one device.

    Tests get it as the fixture ``hil`` and call ``verify``, or compose the smaller pieces.
    All tensors are integers (or float32 where the file says so), in the file's own layout
    and exponent, by name of the graph input or output.

    Args:
        case: The row of the table.
        rig: Owner of artifacts and devices.
        book: Where the row is noted.
    """

    def __init__(self, case: Case, rig: Rig, book: RowBook) -> None:
        self.case = case
        self._rig = rig
        self._book = book

    # -- checks ------------------------------------------------------------------

    def verify(self) -> None:
        """Prove the case: stream against offline, device against interpreter and reference.

        Raises:
            pytest.fail.Exception: an element differs; the message says where.
            HarnessError: the comparison could not be made.
        """
        self.verify_streaming()
        self.verify_interpreter()
        self.verify_reference()

    def verify_streaming(self) -> None:
        """Each chunk that the device streams equals what its offline run gave for those frames."""
        seen, expected = self.observe(), self.expected
        verdict = self.judge_streaming(seen.stream)
        self._book.note_streaming(self, verdict)
        if verdict.outcome != "passed":
            self._settle(self._offline_mismatch())  # it may be the offline run that is wrong
        wanted, observed = expected.cut(seen.offline), expected.trim(seen.stream)
        what = "the stream differs from the offline run"
        self._settle(
            Check(what, True, self.chunks, wanted, observed, verdict, against_offline=True)
        )

    def verify_interpreter(self) -> None:
        """The device's runs, offline and streaming, equal the interpreter's of the same bytes.

        Exactly; a board may be 1 LSB off where an int16 model computes a step in float.
        """
        self._settle(self._offline_mismatch())
        wanted, observed = self.expected.stream, self.observe().stream
        verdict = self.judge(wanted, observed, self._interpreter_tolerance)
        what = "the stream differs from the interpreter's"
        self._settle(Check(what, True, self.chunks, wanted, observed, verdict))

    def verify_reference(self) -> None:
        """The device's offline run equals the exporter's own quantized execution.

        At int8 exactly, at int16 within 8 LSB.
        """
        verdict = self.judge_reference()
        if verdict.outcome != "passed":
            text = f"the offline run differs from the exporter's reference: {verdict}"
            operators = {node.op_type for node in self.expected.offline_graph.nodes}
            hints = [
                f"\n  hint: {KNOWN_TO_DIFFER[op]}" for op in operators if op in KNOWN_TO_DIFFER
            ]
            pytest.fail(f"{self.case.id}: {text}{''.join(hints)}", pytrace=False)

    # -- pieces ------------------------------------------------------------------

    @property
    def dut(self) -> Dut:
        """The device, flashed and booted."""
        return self._rig.dut(self.case.target)

    @property
    def devkit(self) -> Devkit:
        """The simulated devkit behind the device, to inject faults into.

        Raises:
            ConfigError: the device is a board, or simulated elsewhere.
        """
        devkit = self._rig.devkits.get(self.case.target)
        if devkit is None:
            raise ConfigError(
                f"{self.case.id}: there is no simulated devkit in this process",
                hint="faults can be injected with --hil-device sim and without --port",
            )
        return devkit

    @property
    def expected(self) -> Expected:
        """What the device should give, computed on the host."""
        return self._rig.expected(self.case)

    @property
    def chunks(self) -> list[Tensors]:
        """The stimulus, cut into the inputs of each step."""
        return self.expected.chunks

    @property
    def tolerance(self) -> Tolerance:
        """The model's declared tolerance for streaming against offline; exact by default."""
        return parse_tolerance(str(self.case.model.tolerance))

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of everything that had a part in the row."""
        return self._book.results.environment

    @property
    def package_name(self) -> str:
        """Name of the streaming model in the device's models partition."""
        return streaming_name(self.case)

    def observe(self, *, again: bool = False) -> Observation:
        """Run offline and streaming model on the device; once a session for each case.

        Args:
            again: Run them even if they ran before, and keep what they give now.
        """
        found = self._book.observations.get(self.case.id)
        if found is None or again:
            found = self._attempt(self._observe)
            self._book.observations[self.case.id] = found
        return found

    def stream(
        self,
        chunks: Sequence[Mapping[str, NDArray[Any]]] | None = None,
        *,
        model: Model | None = None,
        reset: bool = True,
    ) -> list[Tensors]:
        """Stream chunks through the device.

        Args:
            chunks: Inputs of each step; None means the stimulus.
            model: A model from ``loaded`` or ``uploaded``, whose state may be warm; None loads
                the case's streaming model anew.
            reset: Zero the state first.

        Returns:
            The outputs of each step.
        """
        wanted = self.chunks if chunks is None else chunks
        if model is not None:
            return [step.outputs for step in model.stream(wanted, reset=reset)]

        def work() -> list[Tensors]:
            with self.loaded() as fresh:
                return self.stream(wanted, model=fresh, reset=reset)

        return self._attempt(work)

    def judge(
        self,
        expected: Sequence[Mapping[str, Any]],
        observed: Sequence[Mapping[str, Any]],
        tolerance: Tolerance = EXACT,
    ) -> StreamVerdict:
        """Compare two runs of the same model, step by step."""
        return compare_streams(expected, observed, tolerance, frame_axes=self.axes(expected[0]))

    def judge_streaming(self, stream: Sequence[Mapping[str, Any]]) -> StreamVerdict:
        """Compare a stream with what the device's offline run says it should be."""
        expected = self.expected
        return compare_streams(
            expected.cut(self.observe().offline),
            expected.trim(stream),
            self.tolerance,
            frame_axes=expected.frame_axes,
            skip_frames=expected.skip_frames,
            silent_chunks=expected.silent_chunks,
        )

    def judge_reference(self) -> StreamVerdict:
        """Compare the device's offline run with the exporter's reference."""
        return compare_streams(
            [self.expected.artifacts.reference],
            [self.observe().offline],
            EXACT if self.case.bits == 8 else INT16_REFERENCE,
            frame_axes=self.axes(self.expected.artifacts.reference),
        )

    @contextlib.contextmanager
    def loaded(self, case: Case | None = None, *, streaming: bool = True) -> Iterator[Model]:
        """Load a model on the device, with its state cold, and unload it afterwards.

        Args:
            case: Which; None means this one.
            streaming: The streaming model, or the offline one.
        """
        case = case or self.case
        artifacts = self._rig.expected(case).artifacts
        path = artifacts.streaming[case.chunk_frames] if streaming else artifacts.offline
        name = streaming_name(case) if streaming else offline_name(case)
        session = self.dut.session
        stored = name in self._rig.stored[self.case.target]
        data = path.read_bytes()
        with _unloading(
            session.load(name, data) if stored else session.upload(data, name)
        ) as model:
            state = self._rig.expected(case).plan.state
            if streaming and state:
                model.bind_state({sink: source for source, sink in state.items()})
            yield model

    @contextlib.contextmanager
    def uploaded(self, data: bytes) -> Iterator[Model]:
        """Send another build of the streaming model to the device's memory and load it."""
        with _unloading(self.dut.session.upload(data, self.package_name)) as model:
            if self.expected.plan.state:
                model.bind_state({out: into for into, out in self.expected.plan.state.items()})
            yield model

    @contextlib.contextmanager
    def neighbour(self) -> Iterator[tuple[Model, list[Tensors]]]:
        """Load a second streaming model: another case of this device, or this one again.

        Yields:
            The model and the chunks of its stimulus.
        """
        others = [
            case
            for case in self._rig.cases
            if case.target == self.case.target and case.model.name != self.case.model.name
        ]
        case = others[0] if others else self.case
        with self.loaded(case) as model:
            yield model, self._rig.expected(case).chunks

    def stream_interleaved(self, neighbour: tuple[Model, list[Tensors]]) -> list[Tensors]:
        """Stream the stimulus while another model takes a step between any two of its steps."""
        other, chunks = neighbour
        outputs = []
        with self.loaded() as model:
            for number, chunk in enumerate(self.chunks):
                outputs.append(model.run(chunk, reset=number == 0).outputs)
                other.run(chunks[number % len(chunks)], reset=number == 0)
        return outputs

    # -- negative controls ---------------------------------------------------------

    def require_state(self) -> None:
        """Skip the test when the model keeps nothing between chunks."""
        if not self.expected.plan.state_bytes:
            pytest.skip(f"{self.case.model.name} keeps no state between chunks")

    def with_flipped_weight(self) -> bytes:
        """The streaming file with one bit of one weight flipped, such that outputs change."""
        from espdl_hil.simulator.faults import flip_weight

        expected = self.expected
        data = expected.artifacts.streaming[self.case.chunk_frames].read_bytes()
        axes = self.axes(expected.stream[0])

        def changes(other: bytes) -> bool:
            found = expected.stream_of(other)
            return compare_streams(expected.stream, found, frame_axes=axes).differing > 0

        return flip_weight(data, changes)

    def load_expecting(self, data: bytes) -> None:
        """Load the streaming model from flash as if *data* had been flashed.

        Raises:
            StaleArtifactError: it holds other bytes.
        """
        session = self.dut.session
        if self.package_name not in self._rig.stored[self.case.target]:
            raise ConfigError(
                f"{self.package_name} is not in flash: the models of this run exceed "
                f"{PACKAGE_BYTES >> 20} MiB",
                hint="select fewer models with --hil-model",
            )
        session.load(self.package_name, data).unload()

    # -- inside --------------------------------------------------------------------

    def axes(self, outputs: Mapping[str, Any]) -> dict[str, int | None]:
        """The time axis of each output; None if it has none."""
        axes = {a.output: a.frame_axis for a in self.expected.plan.alignments}
        return {name: axes[name] if axes[name] >= 0 else None for name in outputs}

    def _observe(self) -> Observation:
        with self.loaded(streaming=False) as model:
            offline = model.run(self.expected.whole, reset=True)
            hashes = {offline_name(self.case): model.sha256}
        with self.loaded() as model:
            steps = model.stream(self.chunks, reset=True)
            hashes[streaming_name(self.case)] = model.sha256
        info = self.dut.info
        latencies = [step.latency_us for step in steps if step.latency_us is not None]
        return Observation(
            stream=[step.outputs for step in steps],
            offline=offline.outputs,
            latency_us=latencies if info.measures_time and latencies else None,
            stream_steps=steps,
            offline_step=offline,
            hashes=hashes,
            boot_nonce=info.boot_nonce,
        )

    def _attempt(self, work: Callable[[], _Result]) -> _Result:
        """Do *work*; after an infrastructure fault bring the device back and do it once more."""
        from espdl_hil.device.errors import is_retryable
        from espdl_hil.errors import DeviceError

        try:
            return work()
        except DeviceError as error:
            if not is_retryable(error):
                raise
            self._rig.recover(self.case.target, error.message)
            return work()

    @property
    def _interpreter_tolerance(self) -> Tolerance:
        operators = {node.op_type for node in self.expected.offline_graph.nodes}
        is_board = self.dut.info.kind == "serial"
        if is_board and self.case.bits == 16 and operators & FLOAT_STEPS:
            return INT16_FLOAT_STEP
        return EXACT

    def _offline_mismatch(self) -> Check:
        """The device's offline run against the interpreter's, whatever came of it."""
        whole, wanted, observed = self.expected.whole, self.expected.offline, self.observe().offline
        verdict = self.judge([wanted], [observed], self._interpreter_tolerance)
        what = "the offline run differs from the interpreter's"
        return Check(what, False, [whole], [wanted], [observed], verdict)

    def _settle(self, check: Check) -> None:
        """Fail the test with all that can be found out, or let it pass."""
        seen = self.observe()
        steps = seen.stream_steps if check.streaming else [seen.offline_step]
        written = all(step.unwritten is None for step in steps)
        if check.verdict.outcome == "passed" and written:
            return
        pytest.fail(self._book.explain(self, check, self._rig.options.report), pytrace=False)


@contextlib.contextmanager
def _unloading(model: Model) -> Iterator[Model]:
    """Unload *model* afterwards, unless the device is gone and took it along."""
    from espdl_hil.errors import DeviceError

    try:
        yield model
    except DeviceError:
        with contextlib.suppress(DeviceError):
            model.unload()
        raise
    model.unload()
