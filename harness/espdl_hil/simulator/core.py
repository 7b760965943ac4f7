"""The compiled firmware core: bytes in, bytes out, models run by a :class:`ModelRunner`."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from espdl_hil.errors import ConfigError, HarnessError
from espdl_hil.espdl import DTYPES
from espdl_hil.simulator.abi import ffi
from espdl_hil.simulator.runner import ModelRunner, RunnerError

if TYPE_CHECKING:
    from collections.abc import Callable

    from espdl_hil.espdl import TensorInfo

REASON_BYTES = 256

# The limits that the devkit's HELLO announces.
MAX_PAYLOAD_BYTES = 16384
WINDOW_REQUESTS = 8
MAX_MODELS = 8
MAX_WATCH = 256

_DTYPE_CODES = {dtype.name: code for code, dtype in DTYPES.items()}  # the protocol has the file's


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
        max_baud: Highest rate of the port; 0 when it has none.
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
    max_baud: int = 0


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

    def __init__(self, api: Any, facts: DeviceFacts, models: bytes, runner: ModelRunner) -> None:
        self._api = api
        self.reboot_requested = False  # the client wants the device to restart
        self.baud_requested: int | None = None  # of the line from now on; 0 is that of the boot
        self._callbacks = _callbacks(api, runner, self)  # live as long as the core
        self._models = ffi.from_buffer(models)  # borrowed by the core until it is destroyed
        reason = ffi.new("char[]", REASON_BYTES)
        texts = {  # live until the core has copied them
            name: ffi.new("char[]", value.encode())
            for name, value in asdict(facts).items()
            if isinstance(value, str)
        }
        self._core = api.hil_core_create(
            ffi.new("hil_config*", self._config(facts, texts)),
            ffi.new("hil_runner*", self._callbacks),
            {"text": reason, "capacity": REASON_BYTES},
        )
        if self._core == ffi.NULL:
            raise ConfigError(f"the firmware core refused to start: {ffi.string(reason).decode()}")
        self._frame = ffi.new("uint8_t[]", api.hil_core_max_frame(self._core))

    def _config(self, facts: DeviceFacts, texts: dict[str, Any]) -> dict[str, Any]:
        return {
            **asdict(facts),
            **texts,
            "abi_version": self._api.HIL_ABI_VERSION,
            "flags": self._api.HIL_FLAG_SIMULATED | self._api.HIL_FLAG_PULSES,
            "models": self._models if len(self._models) else ffi.NULL,
            "models_size": len(self._models),
            "max_payload": MAX_PAYLOAD_BYTES,
            "window": WINDOW_REQUESTS,
            "max_models": MAX_MODELS,
            "max_watch": MAX_WATCH,
        }

    @property
    def store_error(self) -> str:
        """Why the models partition was refused; empty when it is fine."""
        text: bytes = ffi.string(self._api.hil_core_store_error(self._core))
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
        return bytes(ffi.buffer(self._frame, size))

    def close(self) -> None:
        """Destroy the core with all its models."""
        if self._core != ffi.NULL:
            self._api.hil_core_destroy(self._core)
            self._core = ffi.NULL


def _callbacks(api: Any, runner: ModelRunner, core: Core) -> dict[str, Any]:
    """Wrap the methods of a runner and its core as the members of ``hil_runner``."""

    def load(
        _: object, name: Any, name_size: int, data: Any, size: int, out: Any, _r: object
    ) -> None:
        out[0] = runner.load(_text(name, name_size), bytes(ffi.buffer(data, size)))

    def describe(_: object, model: int, kind: int, index: int, out: Any) -> None:
        _fill(api, out, runner.tensor(model, kind, index))

    def find(_: object, model: int, name: Any, name_size: int, out: Any) -> None:
        out[0] = runner.find(model, _text(name, name_size))

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
        runner.run(
            model,
            [_memory(inputs[index]) for index in range(input_count)],
            [_memory(outputs[index]) for index in range(output_count)],
            [(captures[at].index, _memory(captures[at].buffer)) for at in range(capture_count)],
        )

    def read(_: object, model: int, index: int, offset: int, data: Any, size: int) -> None:
        ffi.memmove(data, runner.read(model, index, offset, size), size)

    def memory(_: object, out: Any) -> None:
        for name, value in runner.memory().items():
            setattr(out, name, value)

    def reboot(_: object) -> None:
        core.reboot_requested = True

    def set_baud(_: object, baud: int) -> None:
        core.baud_requested = baud

    def restore_vector_unit(_: object) -> int:
        return sum(getattr(api, name) for name in runner.restore_vector_unit())  # bits

    functions = {
        "load": _guard(load, api, api.HIL_LOAD_FAILED),
        "unload": lambda _, model: runner.unload(model),
        "count": lambda _, model, kind: runner.count(model, kind),
        "describe": _guard(describe, api, api.HIL_RUN_FAILED),
        "find": _guard(find, api, api.HIL_NO_SUCH_TENSOR),
        "reset": _guard(lambda _, model, _r: runner.reset(model), api, api.HIL_RUN_FAILED),
        "retain": lambda *_: api.HIL_OK,  # every node output is kept anyway
        "run": _guard(run, api, api.HIL_RUN_FAILED),
        "read": _guard(read, api, api.HIL_NOT_RETAINED),
        "memory": memory,
        "reboot": reboot,
        "set_baud": set_baud,
        "restore_vector_unit": restore_vector_unit,
    }  # no now_us: a simulated devkit measures no time
    types = dict(ffi.typeof("hil_runner").fields)
    return {name: ffi.callback(types[name].type, call) for name, call in functions.items()}


def _guard(function: Callable[..., None], api: Any, failed: int) -> Callable[..., int]:
    """Turn exceptions into the ABI's codes; a trailing ``hil_reason`` takes the text."""

    def call(*arguments: Any) -> int:
        try:
            function(*arguments)
        except RunnerError as error:
            code, text = int(getattr(api, f"HIL_{error.code}")), str(error)
        except HarnessError as error:
            code, text = failed, error.message
        except Exception as error:  # noqa: BLE001 - must not unwind through the C++ frames
            code, text = failed, f"{type(error).__name__}: {error}"
        else:
            return int(api.HIL_OK)
        text = " ".join(text.split())  # a protocol's text is one line
        reason = arguments[-1]
        if ffi.typeof(reason) is ffi.typeof("hil_reason") and reason.capacity:
            encoded = text.encode()[: reason.capacity - 1] + b"\x00"
            ffi.memmove(reason.text, encoded, len(encoded))
        return code

    return call


def _fill(api: Any, out: Any, info: TensorInfo) -> None:
    """Write what the protocol says about one tensor; *out* is zeroed."""
    name = info.name.encode()
    if len(name) > api.HIL_MAX_NAME or len(info.shape) > api.HIL_MAX_RANK:
        raise RunnerError("RUN_FAILED", f"{info.name}: name or rank exceeds the protocol's")
    ffi.memmove(out.name, name, len(name))
    out.name_size = len(name)
    out.dtype = _DTYPE_CODES[info.dtype.name]
    out.rank = len(info.shape)
    out.bytes = info.nbytes
    out.dims[0 : len(info.shape)] = info.shape
    if len(info.exponents) == 1:
        out.exponent = info.exponents[0]
    else:
        out.flags = api.HIL_TENSOR_PER_CHANNEL


def _text(data: Any, size: int) -> str:
    return bytes(ffi.buffer(data, size)).decode("utf-8", "replace")


def _memory(piece: Any) -> Any:
    """The core's memory, without a copy; valid during the callback."""
    return ffi.buffer(piece.data, piece.size)
