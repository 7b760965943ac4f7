"""Model files with a few bytes changed."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from espdl_hil.espdl import write_package

GOLDEN = Path(__file__).parents[1] / "golden"
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


def golden_model(name):
    with np.load(GOLDEN / f"{name}.npz") as stored:
        paths = json.loads(stored["index"].tobytes())["tensors"]
        return next(stored[key].tobytes() for key, path in paths.items() if path == "model")


def sound_files():
    models = [golden_model(name) for name in SOURCES]
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
