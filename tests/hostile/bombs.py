"""Small model files that ask for much: one attack a function, made by hand."""

from __future__ import annotations

import struct

import numpy as np
from flat_writer import FlatWriter

QUANT = {"S8": "int8", "S16": "int16", "F32": "float32"}


class Model:
    """A file in the making; ``chain`` adds nodes that all read ``x``."""

    def __init__(self, shape, width="S8", exponent=-4):
        self.writer = FlatWriter()
        self.width, self.exponent = width, exponent
        self.nodes, self.constants, self.outputs = [], [], []
        self.inputs = [self.info("x", shape)]

    def info(self, name, shape, dtype=None, exponent=None):
        exponents = (self.exponent if exponent is None else exponent,)
        return self.writer.value_info(name, dtype or QUANT[self.width], shape, exponents)

    def constant(self, name, array, exponent=0):
        self.constants.append(self.writer.tensor(name, array, exponents=(exponent,)))

    def node(self, op_type, inputs, shape, **attributes):
        name = f"n{len(self.nodes)}"
        entries = [
            self._attribute(key, value)
            for key, value in {**attributes, "quant_type": self.width}.items()
        ]
        self.nodes.append(self.writer.node(name, op_type, inputs, [f"y{name}"], entries))
        self.outputs.append(self.info(f"y{name}", shape))
        return f"y{name}"

    def _attribute(self, name, value):
        if isinstance(value, tuple):
            fields = (3, "i32", 7), (11, "array", np.array(value, "<i8"))
        elif isinstance(value, int):
            fields = (3, "i32", 2), (5, "q", value)
        else:
            fields = (3, "i32", 3), (6, "bytes", value.encode())
        return self.writer.table((0, "text", name), *fields)

    def file(self):
        graph = self.writer.graph(
            nodes=self.nodes, constants=self.constants, inputs=self.inputs, outputs=self.outputs
        )
        return self.writer.finish((7, "table", graph))


def i64(*values):
    return np.array(values, "<i8")


def slice_from_the_smallest_int():
    model = Model((4, 4))
    for name, value in {"s": -(2**63) + 1, "e": 2**63 - 1, "a": 0, "t": 1}.items():
        model.constant(name, i64(value))
    for _ in range(20):
        model.node("Slice", ["x", "s", "e", "a", "t"], (4, 4))
    return model.file()


def slices_that_quote_a_long_constant():
    model = Model((4, 4))
    many = np.zeros(20_000, "<i8")
    for name in ("s", "e", "a"):
        model.constant(name, many)
    for _ in range(1000):
        model.node("Slice", ["x", "s", "e", "a"], (4, 4))
    return model.file()


def lists_that_quote_a_long_constant():
    model = Model((4, 4))
    model.constant("s", np.zeros(50_000, "<i8"))
    for kind in ("Reshape", "Pad", "Split", "Squeeze", "Unsqueeze", "ReduceMax") * 200:
        model.node(kind, ["x", "s"], (4, 4))
    return model.file()


def a_tower_of_unsqueezes():
    model, tensor = Model((4, 4)), "x"
    model.constant("s", np.arange(1000, dtype="<i8"))
    for _ in range(2000):
        tensor = model.node("Unsqueeze", [tensor, "s"], (4, 4))
    return model.file()


def a_tower_of_gathers():
    model, tensor = Model((4, 4)), "x"
    model.constant("s", np.zeros((1,) * 8, "<i8"))
    for _ in range(3000):
        tensor = model.node("Gather", [tensor, "s"], (4, 4), axis=0)
    return model.file()


def a_table_for_each_node():
    model = Model((1, 4), "S16")
    for _ in range(3000):
        model.node("Sigmoid", ["x"], (1, 4))
    return model.file()


def a_filter_that_all_nodes_share():
    model = Model((1, 1, 1, 1000), exponent=0)
    model.constant("w", np.ones((1, 1, 1000, 1000), "i1"))
    for _ in range(2000):
        model.node("Gemm", ["x", "w"], (1, 1, 1, 1000))
    return model.file()


def _window(kind, shape, kernel, pads, **attributes):
    model = Model(shape, exponent=0)
    inputs = ["x"]
    if kind == "Conv":
        model.constant("w", np.ones((*kernel, 1, 1), "i1"))
        inputs.append("w")
        attributes = {"dilations": (1,) * len(kernel)} | attributes
    lengths = [
        shape[1 + i]
        + pads[i]
        + pads[len(kernel) + i]
        - attributes.get("dilations", (1,) * len(kernel))[i] * (k - 1)
        for i, k in enumerate(kernel)
    ]
    attributes = {"strides": (1,) * len(kernel), "pads": pads, "kernel_shape": kernel} | attributes
    model.node(kind, inputs, (1, *lengths, 1), **attributes)
    return model.file()


def padding_for_a_dilated_filter():
    far = 2**15 - 1
    return _window("Conv", (1, 1, 1, 1), (2, 2), (far, far, 0, 0), dilations=(far, far))


def rows_of_windows_wider_than_any_block():
    return _window("Conv", (1, 1, 2**20, 1), (1, 1000), (0, 499, 0, 500))


def a_window_of_padding():
    far = 2**14 - 1
    return _window("AveragePool", (1, 1, 1, 1), (far + 1, far + 1), (far, far, 0, 0))


def a_long_pooling():
    return _window("MaxPool", (1, 2**15, 1), (2**15,), (2**14, 2**14 - 1))


def a_picture_pooled_whole():
    model = Model((1, 2400, 2400, 1), "F32")
    model.node("GlobalAveragePool", ["x"], (1, 1, 1, 1))
    return model.file()


def a_million_matrices():
    model = Model((1, 2**20, 1, 1), exponent=0)
    model.constant("w", np.ones((1, 1, 1, 1), "i1"))
    model.node("MatMul", ["x", "w"], (1, 2**20, 1, 1))
    return model.file()


def places_that_all_nodes_share():
    model = Model((8,))
    model.constant("i", np.zeros((20_000, 1), "<i8"))
    model.constant("u", np.zeros(20_000, "i1"), -4)
    for _ in range(500):
        model.node("ScatterND", ["x", "i", "u"], (8,))
    return model.file()


def an_input_listed_over_and_over():
    model = Model((1, 1))
    model.node("Concat", ["x"] * 50_000, (50_000, 1), axis=0)
    return model.file()


def zeros_between_every_element():
    model = Model((1, 2**11, 2**11, 1))
    model.node("InsertZeros", ["x"], (1, 1, 1, 1), stride=(2**20, 2**20), output_padding=(0,))
    return model.file()


def pads_of_two_gigabytes():
    model = Model((1, 1))
    model.constant("p", i64(0, 2**31 - 2, 0, 0))
    model.node("Pad", ["x", "p"], (1, 1), mode="edge")
    return model.file()


def a_resize_without_end():
    model = Model((1, 2, 2, 1))
    model.constant("s", np.array([1, 1, 2**30, 2**30], "<f4"))
    model.node("Resize", ["x", "", "s"], (1, 1, 1, 1), mode="nearest")
    return model.file()


def a_window_of_frames_without_end():
    model = Model((1, 1, 1))
    for _ in range(100):
        model.node("StreamingCache", ["x"], (1, 1, 1), window_size=2**22, frame_axis=1)
    return model.file()


def lengths_whose_product_wraps():
    """2**31 * 2**31 * 4 is 0 in 64 bits; a 0 among lengths hides the others."""
    model = Model((2**31 - 1, 2**31 - 1, 4))
    model.node("Relu", ["x"], (2**31 - 1, 2**31 - 1, 4))
    return model.file()


def a_zero_that_hides_lengths():
    model = Model((1, 4))
    far = model.writer
    name, dims = "c", np.array([2**31 - 1, 2**31 - 1, 2**31 - 1, 0], "<i8")
    model.constants.append(
        far.table((0, "array", dims), (1, "i32", 3), (6, "text", name), (8, "blocks", b""))
    )
    model.node("Relu", ["x"], (1, 4))
    return model.file()


def models_that_overlap():
    """A package whose entries are all the same bytes under other names."""
    inner = a_table_for_each_node()
    count = 4000
    names_at = 8 + 12 * count
    names = b"".join(b"%05d" % i for i in range(count))
    blob_at = -(-(names_at + len(names)) // 16) * 16
    entries = b"".join(struct.pack("<III", blob_at, names_at + 5 * i, 5) for i in range(count))
    head = b"PDL2" + struct.pack("<I", count) + entries + names
    return head.ljust(blob_at, b"\0") + inner


def a_name_as_long_as_the_file():
    model = Model((1, 4))
    model.nodes.append(model.writer.node("n" * 1_000_000, "Relu", ["x"], ["y"], []))
    model.outputs.append(model.info("y", (1, 4)))
    return model.file()


def thousands_of_wrong_nodes():
    model = Model((1, 4))
    for _ in range(10_000):
        model.node("Erf", ["x"], (1, 4))
    return model.file()


BOMBS = [
    slice_from_the_smallest_int,
    slices_that_quote_a_long_constant,
    lists_that_quote_a_long_constant,
    a_tower_of_unsqueezes,
    a_tower_of_gathers,
    a_table_for_each_node,
    a_filter_that_all_nodes_share,
    padding_for_a_dilated_filter,
    rows_of_windows_wider_than_any_block,
    a_window_of_padding,
    a_long_pooling,
    a_picture_pooled_whole,
    a_million_matrices,
    places_that_all_nodes_share,
    an_input_listed_over_and_over,
    zeros_between_every_element,
    pads_of_two_gigabytes,
    a_resize_without_end,
    a_window_of_frames_without_end,
    lengths_whose_product_wraps,
    a_zero_that_hides_lengths,
    models_that_overlap,
    a_name_as_long_as_the_file,
    thousands_of_wrong_nodes,
]
