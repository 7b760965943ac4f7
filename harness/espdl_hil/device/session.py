"""The session with the firmware: its models, its memory, and who it is."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espdl_hil.device.errors import RequestError, StaleArtifactError
from espdl_hil.device.listing import read_list
from espdl_hil.device.model import Model
from espdl_hil.device.replies import check_size
from espdl_hil.errors import ArtifactError
from espdl_hil.targets import TARGETS
from espdl_hil.wire import messages as wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.device.transport import Transport

_EDL_HEADER_BYTES = {b"EDL1": 12, b"EDL2": 16}
_UPLOAD_FIELDS = 4  # bytes of an UploadData before its data


@dataclass(frozen=True)
class DeviceInfo:
    """What the device says it is, and where it is.

    Attributes:
        target: ESP-IDF target name.
        kind: ``simulated``, ``emulated`` or ``serial``.
        chip: The chip's name as people write it.
        revision: Chip revision, major * 100 + minor.
        port: The port as the user names it.
        app_sha256: SHA-256 of the running app's ELF file, hex.
        boot_nonce: Drawn anew at each boot, 16 hex digits.
        idf_version: ESP-IDF that the app was built with.
        espdl_version: ESP-DL that it was built with.
        app_version: The firmware's own version.
        cpu_mhz: CPU clock.
        measures_time: Whether latencies mean anything.
        memory: Heap at the greeting, bytes.
        max_upload: Largest model that can be uploaded, bytes.
        emulator: Name and version of what emulates the chip; empty if nothing does.
    """

    target: str
    kind: str
    chip: str
    revision: int
    port: str
    app_sha256: str
    boot_nonce: str
    idf_version: str
    espdl_version: str
    app_version: str
    cpu_mhz: int
    measures_time: bool
    memory: wire.Memory
    max_upload: int
    emulator: str = ""

    @classmethod
    def from_hello(cls, hello: wire.HelloReply, port: str, emulator: str = "") -> DeviceInfo:
        """Read the greeting of a firmware, which cannot know that its chip is emulated."""
        known = TARGETS.get(hello.target)
        kind = "emulated" if emulator else "serial"
        return cls(
            target=hello.target,
            kind="simulated" if hello.flags & wire.DeviceFlag.SIMULATED else kind,
            chip=known.title if known else hello.target,
            revision=hello.chip_revision,
            port=port,
            app_sha256=hello.app_sha256.hex(),
            boot_nonce=f"{hello.boot_nonce:016x}",
            idf_version=hello.idf_version,
            espdl_version=hello.espdl_version,
            app_version=hello.app_version,
            cpu_mhz=hello.cpu_mhz,
            measures_time=bool(hello.flags & wire.DeviceFlag.MEASURES_TIME) and not emulator,
            memory=hello.memory,
            max_upload=hello.max_upload,
            emulator=emulator,
        )


@dataclass(frozen=True)
class StoredModel:
    """A model in the device's ``models`` partition: its *size* in bytes, the device's hash, hex."""

    name: str
    size: int
    sha256: str


def edl_bytes(data: bytes) -> bytes:
    """The part of an ``.espdl`` file that counts: header and announced data, no padding.

    Raises:
        ArtifactError: Not an EDL file, or cut short.
    """
    header = _EDL_HEADER_BYTES.get(data[:4])
    if header is None or len(data) < header:
        raise ArtifactError(f"not an .espdl model: it starts with {data[:4]!r}", offset=0)
    (length,) = struct.unpack_from("<I", data, 8)
    if len(data) < header + length:
        raise ArtifactError(
            f"the model is cut short: {header + length} bytes announced, {len(data)} there",
            offset=8,
        )
    return data[: header + length]


def model_digest(data: bytes) -> str:
    """SHA-256 (hex) that a device must report for the model *data*; raises as :func:`edl_bytes`."""
    return hashlib.sha256(edl_bytes(data)).hexdigest()


class Session:
    """Requests to a greeted device. One thread at a time.

    Args:
        transport: A transport on which :meth:`Transport.greet` has succeeded.
        info: What the greeting said.
        expected: SHA-256 (hex) by name of the models that were flashed.
    """

    def __init__(self, transport: Transport, info: DeviceInfo, expected: Mapping[str, str]) -> None:
        self.info = info
        self._transport = transport
        self._expected = dict(expected)
        self.uploaded_bytes = 0
        if transport.hello is None:
            raise ValueError("the transport has not greeted the device")
        self._hello = transport.hello

    # -- models ----------------------------------------------------------------

    def models(self) -> tuple[StoredModel, ...]:
        """List the ``models`` partition, with hashes computed on the device."""
        return read_list(
            self._transport,
            lambda first: wire.ListModels(first=first),
            wire.ListModelsReply,
            lambda page: [StoredModel(m.name, m.size, m.sha256.hex()) for m in page.models],
            self._transport.timing.slow_reply_s,
        )

    def load(self, name: str, expected: bytes | str | None = None) -> Model:
        """Load a model of the ``models`` partition; nothing is sent again.

        Args:
            name: Its name in the package.
            expected: The model's bytes or their SHA-256 (hex); None means those that this
                session flashed.

        Raises:
            ValueError: What to expect is not known.
            StaleArtifactError: The device loaded other bytes.
            RequestError: There is no such model, or ESP-DL refuses it.
        """
        digest = model_digest(expected) if isinstance(expected, bytes) else expected
        digest = digest or self._expected.get(name)
        if digest is None:
            raise ValueError(f"no expected hash for model {name!r}: flash it, or pass its bytes")
        return self._load(name, wire.Load(name=name), wire.LoadReply, digest)

    def upload(self, data: bytes, name: str = "uploaded") -> Model:
        """Send a model into the device's memory and load it.

        Args:
            data: An ``.espdl`` file.
            name: What the device calls it.

        Raises:
            ArtifactError: *data* is no ``.espdl`` file.
            StaleArtifactError: The device loaded other bytes.
            RequestError: It does not fit, or ESP-DL refuses it.
        """
        model = edl_bytes(data)
        digest = hashlib.sha256(model)
        begin = wire.UploadBegin(size=len(model), sha256=digest.digest(), name=name)
        try:
            self._transport.ask(begin, wire.UploadBeginReply)
        except RequestError as error:
            error.hint = (
                "its memory has no room for this model: keep it in flash, --hil-model-store flash, "
                "with few models at once (-k)"
            )
            raise
        piece = self._hello.max_payload - _UPLOAD_FIELDS
        pending = [
            self._transport.submit(wire.UploadData(offset=at, data=model[at : at + piece]))
            for at in range(0, len(model), piece)
        ]
        try:
            for at, sent in zip(range(0, len(model), piece), pending, strict=True):
                reply = self._transport.expect(sent, wire.UploadDataReply)
                with self._transport.checking("an upload"):
                    check_size("arrived", reply.next_offset, min(at + piece, len(model)))
        except RequestError:
            self._transport.drain()
            raise
        self.uploaded_bytes += len(model)
        return self._load(name, wire.UploadEnd(), wire.UploadEndReply, digest.hexdigest())

    def _load(
        self, name: str, request: wire.Message, kind: type[wire.Loaded], digest: str
    ) -> Model:
        loaded = self._transport.ask(request, kind, self._transport.timing.slow_reply_s)
        if not loaded.handle:
            raise self._transport.failures.broken(f"model {name!r} is loaded as handle 0")
        model = Model(self._transport, name, loaded)
        if loaded.sha256.hex() != digest:
            model.unload()
            raise StaleArtifactError(
                f"model {name!r}: the device loaded bytes with hash {loaded.sha256.hex()[:16]}…, "
                f"meant were {digest[:16]}…",
                port=self.info.port,
                hint="the models partition is stale: flash it again",
            )
        return model

    # -- the device --------------------------------------------------------------

    def memory(self) -> wire.Memory:
        """The heap now, bytes."""
        return self._transport.ask(wire.QueryMemory(), wire.QueryMemoryReply).memory

    def usage(self) -> wire.QueryUsageReply | None:
        """What the model that was loaded last has cost so far; None from a firmware without it."""
        try:
            return self._transport.ask(wire.QueryUsage(), wire.QueryUsageReply)
        except RequestError as error:
            if error.code != wire.ErrorCode.UNKNOWN_TYPE.name:
                raise
            return None

    def reboot(self) -> None:
        """Ask the firmware to restart; the session ends with it."""
        self._transport.ask(wire.Reboot(), wire.RebootReply)
