"""Damaged files give a typed error or a valid run; nothing else, quickly, in bounded memory."""

import struct
import time
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from espdl_hil.errors import ArtifactError
from espdl_hil.espdl import load_graph, read_package, write_package
from espdl_hil.interpreter import load

# One file of each operator family, both widths, streaming and packages of two included.
SOURCES = [
    "add.esp32s3.int8",
    "avgpool2d.esp32p4.int16",
    "clip.esp32s3.int16",
    "concat.esp32p4.int8",
    "convT1d.esp32p4.int8",
    "ds_cnn.esp32s3.int8",
    "dwconv1d_k5_dil_relu.esp32s3.int16",
    "gather.esp32p4.int8",
    "gru_state.esp32p4.int8",
    "layernorm.esp32s3.int8",
    "lstm_hin.esp32s3.int16",
    "matmul_const.esp32p4.int8",
    "maxpool1d.esp32s3.int8",
    "pad_reflect.esp32p4.int8",
    "pc_conv1d.esp32p4.int8",
    "pow2.esp32s3.int8",
    "reducemean.esp32p4.int16",
    "reshape.esp32s3.int8",
    "silu.esp32p4.int16",
    "slice.esp32s3.int8",
    "softmax_mid.esp32p4.int8",
    "split.esp32s3.int8",
    "stream_residual.streaming.esp32s3.int8",
    "stream_stack.streaming.esp32p4.int16",
    "tcn_res.esp32p4.int8",
    "transpose.esp32s3.int8",
    "upsample_nearest.esp32s3.int8",
]
ABSURD = (0, 1, 2, 3, 255, 2**15, 2**20 + 3, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, -1, -(2**63))
MAX_SECONDS = 2.0
# A reader keeps names, numbers and a dozen small objects for each table of 20 bytes or so; the
# raw data is not copied.
MAX_READ_FACTOR, READ_BASE = 64, 256 * 1024


@pytest.fixture(scope="module")
def sources(golden):
    models = [golden(name)[0] for name in SOURCES]
    packages = [
        write_package([("a", first), ("b", second)])
        for first, second in zip(models[::9], models[1::9], strict=False)
    ]
    return models + packages


def flip_bits(data, rng, sources):
    for _ in range(rng.integers(1, 9)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)


def flip_structure(data, rng, sources):
    """Bits of the last tables and the vtables, where most of the structure stands."""
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(16, min(len(data), 400))] ^= 1 << rng.integers(8)


def cut(data, rng, sources):
    del data[rng.integers(len(data)) :]


def cut_and_say_so(data, rng, sources):
    del data[rng.integers(20, len(data)) :]
    struct.pack_into("<I", data, 8, len(data) - 16)


def splice(data, rng, sources):
    """Words of another place, or of another file, where tables may stand."""
    other = data if rng.integers(2) else sources[rng.integers(len(sources))]
    size = 4 * int(rng.integers(1, 24))
    source = 4 * int(rng.integers(max(1, (len(other) - size) // 4)))
    target = 4 * int(rng.integers(max(1, (len(data) - size) // 4)))
    data[target : target + size] = other[source : source + size]


def absurd_number(data, rng, sources):
    value, size = ABSURD[rng.integers(len(ABSURD))], (4, 8)[rng.integers(2)]
    position = 4 * int(rng.integers((len(data) - 8) // 4))
    data[position : position + size] = (value % 256**size).to_bytes(size, "little")


def absurd_dimension(data, rng, sources):
    """Replace a small int64, such as a dimension, an axis or an exponent, by another number."""
    words = np.frombuffer(bytes(data[: len(data) // 4 * 4]), "<i4")
    small = np.flatnonzero((words[:-1] > 0) & (words[:-1] < 2048) & (words[1:] == 0))
    position = 4 * int(small[rng.integers(len(small))]) if len(small) else 16
    value = ABSURD[rng.integers(len(ABSURD))] if rng.integers(2) else int(rng.integers(-70, 70))
    data[position : position + 8] = (value % 2**64).to_bytes(8, "little")


def swap_offsets(data, rng, sources):
    for _ in range(2):
        a, b = (4 * int(rng.integers(4, len(data) // 4 - 1)) for _ in range(2))
        data[a : a + 4], data[b : b + 4] = data[b : b + 4], data[a : a + 4]


def header(data, rng, sources):
    data[rng.integers(16)] = rng.integers(256)


MUTATIONS = [
    flip_bits,
    flip_structure,
    cut,
    cut_and_say_so,
    splice,
    splice,
    absurd_number,
    absurd_dimension,
    absurd_dimension,
    swap_offsets,
    header,
]


def mutate(sources, rng):
    data = bytearray(sources[rng.integers(len(sources))])
    for _ in range(rng.integers(1, 3)):
        mutation = MUTATIONS[rng.integers(len(MUTATIONS))]
        if len(data) > 64:
            mutation(data, rng, sources)
    return bytes(data), mutation.__name__


def noise(rng, info):
    """The full range of an integer type; floats around 1."""
    if info.dtype.kind == "f":
        return rng.standard_normal(info.shape).astype(info.dtype)
    raw = rng.integers(0, 256, info.nbytes, dtype=np.uint8)
    return raw.view(info.dtype).reshape(info.shape)


def run(data, target):
    """Read, check, prepare and step; returns how far it came."""
    try:
        for entry in read_package(data):
            graph = load_graph(entry.data)
            session = load(graph, target)
            rng = np.random.default_rng(0)
            for _ in range(2):
                session.step({info.name: noise(rng, info) for info in session.inputs})
    except ArtifactError as error:
        return type(error).__name__
    return "ran"


def campaign(sources, seed, count):
    rng = np.random.default_rng(seed)
    outcomes, slowest = Counter(), 0.0
    for number in range(count):
        data, kind = mutate(sources, rng)
        start = time.perf_counter()
        try:
            outcome = run(data, ("esp32s3", "esp32p4", "c")[number % 3])
        except Exception as error:
            raise AssertionError(f"mutation {number} of seed {seed} ({kind}): {error!r}") from error
        slowest = max(slowest, time.perf_counter() - start)
        assert slowest <= MAX_SECONDS, f"mutation {number} of seed {seed} took {slowest:.1f} s"
        outcomes[outcome] += 1
    print(f"\n{count} mutated files, seed {seed}: {dict(outcomes)}, slowest {slowest:.2f} s")
    return outcomes


def test_sources_run_unmutated(sources):
    assert [run(data, "c") for data in sources].count("ran") >= 10


def test_mutated_files_give_typed_errors_or_run(sources):
    outcomes = campaign(sources, seed=20260617, count=2000)
    assert outcomes["ArtifactError"] > 500
    assert outcomes["ran"] > 100


@pytest.mark.slow
def test_20000_mutated_files(sources):
    campaign(sources, seed=1, count=20000)


def test_reading_allocates_a_bounded_multiple_of_the_file(sources, writer):
    rng = np.random.default_rng(7)
    files = [*sources, table_bomb(writer)] + [mutate(sources, rng)[0] for _ in range(300)]
    for data in files:
        tracemalloc.start()
        try:
            load_graph(data, model=0)
        except ArtifactError:
            pass
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak <= MAX_READ_FACTOR * len(data) + READ_BASE


def table_bomb(writer):
    """A sound file with a vector of 60,000 offsets to one and the same small table."""
    graph = writer.graph()
    entry = writer.table((0, "text", "key"))
    return writer.finish((7, "table", graph), (8, "tables", [entry] * 60_000))


def test_a_long_text_that_is_listed_over_and_over_is_refused(writer):
    graph = writer.graph()
    entry = writer.table((0, "text", "k" * 4000))
    data = writer.finish((7, "table", graph), (8, "tables", [entry] * 100))
    with pytest.raises(ArtifactError, match="key of metadata 2 of model is one of too many"):
        load_graph(data)
