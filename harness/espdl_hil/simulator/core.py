"""The compiled firmware core: bytes in, bytes out, models run by a :class:`ModelRunner`."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from espdl_hil.errors import ConfigError, HarnessError
from espdl_hil.simulator import abi
from espdl_hil.simulator.runner import ModelRunner, RunnerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

REASON_BYTES = 256

# The limits that the devkit's HELLO announces.
MAX_PAYLOAD_BYTES = 16384
WINDOW_REQUESTS = 8
MAX_MODELS = 8
MAX_WATCH = 256


@dataclass(frozen=True)
class DeviceFacts:
    """What the core tells its client about the device.

    Attributes:
        target: ESP-IDF target name.
        idf_version: Version of ESP-IDF in the application.
        espdl_version: What runs the models.
        app_version: Version of the application.
        app_sha256: Hash of the application's ELF file, 32 bytes.
        boot_nonce: Drawn anew at each boot, 64 bits.
        chip_revision: major * 100 + minor.
        cpu_mhz: Clock of the chip.
        max_upload: Bytes of the largest model that can be uploaded.
    """

    target: str
    idf_version: str
    espdl_version: str
    app_version: str
    app_sha256: bytes
    boot_nonce: int
    chip_revision: int
    cpu_mhz: int
    max_upload: int


class Core:
    """One boot of the firmware core.

    Args:
        api: The compiled core, from :func:`espdl_hil.simulator.abi.bind`.
        facts: What it says about the device.
        models: The bytes of the ``models`` partition; empty when there is none.
        runner: Runs its models; owned by the core until :meth:`close`.

    Raises:
        ConfigError: The core refuses the facts.
    """

    def __init__(
        self, api: ctypes.CDLL, facts: DeviceFacts, models: bytes, runner: ModelRunner
    ) -> None:
        self._api = api
        self._models = models  # borrowed by the core until it is destroyed
        self.reboot_requested = False
        self._callbacks = _callbacks(runner, self._request_reboot)
        reason = ctypes.create_string_buffer(REASON_BYTES)
        config = _config(facts, models)
        self._core = self._api.hil_core_create(
            config, self._callbacks, abi.Reason(ctypes.addressof(reason), REASON_BYTES)
        )
        if not self._core:
            raise ConfigError(f"the firmware core refused to start: {reason.value.decode()}")
        self._frame = ctypes.create_string_buffer(self._api.hil_core_max_frame(self._core))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def store_error(self) -> str:
        """Why the models partition was refused; empty when it is fine."""
        text: bytes = self._api.hil_core_store_error(self._core)
        return text.decode("utf-8", "replace")

    def feed(self, data: bytes) -> bytes:
        """Hand over received bytes.

        Returns:
            The bytes that did not fit; :meth:`poll`, then feed them.
        """
        return data[self._api.hil_core_feed(self._core, data, len(data)) :]

    def poll(self) -> bool:
        """Execute at most one request; False when there was none."""
        return bool(self._api.hil_core_poll(self._core))

    def drain(self) -> bytes:
        """Take the next frame to send; empty when there is none."""
        size = self._api.hil_core_drain(self._core, self._frame, len(self._frame))
        return self._frame.raw[:size] if size else b""

    def close(self) -> None:
        """Destroy the core with all its models."""
        if self._core:
            self._api.hil_core_destroy(self._core)
            self._core = None

    def _request_reboot(self) -> None:
        self.reboot_requested = True


def _config(facts: DeviceFacts, models: bytes) -> abi.Config:
    return abi.Config(
        abi_version=abi.ABI_VERSION,
        flags=abi.FLAG_SIMULATED,
        target=facts.target.encode(),
        idf_version=facts.idf_version.encode(),
        espdl_version=facts.espdl_version.encode(),
        app_version=facts.app_version.encode(),
        app_sha256=(ctypes.c_uint8 * 32)(*facts.app_sha256),
        boot_nonce=facts.boot_nonce,
        chip_revision=facts.chip_revision,
        cpu_mhz=facts.cpu_mhz,
        models=ctypes.cast(ctypes.c_char_p(models), ctypes.c_void_p) if models else None,
        models_size=len(models),
        max_payload=MAX_PAYLOAD_BYTES,
        window=WINDOW_REQUESTS,
        max_models=MAX_MODELS,
        max_watch=MAX_WATCH,
        max_upload=facts.max_upload,
    )


def _guard(function: Callable[..., None], failed: int) -> Callable[..., int]:
    """Turn exceptions into the ABI's codes; a trailing ``Reason`` takes the text."""

    def call(*arguments: Any) -> int:
        try:
            function(*arguments)
        except RunnerError as error:
            code, text = error.code, str(error)
        except HarnessError as error:
            code, text = failed, error.message
        except Exception as error:  # noqa: BLE001 - must not unwind through the C++ frames
            code, text = failed, f"{type(error).__name__}: {error}"
        else:
            return abi.OK
        reason = arguments[-1]
        if isinstance(reason, abi.Reason) and reason.capacity:
            encoded = text.encode()[: reason.capacity - 1] + b"\x00"
            ctypes.memmove(reason.text, encoded, len(encoded))
        return code

    return call


def _callbacks(runner: ModelRunner, reboot: Callable[[], None]) -> abi.Runner:
    """Wrap a runner's methods as C function pointers."""

    def load(
        _: object, name: int, name_size: int, data: int, size: int, out: Any, _r: object
    ) -> None:
        label = ctypes.string_at(name, name_size).decode("utf-8", "replace")
        out[0] = runner.load(label, ctypes.string_at(data, size))

    def describe(_: object, model: int, kind: int, index: int, out: Any) -> None:
        runner.describe(model, kind, index, out[0])

    def find(_: object, model: int, name: int, name_size: int, out: Any) -> None:
        out[0] = runner.find(model, ctypes.string_at(name, name_size).decode("utf-8", "replace"))

    def run(
        _: object,
        model: int,
        inputs: Any,
        input_count: int,
        outputs: Any,
        output_count: int,
        captures: Any,
        capture_count: int,
        _r: object,
    ) -> None:
        runner.run(model, inputs[:input_count], outputs[:output_count], captures[:capture_count])

    def read(_: object, model: int, index: int, offset: int, data: int, size: int) -> None:
        ctypes.memmove(data, runner.read(model, index, offset, size), size)

    return abi.Runner(
        load=abi.LOAD(_guard(load, abi.LOAD_FAILED)),
        unload=abi.UNLOAD(lambda _, model: runner.unload(model)),
        count=abi.COUNT(lambda _, model, kind: runner.count(model, kind)),
        describe=abi.DESCRIBE(_guard(describe, abi.RUN_FAILED)),
        find=abi.FIND(_guard(find, abi.NO_SUCH_TENSOR)),
        reset=abi.RESET(_guard(lambda _, model, _r: runner.reset(model), abi.RUN_FAILED)),
        retain=abi.RETAIN(lambda *_: abi.OK),  # every node output is kept anyway
        run=abi.RUN(_guard(run, abi.RUN_FAILED)),
        read=abi.READ(_guard(read, abi.NOT_RETAINED)),
        memory=abi.MEMORY(lambda _, out: runner.memory(out[0])),
        now_us=abi.NOW_US(),  # NULL: a simulated devkit measures no time
        reboot=abi.REBOOT(lambda _: reboot()),
    )
