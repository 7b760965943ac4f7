"""Writes the vectors of this folder: each is about something that only silicon can tell.

``PYTHONPATH=harness python tests/unknowns/make_vectors.py`` from the checkout. What a vector
expects is the interpreter's value; where the interpreter refuses the model, that of exact
arithmetic.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from espdl_hil.errors import UnsupportedOpError
from espdl_hil.espdl import load_graph, pack_filter
from espdl_hil.interpreter import load

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[0] / "espdl"))

from conftest import FlatWriter  # noqa: E402  # the writer of the reader's tests

TEXT, NUMBER, NUMBERS = 3, 2, 7  # attribute types
RNG_SEED = 9


class Graph:
    """A model of a few nodes, as a file and as the arrays that it is fed."""

    def __init__(self, dtype, shape, exponent):
        self.writer = FlatWriter()
        self.dtype, self.width = dtype, {"int8": "S8", "int16": "S16"}[dtype]
        self.inputs = [self.writer.value_info("x", dtype, shape, (exponent,))]
        self.nodes, self.constants, self.infos = [], [], []

    def attribute(self, name, value):
        w = self.writer
        if isinstance(value, str):
            fields = ((3, "i32", TEXT), (6, "bytes", value.encode()))
        elif isinstance(value, int):
            fields = ((3, "i32", NUMBER), (5, "q", value))
        else:
            fields = ((3, "i32", NUMBERS), (11, "array", np.array(value, "<i8")))
        return w.table((0, "text", name), *fields)

    def node(self, op_type, inputs, output, **attributes):
        attributes = {**attributes, "quant_type": self.width}
        found = [self.attribute(name, value) for name, value in attributes.items()]
        self.nodes.append(self.writer.node(output, op_type, inputs, [output], found))

    def constant(self, name, array, exponent):
        self.constants.append(self.writer.tensor(name, array, exponents=(exponent,)))

    def conv(self, x, output, filters, exponent, target, *, kernel=1):
        """A Conv over time; *filters* is (N, K, C)."""
        n, k, c = filters.shape
        stored = pack_filter(filters[:, None], target)
        self.constant(f"{output}.w", stored.reshape(k, c, n), exponent)
        self.node(
            "Conv",
            [x, f"{output}.w"],
            output,
            dilations=[1],
            kernel_shape=[kernel],
            pads=[0, 0],
            strides=[1],
            activation="Linear",
            group=1,
        )

    def info(self, name, shape, exponent):
        return self.writer.value_info(name, self.dtype, shape, (exponent,))

    def finish(self, *outputs, inner=()):
        graph = self.writer.graph(
            nodes=self.nodes,
            constants=self.constants,
            inputs=self.inputs,
            outputs=list(outputs),
            value_info=list(inner),
        )
        return self.writer.finish((7, "table", graph))


def prelu_saturates(target, rng):
    """Products and rescaled positives that leave int8: whether the vector multiply saturates."""
    graph = Graph("int8", (1, 6, 5, 32), -3)
    graph.constant("s", rng.integers(-128, 128, (32, 1, 1)).astype(np.int8), -4)
    graph.node("PRelu", ["x", "s"], "y")
    return graph.finish(graph.info("y", (1, 6, 5, 32), -5)), (1, 6, 5, 32), None


def tail_leaves_40_bits(target, rng):
    """Channels behind the last block of 8, summed beyond 2^39: whether and when they saturate."""
    graph = Graph("int16", (1, 4, 896), -8)
    filters = np.where(rng.random((11, 1, 896)) < 0.9, 32767, -32768).astype(np.int16)
    graph.conv("x", "y", filters, -24, target)
    return graph.finish(graph.info("y", (1, 4, 11), -6)), (1, 4, 896), 32000


def lane_saturates(target, rng):
    """A block of 16 channels of large products: whether a lane saturates at each product."""
    graph = Graph("int8", (1, 6, 64), -4)
    graph.conv("x", "y", rng.integers(90, 128, (24, 1, 64)).astype(np.int8), -7, target)
    return graph.finish(graph.info("y", (1, 6, 24), 2)), (1, 6, 64), 100


def shift_field_wraps(target, rng):
    """A shift one beyond the field's range: exact arithmetic gives nothing but zeros."""
    shift = {"esp32s3": 33, "esp32p4": 32}[target]
    graph = Graph("int8", (1, 4, 32), -shift + 7)
    graph.conv("x", "y", rng.integers(-128, 128, (32, 1, 32)).astype(np.int8), -7, target)
    return graph.finish(graph.info("y", (1, 4, 32), 0)), (1, 4, 32), None


def modes_left_behind(target, rng):
    """Rows that begin at any address, and halves: right only under ESP-DL's own modes in CFG."""
    graph = Graph("int8", (1, 12, 19), -5)
    graph.conv("x", "c", rng.integers(-60, 61, (21, 3, 19)).astype(np.int8), -7, target, kernel=3)
    graph.node(
        "MaxPool",
        ["c"],
        "y",
        ceil_mode=0,
        dilations=[1],
        kernel_shape=[3],
        pads=[1, 1],
        strides=[1],
    )
    made = graph.info("y", (1, 10, 21), -2), graph.info("c", (1, 10, 21), -2)
    return graph.finish(made[0], inner=[made[1]]), (1, 12, 19), None


UNKNOWNS = {
    # name: (what it settles, targets, width, maker)
    "prelu_saturates": ("saturation of PReLU at int8", ("esp32p4",), "int8", prelu_saturates),
    "tail_leaves_40_bits": (
        "accumulators of remainder channels at 2^39",
        ("esp32p4", "esp32s3"),
        "int16",
        tail_leaves_40_bits,
    ),
    "lane_saturates": ("20-bit lanes that saturate", ("esp32s3",), "int8", lane_saturates),
    "shift_field_wraps": (
        "shifts beyond the shift field",
        ("esp32p4", "esp32s3"),
        "int8",
        shift_field_wraps,
    ),
    "modes_left_behind": (
        "modes that esp-nn and esp-dsp leave in CFG",
        ("esp32p4",),
        "int8",
        modes_left_behind,
    ),
}


def stimulus(dtype, shape, least, rng):
    """The whole range, or only large values of both signs, mostly positive."""
    limits = np.iinfo(dtype)
    if least is None:
        return rng.integers(limits.min, limits.max + 1, shape).astype(dtype)
    values = rng.integers(least, limits.max + 1, shape)
    return np.where(rng.random(shape) < 0.9, values, -values).astype(dtype)


def record(model, target, settles, inputs):
    """Everything that the ``.npz`` file holds."""
    graph = load_graph(model)
    order = [name for node in graph.nodes for name in node.outputs]
    arrays = {"model": np.frombuffer(model, np.uint8)}
    try:
        execution = load(model, target)
    except UnsupportedOpError:  # what the chip does is not known; exact arithmetic gives zeros
        execution = None
    for step, array in enumerate(inputs):
        arrays[f"s0/t{step}/in/x"] = array
        trace = execution.step({"x": array}) and execution.trace if execution else None
        for name in order:
            info = graph.info(name)
            value = trace[name].copy() if trace else np.zeros(info.shape, info.dtype)
            arrays[f"s0/t{step}/out/{name}"] = value
    plan = {
        "label": "random",
        "steps": len(inputs),
        "outputs": [info.name for info in graph.outputs],
        "order": order,
        "exponents": {name: graph.info(name).exponent for name in order},
    }
    keys = {f"a{number}": place for number, place in enumerate(arrays)}
    index = {"target": target, "inputs": ["x"], "tensors": keys, "streams": [plan]}
    index["settles"] = settles
    stored = {key: arrays[place] for key, place in keys.items()}
    return {"index": np.frombuffer(json.dumps(index).encode(), np.uint8), **stored}


def vectors():
    """Each vector by the name of its file, without suffix."""
    for name, (settles, targets, dtype, make) in UNKNOWNS.items():
        for target in targets:
            rng = np.random.default_rng(RNG_SEED)
            model, shape, least = make(target, rng)
            inputs = [stimulus(dtype, shape, least, rng) for _ in range(2)]
            yield f"{name}.{target}.{dtype}", record(model, target, settles, inputs)


def main():
    """Write them all."""
    for name, stored in vectors():
        np.savez_compressed(HERE / f"{name}.npz", **stored)


if __name__ == "__main__":
    main()
