"""The compiled firmware core with the interpreter behind it, against ESP-DL's own numbers."""

from __future__ import annotations

import zlib
from dataclasses import replace

import pytest

from espdl_hil.espdl import read_package, write_package
from espdl_hil.wire import messages
from espdl_hil.wire.messages import ErrorCode, TensorKind, WatchItem, WatchMode

CASES = [
    f"stream_residual.streaming.{target}.{width}"
    for target in ("esp32s3", "esp32p4")
    for width in ("int8", "int16")
]


@pytest.fixture(params=CASES)
def case(request, golden, bench):
    golden = golden(request.param)
    target = request.param.split(".")[2]
    bench = bench(target, {"model": golden.model})
    return golden, bench


def test_hello_tells_the_facts(case):
    _, bench = case
    hello = bench.wire.ask(messages.Hello())
    assert bench.wire.events == [messages.Booted(0x1122334455667788)]
    assert hello.boot_nonce == 0x1122334455667788
    assert hello.app_sha256 == bytes(range(32))
    assert (hello.idf_version, hello.espdl_version, hello.app_version) == ("idf", "espdl", "app")
    flags = messages.DeviceFlag
    assert flags(hello.flags) == flags.SIMULATED | flags.PULSES  # and it measures nothing


def test_every_chunk_is_what_esp_dl_computes(case):
    golden, bench = case
    loaded = bench.wire.load("model")
    for _ in range(2):  # the second time shows that the state is zeroed
        replies = bench.wire.stream(loaded.handle, [golden.chunk(step) for step in golden.steps])
        assert [reply.data for reply in replies] == [golden.result(step) for step in golden.steps]
        assert all(reply.unwritten_tensors == 0 for reply in replies)
        assert all(reply.flags & messages.ChunkFlag.NO_TIMING for reply in replies)


def test_state_goes_on_without_reset(case):
    golden, bench = case
    loaded = bench.wire.load("model")
    whole = [golden.chunk(step) for step in golden.steps]
    bench.wire.stream(loaded.handle, whole)
    again = bench.wire.stream(loaded.handle, whole, reset=False)
    assert again[0].data != golden.result(0)


def test_every_node_can_be_watched_and_read(case):
    golden, bench = case
    loaded = bench.wire.load("model")
    items = tuple(WatchItem(WatchMode.VALUE, name) for name in golden.order)
    described = bench.wire.ask(messages.Watch(loaded.handle, items)).tensors
    assert [tensor.bytes for tensor in described] == [
        golden.tensor(0, "out", name).nbytes for name in golden.order
    ]
    reply = bench.wire.stream(loaded.handle, [golden.chunk(0)])[0]
    values = b"".join(golden.tensor(0, "out", name).tobytes() for name in golden.order)
    assert reply.data == golden.result(0) + values
    digests = tuple(WatchItem(WatchMode.DIGEST, name) for name in golden.order)
    bench.wire.ask(messages.Watch(loaded.handle, digests))
    reply = bench.wire.stream(loaded.handle, [golden.chunk(0)])[0]
    crcs = [zlib.crc32(golden.tensor(0, "out", name).tobytes()) for name in golden.order]
    assert reply.data == golden.result(0) + b"".join(c.to_bytes(4, "little") for c in crcs)


def test_a_node_is_read_in_pieces(case):
    golden, bench = case
    loaded = bench.wire.load("model")
    bench.wire.ask(messages.Start(loaded.handle, messages.StartFlag.RETAIN))
    bench.wire.stream(loaded.handle, [golden.chunk(0)])
    name = golden.order[0]
    value = golden.tensor(0, "out", name).tobytes()
    bench.wire.ask(messages.Watch(loaded.handle, (WatchItem(WatchMode.VALUE, name),)))
    bench.wire.stream(loaded.handle, [golden.chunk(0)])
    pieces = [
        bench.wire.ask(messages.ReadTensor(loaded.handle, offset, 7, name)).data
        for offset in range(0, len(value), 7)
    ]
    assert b"".join(pieces) == value


def test_describe_matches_the_file(case):
    golden, bench = case
    loaded = bench.wire.load("model")
    inputs = bench.wire.ask(messages.Describe(loaded.handle, TensorKind.INPUT, 0)).tensors
    assert [tensor.name for tensor in inputs] == golden.inputs
    first = golden.tensor(0, "in", golden.inputs[0])
    assert inputs[0].dims == first.shape
    assert inputs[0].bytes == first.nbytes
    nodes = bench.wire.ask(messages.Describe(loaded.handle, TensorKind.NODE_OUTPUT, 0)).tensors
    assert [tensor.name for tensor in nodes] == golden.order


def test_the_hash_is_of_the_flashed_bytes(case):
    golden, bench = case
    package = write_package([("model", golden.model)])
    assert read_package(package)[0].data == golden.model
    loaded = bench.wire.load("model")
    listed = bench.wire.ask(messages.ListModels(0)).models[0]
    assert loaded.sha256 == listed.sha256


def test_a_file_that_is_no_model(bench):
    garbage = b"EDL2" + bytes(4) + (64).to_bytes(4, "little") + bytes(4) + b"\x07" * 64
    wire = bench("esp32s3", {"bad": garbage}).wire
    error = wire.load("bad")
    assert error.code == ErrorCode.LOAD_FAILED
    assert error.text != ""


def test_models_take_memory_until_there_is_none(golden, bench):
    model = golden("relu.esp32s3.int8").model
    bench = bench("esp32s3", {"model": model})
    bench.wire.load("model")
    memory = bench.wire.ask(messages.QueryMemory()).memory
    assert memory.psram_total - memory.psram_free == len(model)
    bench.runner._chip = replace(bench.runner._chip, psram_bytes=2 * len(model) - 1)
    error = bench.wire.ask(messages.Load("model"))
    assert error.code == ErrorCode.OUT_OF_MEMORY
    assert error.text == (f"model has {len(model)} bytes, {len(model) - 1} bytes of PSRAM are free")


def test_unloading_gives_the_memory_back(golden, bench):
    bench = bench("esp32s3", {"model": golden("relu.esp32s3.int8").model})
    loaded = bench.wire.load("model")
    bench.wire.ask(messages.Unload(loaded.handle))
    memory = bench.wire.ask(messages.QueryMemory()).memory
    assert memory.psram_free == memory.psram_total
    error = bench.wire.ask(messages.Reset(loaded.handle))
    assert error.code == ErrorCode.BAD_HANDLE


def test_a_package_that_is_damaged(bench, golden):
    package = bytearray(write_package([("model", golden("relu.esp32s3.int8").model)]))
    package[-40] ^= 1
    bench = bench("esp32s3", bytes(package))
    assert bench.core.store_error != ""
    bench.wire.ask(messages.Hello())
    assert bench.wire.ask(messages.ListModels(0)).code == ErrorCode.BAD_PACKAGE


def test_a_reboot_is_handed_to_the_devkit(golden, bench):
    bench = bench("esp32s3", {})
    bench.wire.ask(messages.Hello())
    assert not bench.core.reboot_requested
    assert bench.wire.ask(messages.Reboot()) == messages.RebootReply()
    assert bench.core.reboot_requested
