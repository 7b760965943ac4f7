"""What a device gives for one case. Runs models on devices, compares nothing."""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from espdl_hil.errors import ConfigError, DeviceError
from espdl_hil.proof.package import PACKAGE_BYTES, offline_name, streaming_name
from espdl_hil.report import EMULATED, SILICON, SIMULATED, Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from espdl_hil.compare import Tensors
    from espdl_hil.device.model import Model
    from espdl_hil.device.session import DeviceInfo, Session
    from espdl_hil.device.tensors import StepResult
    from espdl_hil.proof.case import Case
    from espdl_hil.proof.rig import Rig


_Result = TypeVar("_Result")


def substrate_of(info: DeviceInfo) -> str:
    """What the device that answered is made of."""
    return info.kind if info.kind in (SIMULATED, EMULATED) else SILICON


@dataclass(frozen=True)
class Control:
    """How a stream is run otherwise than a proof demands; by default not at all.

    Attributes:
        order: Chunks by number, in the order in which they are sent; empty for all in turn.
        reset: Zero the state before the stream.
        after: Chunks of the same stimulus that the same model instance has streamed before.
        artifact: Another build of the streaming file; empty for the case's own.
        upload: Send the artifact to the device's memory; otherwise it is loaded from flash, which
            must hold these very bytes.
        beside: A case whose streaming model takes a step between any two of this one's.
    """

    order: tuple[int, ...] = ()
    reset: bool = True
    after: int = 0
    artifact: bytes = b""
    upload: bool = True
    beside: Case | None = None


PLAIN = Control()


@dataclass(frozen=True)
class Observation:
    """What the device gave in one run.

    Attributes:
        steps: Outputs of each step, with all that the device said of it.
        model: Name of the model on the device.
        sha256: Of the model's bytes, as the device computed it.
        latency_us: Time of each step on the chip; empty on a device that measures none.
        resources: What the model takes of the chip; None where there is none.
    """

    steps: Sequence[StepResult]
    model: str
    sha256: str
    latency_us: tuple[int, ...]
    resources: Resources | None = None

    @property
    def outputs(self) -> list[Tensors]:
        """The outputs of each step."""
        return [step.outputs for step in self.steps]

    @property
    def outputs_sha256(self) -> str:
        """Hash of every byte of every output of every step, and of their names."""
        digest = hashlib.sha256()
        for outputs in self.outputs:
            for name, values in outputs.items():
                digest.update(name.encode() + b"\0" + np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()


class Observer:
    """Runs the models of a case on its device."""

    def __init__(self, case: Case, rig: Rig) -> None:
        self._case = case
        self._rig = rig

    def offline(self) -> Observation:
        """Run the offline model over the whole stimulus.

        Raises:
            HarnessError: it cannot be run.
        """

        def work() -> Observation:
            with self.loaded(streaming=False) as model:
                whole = self._rig.expected(self._case).whole
                return self._observation(
                    offline_name(self._case), model, [model.run(whole, reset=True)]
                )

        return self._attempt(work)

    def stream(self, control: Control = PLAIN) -> Observation:
        """Stream the stimulus.

        Raises:
            StaleArtifactError: flash holds other bytes than were to be run.
            HarnessError: it cannot be run.
        """
        chunks = self._rig.expected(self._case).chunks
        wanted = [chunks[number] for number in control.order] if control.order else chunks

        def work() -> Observation:
            watched = self._rig.watch.work(f"streaming {self._case.id}", "chunks")
            with (
                self._opened(control) as model,
                self._neighbour(control) as take_step,
                watched as progress,
            ):
                if control.after:
                    model.stream(chunks[: control.after], reset=True)
                if take_step is None:
                    steps = model.stream(wanted, reset=control.reset, progress=progress)
                else:
                    steps = []
                    for number, chunk in enumerate(wanted):
                        steps.append(model.run(chunk, reset=control.reset and not number))
                        take_step(number)
                        progress(number + 1, len(wanted))
                return self._observation(streaming_name(self._case), model, steps)

        return self._attempt(work)

    @contextlib.contextmanager
    def loaded(self, case: Case | None = None, *, streaming: bool = True) -> Iterator[Model]:
        """Load a model of *case*, by default this one, cold and bound; unload it afterwards."""
        case = case or self._case
        expected = self._rig.expected(case)
        path = expected.streaming_path if streaming else expected.artifacts.offline
        name = streaming_name(case) if streaming else offline_name(case)
        state = expected.plan.state if streaming else {}
        dut = self._rig.dut(case.target)
        is_stored = name in dut.stored
        with _running(dut.session, name, path.read_bytes(), state, is_stored=is_stored) as model:
            yield model

    @contextlib.contextmanager
    def _opened(self, control: Control) -> Iterator[Model]:
        """The case's streaming model, or another build of it."""
        if not control.artifact:
            with self.loaded() as model:
                yield model
            return
        dut, name = self._rig.dut(self._case.target), streaming_name(self._case)
        if not control.upload and name not in dut.stored:
            raise ConfigError(
                f"{name} is not in flash: the models of this run exceed {PACKAGE_BYTES >> 20} MiB, "
                "or the device was not flashed by this run",
                hint="select fewer models with -k; start an emulator of your own from what "
                "espdl-hil image writes",
            )
        state, data = self._rig.expected(self._case).plan.state, control.artifact
        with _running(dut.session, name, data, state, is_stored=not control.upload) as model:
            yield model

    @contextlib.contextmanager
    def _neighbour(self, control: Control) -> Iterator[Callable[[int], Any] | None]:
        """What lets the other model take the step of a number; None if there is no other."""
        if control.beside is None:
            yield None
            return
        chunks = self._rig.expected(control.beside).chunks
        with self.loaded(control.beside) as model:
            yield lambda number: model.run(chunks[number % len(chunks)], reset=not number)

    def _observation(self, name: str, model: Model, steps: Sequence[StepResult]) -> Observation:
        latencies = [step.latency_us for step in steps if step.latency_us is not None]
        timed = self._rig.dut(self._case.target).info.measures_time
        taken = self._resources(model)
        return Observation(steps, name, model.sha256, tuple(latencies) if timed else (), taken)

    def _resources(self, model: Model) -> Resources | None:
        """What the model that has just run takes of the chip; None where there is none."""
        dut = self._rig.dut(self._case.target)
        info = dut.info
        if substrate_of(info) != SILICON:
            return None
        usage, heap = dut.session.usage(), info.memory
        internal, psram = (usage.internal_least, usage.psram_least) if usage else (0, 0)
        return Resources(
            cpu_mhz=info.cpu_mhz,
            model_bytes=model.size,
            app_bytes=self._rig.firmware(self._case.target).app_bytes,
            load_us=(usage and usage.load_us) or None,
            internal_bytes=model.internal_bytes or None,
            psram_bytes=model.psram_bytes or None,
            internal_peak_bytes=max(0, heap.internal_total - internal) if internal else None,
            psram_peak_bytes=max(0, heap.psram_total - psram) if psram else None,
            stack_free_bytes=(usage and usage.stack_least) or None,
        )

    def _attempt(self, work: Callable[[], _Result]) -> _Result:
        """Do *work*; after an infrastructure fault bring the device back and do it once more."""
        from espdl_hil.device.errors import is_retryable

        try:
            return work()
        except DeviceError as error:
            if not is_retryable(error) or not self._rig.recover(self._case.target, error.message):
                raise
            return work()


@contextlib.contextmanager
def _running(
    session: Session, name: str, data: bytes, state: Mapping[str, str], *, is_stored: bool
) -> Iterator[Model]:
    """A model, its state fed back; unloaded afterwards, unless the device is gone and took it."""
    model = session.load(name, data) if is_stored else session.upload(data, name)
    try:
        if state:
            model.bind_state({output: into for into, output in state.items()})
        yield model
    except DeviceError:
        with contextlib.suppress(DeviceError):
            model.unload()
        raise
    model.unload()
