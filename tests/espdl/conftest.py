"""Model files built by hand."""

import pytest
from flat_writer import FlatWriter


@pytest.fixture
def writer():
    return FlatWriter()


@pytest.fixture
def relu_file(writer):
    """Function that writes a model of one Relu on ``x`` (1, 4), int8, with extra model fields."""

    def write(*model_fields, attributes=None, magic=b"EDL2", **vectors):
        quant = writer.table((0, "text", "quant_type"), (3, "i32", 3), (6, "bytes", b"S8"))
        graph = {
            "nodes": [writer.node("relu", "Relu", ["x"], ["y"], attributes or [quant])],
            "inputs": [writer.value_info("x", "int8", (1, 4), (-3,))],
            "outputs": [writer.value_info("y", "int8", (1, 4), (-3,))],
        }
        return writer.finish(
            (7, "table", writer.graph(**graph | vectors)), *model_fields, magic=magic
        )

    return write
