"""The session against the firmware core: ESP-DL's golden vectors, hashes, damaged lines."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from espdl_hil.device import stream
from espdl_hil.device.dut import Dut, DutConfig
from espdl_hil.device.errors import RequestError, StaleArtifactError, TransportError
from espdl_hil.device.session import edl_bytes, model_digest
from espdl_hil.errors import ArtifactError
from espdl_hil.simulator.devkit import Devkit
from espdl_hil.simulator.faults import CorruptBytes, DropBytes, DuplicateBytes, StepFault
from espdl_hil.simulator.runner import RunnerError

from .conftest import QUICK, Golden


@pytest.fixture(scope="module")
def shared(tmp_path_factory, flashed, build_dir, package):
    """One DUT for tests that leave it as it was."""
    file = Path(shutil.copy(flashed, tmp_path_factory.mktemp("shared") / "flash.bin"))
    with (
        Devkit("esp32s3", flash_file=file) as kit,
        Dut(DutConfig("esp32s3", build_dir, port=kit.url, timing=QUICK), models=package) as dut,
    ):
        yield kit, dut


@pytest.fixture
def dut(shared):
    kit, dut = shared
    yield dut
    kit.clear()


@pytest.fixture
def kit(shared):
    return shared[0]


@pytest.fixture
def model(dut):
    loaded = dut.session.load("streaming")
    yield loaded
    loaded.unload()


def differing(results, golden):
    return sum(
        int(np.count_nonzero(result.outputs[name] != golden.tensor(step, "out", name)))
        for step, result in enumerate(results)
        for name in golden.outputs
    )


# -- who it is -------------------------------------------------------------------


def test_the_device_introduces_itself(dut):
    info = dut.info
    assert (info.target, info.kind, info.chip, info.revision) == (
        "esp32s3",
        "simulated",
        "ESP32-S3",
        2,
    )
    assert not info.measures_time
    assert info.port == dut.config.port
    assert info.port.startswith("rfc2217://")
    assert len(info.app_sha256) == 64
    assert len(info.boot_nonce) == 16


def test_the_stored_models_are_listed_with_their_hashes(dut, streaming, offline):
    assert [(m.name, m.sha256) for m in dut.session.models()] == [
        ("streaming", model_digest(streaming.model)),
        ("offline", model_digest(offline.model)),
    ]


# -- running ---------------------------------------------------------------------


def test_a_stream_equals_espdls_kernels(model, streaming):
    results = model.stream(streaming.chunks, reset=True)
    assert len(results) == len(streaming.steps) > 8
    assert differing(results, streaming) == 0
    assert all(result.latency_us is None for result in results)
    assert not any(result.unwritten or result.suspect for result in results)


def test_packets_of_several_steps_give_what_single_ones_give(dut, model, streaming, monkeypatch):
    def packets():
        before = dut.session._transport._next_seq
        results = model.stream(streaming.chunks, reset=True)
        assert differing(results, streaming) == 0
        return dut.session._transport._next_seq - before - 1  # START

    together = packets()
    monkeypatch.setattr(stream, "MAX_STEPS", 1)
    assert packets() == len(streaming.chunks) > together * 2


class FailsInItsFourthStep(StepFault):
    def arrived(self, step, inputs, before):
        if step == 3:
            raise RunnerError("RUN_FAILED", "on purpose")


def test_a_step_that_fails_within_a_packet_is_named(kit, dut, streaming):
    kit.inject(FailsInItsFourthStep())
    model = dut.session.load("streaming")
    with pytest.raises(
        RequestError, match=r"chunk 3: Chunk was refused: RUN_FAILED \(on purpose\)"
    ):
        model.stream(streaming.chunks, reset=True)
    model.unload()


def test_a_wrong_chunk_is_seen(model, streaming):
    chunks = list(streaming.chunks)
    chunks[0], chunks[1] = chunks[1], chunks[0]
    assert differing(model.stream(chunks, reset=True), streaming) > 0


def test_state_lasts_until_reset(model, streaming):
    half = len(streaming.chunks) // 2
    parts = model.stream(streaming.chunks[:half], reset=True)
    parts += model.stream(streaming.chunks[half:])
    assert differing(parts, streaming) == 0
    assert differing(model.stream(streaming.chunks), streaming) > 0
    model.reset()
    assert differing(model.stream(streaming.chunks), streaming) == 0


def test_an_offline_model_runs_whole(dut, offline):
    model = dut.session.load("offline")
    assert differing([model.run(offline.chunks[0])], offline) == 0
    model.unload()


def test_an_upload_runs_like_a_stored_model(dut, streaming):
    model = dut.session.upload(streaming.model, "fresh")
    assert model.sha256 == model_digest(streaming.model)
    assert differing(model.stream(streaming.chunks, reset=True), streaming) == 0
    model.unload()


def test_two_models_interleave(dut, model, streaming, offline):
    other = dut.session.load("offline")
    results = []
    for chunk in streaming.chunks:
        results += model.stream([chunk])
        other.run(offline.chunks[0])
    assert differing(results, streaming) == 0
    other.unload()


def test_it_describes_itself(model, streaming):
    (given,) = model.describe().inputs
    (made,) = model.describe().outputs
    chunk = streaming.chunks[0][given.name]
    assert (given.dtype, given.shape) == (chunk.dtype, chunk.shape)
    assert made.name in streaming.outputs
    assert made.exponent == streaming.index["streams"][0]["exponents"][made.name]
    assert set(streaming.order) <= set(model.intermediates())


def test_watched_tensors_come_with_each_step(model, streaming):
    names = list(model.intermediates())
    model.watch(names)
    results = model.stream(streaming.chunks, reset=True)
    for step, result in enumerate(results):
        for name in streaming.order:
            np.testing.assert_array_equal(result.watched[name], streaming.tensor(step, "out", name))
    model.watch(names, digests=True)
    digests = model.stream(streaming.chunks, reset=True)
    assert digests[3].watched[names[0]] != digests[4].watched[names[0]]
    model.watch(())
    assert model.stream(streaming.chunks[:1], reset=True)[0].watched == {}


def test_what_exceeds_a_packet_travels_in_pieces(config, devkit, monkeypatch):
    monkeypatch.setattr("espdl_hil.simulator.core.MAX_PAYLOAD_BYTES", 1024)
    large = Golden("avgpool2d.esp32s3.int16")  # 8112 bytes in, 2352 out
    with Dut(config) as own:
        own.reset()  # a core that was started before does not know of it
        assert own.session._hello.max_payload == 1024
        model = own.session.upload(large.model)
        model.watch([*large.index["inputs"], *large.order])
        results = model.stream(large.chunks * 5)
        devkit.inject(CorruptBytes(rate=5e-5, seed=7))
        results += model.stream(large.chunks * 5)
        devkit.clear()
        assert own.session._transport.stats["damaged"] > 0
        for result in results:
            assert differing([result], large) == 0
            for name in large.index["inputs"]:
                np.testing.assert_array_equal(result.watched[name], large.chunks[0][name])
        np.testing.assert_array_equal(
            model.read(large.outputs[0]), results[-1].outputs[large.outputs[0]]
        )


def test_any_tensor_of_the_last_step_is_read(model, streaming):
    model.stream(streaming.chunks, reset=True, retain=True)
    last = streaming.steps[-1]
    for name in streaming.order:
        np.testing.assert_array_equal(model.read(name), streaming.tensor(last, "out", name))
    with pytest.raises(ValueError, match=r"no tensor 'nonsense'; there are: .*Relu"):
        model.read("nonsense")


def test_memory_is_taken_and_given_back(dut, streaming):
    before = dut.session.memory().psram_free
    model = dut.session.upload(streaming.model)
    assert dut.session.memory().psram_free < before
    model.unload()
    assert dut.session.memory().psram_free == before
    with pytest.raises(RequestError, match="BAD_HANDLE"):
        model.reset()


def test_a_warm_verdict_costs_little(dut, streaming, offline):
    def verdict():
        chunked = dut.session.load("streaming")
        whole = dut.session.load("offline")
        assert differing(chunked.stream(streaming.chunks, reset=True), streaming) == 0
        assert differing([whole.run(offline.chunks[0])], offline) == 0
        chunked.unload()
        whole.unload()

    verdict()
    took_s = []
    for _ in range(3):
        started = time.monotonic()
        verdict()
        took_s.append(time.monotonic() - started)
    assert min(took_s) < 0.3, took_s


# -- what is refused ---------------------------------------------------------------


def test_inputs_must_fit_exactly(model, streaming):
    (name,) = streaming.chunks[0]
    chunk = streaming.chunks[0][name]
    with pytest.raises(ValueError, match=rf"'{name}' is int8\[1, 3, 16\], got int16\[1, 3, 16\]"):
        model.stream([{name: chunk.astype(np.int16)}])
    with pytest.raises(ValueError, match=r"got int8\[1, 16, 3\]"):
        model.stream([{name: chunk.reshape(1, 16, 3)}])
    with pytest.raises(ValueError, match=rf"inputs are other; expected {name}"):
        model.stream([{"other": chunk}])
    assert differing(model.stream(streaming.chunks, reset=True), streaming) == 0


def test_the_firmware_refuses_with_its_own_words(dut):
    with pytest.raises(RequestError) as caught:
        dut.session.load("nobody", expected="0" * 64)
    assert caught.value.code == "NO_SUCH_MODEL"
    assert "Load was refused: NO_SUCH_MODEL" in str(caught.value)


def test_a_bad_upload_is_refused_and_the_session_goes_on(dut, streaming):
    with pytest.raises(ArtifactError, match="cut short"):
        dut.session.upload(streaming.model[:100])
    with pytest.raises(ArtifactError, match=r"not an \.espdl model"):
        dut.session.upload(b"version https://git-lfs")
    broken = bytearray(streaming.model)
    broken[16:24] = b"\xff" * 8
    with pytest.raises(RequestError, match="LOAD_FAILED"):
        dut.session.upload(bytes(broken))
    dut.session.upload(streaming.model).unload()


def test_a_model_without_known_bytes_is_not_trusted(dut, model):
    dut.session._expected.pop("offline")
    with pytest.raises(ValueError, match="no expected hash for model 'offline'"):
        dut.session.load("offline")
    dut.session._expected["offline"] = "0" * 64  # put back by the next test
    with pytest.raises(StaleArtifactError, match=r"meant were 00000000"):
        dut.session.load("offline")
    dut.session._expected.update({m.name: m.sha256 for m in dut.session.models()})


def test_another_file_than_the_flashed_one_is_stale(dut, offline):
    with pytest.raises(StaleArtifactError) as caught:
        dut.session.load("streaming", expected=offline.model)
    assert model_digest(offline.model)[:16] in str(caught.value)
    assert "flash it again" in str(caught.value)


def test_a_model_that_changed_under_the_session_is_stale(model, streaming):
    model.sha256 = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(StaleArtifactError, match="the device runs bytes with hash"):
        model.stream(streaming.chunks)


def test_a_boot_that_was_not_greeted_is_stale(dut, model, streaming, monkeypatch):
    from dataclasses import replace

    transport = dut.session._transport
    monkeypatch.setattr(transport, "hello", replace(transport.hello, boot_nonce=1))
    with pytest.raises(StaleArtifactError, match="has restarted since it was greeted"):
        model.stream(streaming.chunks)


def test_padding_does_not_change_a_models_hash(streaming):
    assert edl_bytes(streaming.model + bytes(7)) == edl_bytes(streaming.model)
    assert model_digest(streaming.model + bytes(7)) == model_digest(streaming.model)


# -- damaged lines -------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        CorruptBytes(rate=2e-4, seed=1),
        DropBytes(rate=2e-4, seed=2),
        DuplicateBytes(rate=2e-4, seed=3),
        CorruptBytes(rate=1e-3, seed=4, direction="to_device"),
        DropBytes(rate=1e-3, seed=5, direction="to_host"),
    ],
    ids=["corrupt", "drop", "duplicate", "corrupt-to-device", "drop-to-host"],
)
def test_repeats_mend_a_damaged_line(fault, kit, dut, model, streaming):
    stats = dut.session._transport.stats
    before = dict(stats)
    kit.inject(fault)
    for _ in range(16):  # enough bytes that each fault hits some
        assert differing(model.stream(streaming.chunks, reset=True), streaming) == 0
    kit.clear()
    mended = sum(stats[what] - before.get(what, 0) for what in ("repeated", "resent", "rejected"))
    assert mended > 0


def test_a_hopeless_line_ends_in_time_and_says_what_was_damaged(kit, streaming, config, devkit):
    with Dut(config) as own:
        model = own.session.upload(streaming.model)
        devkit.inject(CorruptBytes(rate=0.2, seed=6))
        started = time.monotonic()
        with pytest.raises(TransportError) as caught:
            model.stream(streaming.chunks * 50, reset=True)
        assert time.monotonic() - started < 10
        assert "no reply to" in str(caught.value)
        assert "frames damaged" in str(caught.value)
