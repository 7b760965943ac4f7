"""Devices that lie: each lie ends in a documented error, soon, in bounded memory."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from espdl_hil.device.dut import Dut, DutConfig
from espdl_hil.device.firmware import Firmware
from espdl_hil.device.timing import Timing
from espdl_hil.errors import DeviceError
from espdl_hil.wire.framing import Packet, encode_packet
from espdl_hil.wire.messages import (
    BindState,
    Chunk,
    Describe,
    ErrorReply,
    Hello,
    ListModels,
    ModelInfo,
    QueryMemory,
    ReadResult,
    ReadTensor,
    Reject,
    Reset,
    Start,
    Unload,
    UploadBegin,
    UploadData,
    UploadEnd,
    Watch,
    encode,
)

from .liar import BLOCK, DIGEST, MODEL, NONCE, PAYLOAD, Liar, booted, on, raw, tensor

if TYPE_CHECKING:
    from collections.abc import Callable

TIMING = Timing(
    boot_s=0.4,
    hello_interval_s=0.1,
    repeat_s=0.1,
    reply_s=0.5,
    slow_reply_s=0.5,
    list_s=1.0,
    step_s=0.5,
)
LIMIT_S = 20.0
LIMIT_MEMORY = 64 << 20
ANY = 0x41


def session(dut: Dut) -> None:
    """Everything that the harness asks of a device."""
    dut.session.memory()
    dut.session.models()
    model = dut.session.upload(MODEL)
    model.describe()
    model.intermediates()
    model.reset()
    model.bind_state({})
    model.watch(["mid"])
    model.stream([{"x": np.zeros((1, BLOCK), np.int8)}] * 3, reset=True)
    model.read("y")
    model.unload()


def endless(request: Any, reply: Any) -> Any:
    """Pages of one entry, and no last one."""
    if isinstance(request, ListModels):
        one = ModelInfo(1, DIGEST, f"m{request.first}")
        return type(reply)(total=0xFFFF, first=request.first, models=(one,))
    return reply


def dripping(request: Any, reply: Any) -> Any:
    """The same, of tensors, each just within its deadline."""
    if isinstance(request, Describe):
        time.sleep(0.05)
        found = (tensor(f"t{request.first}", 4),)
        return type(reply)(request.handle, request.kind, 60000, request.first, found)
    return reply


def wrong_sequence(request: Any, reply: Any) -> Any:
    return [encode(reply, session=1, seq=77)]


def after_hello(frames: Callable[[], list[bytes]]) -> Callable[[Any, Any], Any]:
    return lambda request, reply: reply if isinstance(request, Hello) else frames()


def big(size: int) -> Any:
    return (tensor("y", size),)


def named(name: bytes) -> Callable[[bytes], bytes]:
    """Replace the name ``one`` in a list of models, by one of the same length or not."""
    return lambda data: data.replace(b"\x03\0one", len(name).to_bytes(2, "little") + name)


def output(**changes: Any) -> Callable[[Any, Any], Any]:
    """Lie about the output's description."""
    from dataclasses import replace

    def lie(request: Any, reply: Any) -> Any:
        if isinstance(request, Describe) and request.kind == 1:
            return replace(reply, tensors=(replace(tensor("y"), **changes),))
        return reply

    return lie


LIES: dict[str, tuple[Any, str]] = {
    # greeting
    "silent": (lambda *_: None, "no answer to HELLO"),
    "wrong sequence": (wrong_sequence, "no answer to HELLO"),
    "payload of 4": (on(Hello, max_payload=4), "max_payload is 4, expected 1024"),
    "payload of 0": (on(Hello, max_payload=0), "max_payload is 0"),
    "payload of 4 GiB": (on(Hello, max_payload=2**32 - 1), "max_payload is 4294967295"),
    "window of 0": (on(Hello, window=0), "window is 0, expected 1 to 64"),
    "window of 255": (on(Hello, window=255), "window is 255"),
    "names of 0": (on(Hello, max_name=0), "max_name is 0"),
    "names of 65535": (on(Hello, max_name=65535), "max_name is 65535"),
    "no models": (on(Hello, max_models=0), "max_models is 0"),
    "another target": (on(Hello, target="esp32p4"), "the device is an esp32p4"),
    "unknown target": (on(Hello, target="x" * 900), "expected esp32s3"),
    "another app": (on(Hello, app_sha256=bytes(32)), "runs an app with hash 0000"),
    "escape in target": (on(Hello, target="\x1b[2Jesp"), "control characters"),
    "version not UTF-8": (raw(Hello, lambda d: d[:-1] + b"\xff"), "not UTF-8"),
    "short HELLO": (raw(Hello, lambda d: d[:-1]), "ends early"),
    "long HELLO": (raw(Hello, lambda d: d + b"x"), "left over"),
    "empty HELLO": (raw(Hello, lambda _: b""), "ends early"),
    "HELLO refused": (
        lambda request, _: ErrorReply(1, request.TYPE, 0, "no"),
        r"Hello was refused: BAD_REQUEST \(no\)",
    ),
    "HELLO answered with another": (
        lambda request, reply: Reject(1, 0) if isinstance(request, Hello) else reply,
        "no answer to HELLO",
    ),
    # whole session
    "goes silent": (after_hello(list), "no reply to ListModels"),
    "restarts": (after_hello(lambda: [booted(1)]), "the device restarted"),
    "rejects for ever": (
        after_hello(lambda: [encode(Reject(2, 1), session=0, seq=0)] * 3),
        "no reply to ListModels",
    ),
    "rejects the future": (
        after_hello(lambda: [encode(Reject(1, 10**6), session=0, seq=0)] * 3),
        "no reply to ListModels",
    ),
    "unknown type": (
        after_hello(lambda: [encode_packet(Packet(ANY, 9, 9, b"", 8))]),
        "no reply to ListModels",
    ),
    "floods text": (after_hello(lambda: [b"A" * (1 << 20)] * 8), "no reply to ListModels"),
    "floods zeros": (after_hello(lambda: [bytes(1 << 20)] * 8), "no reply to ListModels"),
    "floods frames": (
        after_hello(lambda: [encode_packet(Packet(0x8F, 3, 3, bytes(900), 8))] * 2000),
        "no reply to ListModels",
    ),
    "frame without end": (
        after_hello(lambda: [encode_packet(Packet(0x8F, 3, 3, bytes(60000), 8))[:-9]] * 9),
        "no reply to ListModels",
    ),
    "says it crashed": (
        after_hello(lambda: [b"\r\nGuru Meditation Error: Core  0 panic'ed (X). \r\n" * 9]),
        "crashed|no reply",
    ),
    "unknown error code": (
        lambda request, reply: (
            ErrorReply(9999, 1, 0, "x") if isinstance(request, QueryMemory) else reply
        ),
        "error 9999",
    ),
    "escape in an error": (
        lambda request, reply: (
            ErrorReply(1, 1, 0, "\x1b]0;owned\x07") if isinstance(request, QueryMemory) else reply
        ),
        "control characters",
    ),
    "another session": (
        lambda request, reply: (
            ErrorReply(3, 1, 0, "") if isinstance(request, QueryMemory) else reply
        ),
        "another program opened a session",
    ),
    "short memory": (raw(QueryMemory, lambda d: d[:-1]), "ends early"),
    # lists
    "total without end": (on(ListModels, total=2**32 - 1), "4294967295 entries"),
    "pages without end": (endless, "entries after 1 s"),
    "pages that drip": (dripping, "entries after 1 s"),
    "empty page": (on(ListModels, models=()), "0 entries came of 2"),
    "total too small": (on(ListModels, total=1), "2 entries came of 1"),
    "page from elsewhere": (on(ListModels, first=1), "first 1, asked for 0"),
    "name twice": (
        on(ListModels, models=(ModelInfo(1, DIGEST, "a"), ModelInfo(1, DIGEST, "a"))),
        "two entries have the name 'a'",
    ),
    "name not UTF-8": (raw(ListModels, named(b"\xff\xfe\xfd")), "not UTF-8"),
    "name with escape": (raw(ListModels, named(b"\x1b[m")), "control characters"),
    "name with newline": (raw(ListModels, named(b"a\nb")), "control characters"),
    "name longer than the reply": (
        raw(ListModels, lambda d: d.replace(b"\x03\0one", b"\xff\xffone")),
        "ends early",
    ),
    "count longer than the reply": (
        raw(ListModels, lambda d: d[:8] + b"\xff\xff" + d[10:]),
        "ends early",
    ),
    # upload
    "upload of another size": (on(UploadBegin, size=1), "size 1, asked for 40"),
    "offset behind": (on(UploadData, next_offset=0), "arrived: 0 bytes, expected 40"),
    "offset ahead": (on(UploadData, next_offset=2**32 - 1), "arrived: 4294967295 bytes"),
    "another model": (on(UploadEnd, sha256=bytes(32)), "loaded bytes with hash 0000"),
    "handle 0": (on(UploadEnd, handle=0), "handle 0"),
    "more outputs than loaded": (on(UploadEnd, outputs=9), "has 1 outputs, it was loaded with 9"),
    "fewer inputs than loaded": (on(UploadEnd, inputs=0), "has 1 inputs, it was loaded with 0"),
    # tensors
    "rank 200": (output(dims=(1,) * 200, bytes=1), "rank 200"),
    "dims of 4 Gi": (output(dims=(2**32 - 1,) * 8), "cannot have 2000 bytes"),
    "dims that wrap to 0": (output(dims=(2**31, 2**31, 4), bytes=0), "cannot have 0 bytes"),
    "tensor of 2 GiB": (output(dims=(2**31 - 1,), bytes=2**31 - 1), "more than any chip"),
    "exponent 32767": (output(exponent=32767), "exponent 32767"),
    "exponent -32768": (output(exponent=-32768), "exponent -32768"),
    "type 77": (output(dtype=77), "unknown element type 77"),
    "bytes that differ": (output(bytes=1999), "cannot have 1999 bytes"),
    "tensors of another handle": (on(Describe, handle=9), "handle 9, asked for 1"),
    "tensors of another kind": (on(Describe, kind=2), "kind 2, asked for 0"),
    "reset of another": (on(Reset, handle=2), "handle 2, asked for 1"),
    "bound another": (on(BindState, handle=2), "handle 2, asked for 1"),
    "watch too many": (on(Watch, tensors=big(4) * 3), "zip"),
    "watch bytes": (on(Watch, watch_bytes=1), "watch_bytes: 1 bytes, expected 2000"),
    # streams
    "stream of another model": (on(Start, model_sha256=bytes(32)), "runs bytes with hash 0000"),
    "stream of another boot": (on(Start, boot_nonce=1), "has restarted since it was greeted"),
    "input of 4 GiB": (on(Start, input_bytes=2**32 - 1), "input_bytes: 4294967295"),
    "output of 0": (on(Start, output_bytes=0), "output_bytes: 0 bytes, expected 2000"),
    "result of 4 GiB": (on(Start, result_bytes=2**32 - 1), "result_bytes: 4294967295"),
    "another stream": (on(Chunk, stream=6), "stream 6, asked for 5"),
    "another chunk": (on(Chunk, index=7), "index 7, asked for 0"),
    "nothing executed": (on(Chunk, flags=0), "it was not executed"),
    "fragments executed": (on(Chunk, flags=1), "a fragment was executed"),
    "short result": (on(Chunk, data=b"x", flags=1), "fragment|result"),
    "unwritten nowhere": (
        lambda request, reply: (
            type(reply)(5, request.index, 5, 1, 99, 0, 0, 0, 2 * BLOCK, bytes(PAYLOAD - 30))
            if isinstance(request, Chunk) and request.offset
            else reply
        ),
        "output 99 is unwritten",
    ),
    "result longer than asked": (
        on(ReadResult, data=bytes(PAYLOAD - 4)),
        "the results: 54 bytes left over",
    ),
    "result shorter than asked": (
        on(ReadResult, data=b""),
        "the results: payload of 994 bytes ends early",
    ),
    "result from elsewhere": (on(ReadResult, offset=3), "offset 3, asked for 994"),
    "tensor longer than asked": (
        lambda request, reply: (
            type(reply)(BLOCK, request.offset, bytes(PAYLOAD - 8))
            if isinstance(request, ReadTensor)
            else reply
        ),
        "data: 1016 bytes, expected 984",
    ),
    "tensor that ends": (on(ReadTensor, data=b""), "data: 0 bytes, expected 1016"),
    "tensor of one byte each": (on(ReadTensor, data=b"x"), "data: 1 bytes, expected 1016"),
    "tensor of another size": (on(ReadTensor, total=2**32 - 1), "total: 4294967295"),
    "unloaded another": (on(Unload, handle=8), "handle 8, asked for 1"),
}


@pytest.fixture(autouse=True)
def own_locks(tmp_path, monkeypatch):
    monkeypatch.setenv("ESPDL_HIL_RUNTIME_DIR", str(tmp_path / "runtime"))


@pytest.fixture(scope="module")
def app_sha256(build_dir):
    return bytes.fromhex(Firmware.read(build_dir, "esp32s3").app_sha256)


@pytest.fixture
def attach(start_server, build_dir):
    def attach_(liar: Any) -> Dut:
        port = f"socket://{start_server(liar.serve).address}"
        return Dut(DutConfig("esp32s3", build_dir, port=port, timing=TIMING))

    return attach_


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def test_there_are_sixty_kinds_and_more():
    assert len(LIES) >= 60


def test_the_honest_device_is_believed(attach, app_sha256):
    with attach(Liar(app_sha256)) as dut:
        session(dut)


@pytest.mark.parametrize("name", LIES)
def test_a_lie_is_told(name, attach, app_sha256):
    lie, why = LIES[name]
    before, started = peak_bytes(), time.monotonic()
    with pytest.raises(DeviceError, match=why) as caught, attach(Liar(app_sha256, lie)) as dut:
        session(dut)
    assert time.monotonic() - started < LIMIT_S
    assert peak_bytes() - before < LIMIT_MEMORY
    assert "cannot be reset" not in str(caught.value)
    assert all(c.isprintable() or c == "\n" for c in str(caught.value))


def test_a_hello_of_an_older_boot_is_told_by_its_nonce(attach, app_sha256):
    liar = Liar(app_sha256, greeting=booted(NONCE + 1))
    with pytest.raises(DeviceError, match="the device restarted"), attach(liar):
        pass
    with attach(Liar(app_sha256, greeting=booted(NONCE))):
        pass


def test_a_device_that_does_not_restart_when_told_is_noticed(attach, app_sha256):
    with attach(Liar(app_sha256)) as dut, pytest.raises(DeviceError, match="by the boot before"):
        dut.recover("a reason")


def test_a_socket_that_closes_is_told(attach, app_sha256):
    class Closing(Liar):
        def serve(self, connection: Any) -> None:
            connection.recv(1)

    with pytest.raises(DeviceError, match=r"the port failed|no answer to HELLO") as caught:
        attach(Closing(app_sha256)).__enter__()
    assert "cannot be reset" not in str(caught.value)
