"""From bytes to a graph: golden files, every kind of field, and every contradiction."""

import struct

import numpy as np
import pytest

from espdl_hil.errors import ArtifactError, ConfigError
from espdl_hil.espdl import load_graph, patch_initializer, write_package
from espdl_hil.espdl.graph import Tensor


def test_every_golden_file_opens(golden, golden_names):
    for name in golden_names:
        data, index, _ = golden(name)
        graph = load_graph(data)
        assert [info.name for info in graph.inputs] == index["inputs"]
        stream = index["streams"][0]
        assert [info.name for info in graph.outputs] == stream["outputs"]
        assert [out for node in graph.nodes for out in node.outputs] == stream["order"]
        assert graph.header.file_bytes == len(data)
        for tensor, exponent in stream["exponents"].items():
            exponent = exponent if isinstance(exponent, list) else [exponent]
            assert graph.info(tensor).exponents == tuple(exponent)
    assert len(golden_names) == 258


def test_a_conv_as_the_file_tells_it(golden):
    graph = load_graph(golden("conv1d_causal_k3.esp32s3.int8")[0])
    node = next(node for node in graph.nodes if node.op_type == "Conv")
    assert node.attributes["quant_type"] == "S8"
    assert node.attributes["activation"] == "Linear"
    assert node.attributes["pads"] == (2, 0)
    assert node.attributes["group"] == 1
    filters = graph.initializers[node.inputs[1]]
    assert filters.info.dtype == "int8"
    assert filters.info.shape[0] == 3
    assert filters.layout.startswith("(N/16)WC16")
    assert graph.initializers[node.inputs[2]].info.dtype == "int32"


def test_spans_point_at_the_stored_bytes(golden):
    data = golden("tcn_res.esp32p4.int16")[0]
    graph = load_graph(data)
    assert graph.initializers
    for tensor in graph.initializers.values():
        span = tensor.span
        assert span.size == tensor.info.nbytes
        assert data[span.offset : span.offset + span.size] == tensor.raw.tobytes()
        assert not tensor.raw.flags.writeable
        assert tensor.array.shape == tensor.info.shape


def test_edl1_and_packages_hold_the_same_graph(golden):
    data = golden("tcn_res.esp32s3.int8")[0]
    graph = load_graph(data)
    old = load_graph(b"EDL1" + data[4:12] + data[16:])
    packed = load_graph(write_package([("tcn", data), ("other", data)]), model="tcn")
    assert old.nodes == packed.nodes == graph.nodes
    assert old.header.magic == "EDL1"
    assert packed.path == "<bytes>[tcn]"
    for name, tensor in graph.initializers.items():
        assert np.array_equal(old.initializers[name].raw, tensor.raw)


def test_a_path_is_read_and_named(tmp_path, golden):
    path = tmp_path / "m.espdl"
    path.write_bytes(golden("add.esp32s3.int8")[0])
    assert load_graph(path).path == str(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ArtifactError, match=r"m\.espdl: the header announces"):
        load_graph(path)
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.espdl: No such file"):
        load_graph(tmp_path / "absent.espdl")


def test_header_metadata_and_texts(writer, relu_file):
    entry = writer.table((0, "text", "clé"), (1, "text", "valeur"))
    fields = [(0, "i32", 8), (2, "text", "esp-ppq"), (3, "text", "1.3.12"), (5, "i64", 42)]
    graph = load_graph(relu_file(*fields, (6, "text", "a doc"), (8, "tables", [entry])))
    header = graph.header
    assert (header.ir_version, header.model_version, header.doc_string) == (8, 42, "a doc")
    assert header.producer == "esp-ppq 1.3.12"
    assert graph.metadata == {"clé": "valeur"}
    assert graph.name == "built"


def test_every_type_of_attribute(writer, relu_file):
    tensor = writer.tensor("t", np.array([[1, 2], [3, 4]], "int16"), exponents=(-2,))
    attributes = [
        writer.table((0, "text", "quant_type"), (3, "i32", 3), (6, "bytes", b"S8")),
        writer.table((0, "text", "f"), (3, "i32", 1), (4, "f", 0.5)),
        writer.table((0, "text", "i"), (3, "i32", 2), (5, "q", -(2**40))),
        writer.table((0, "text", "empty"), (3, "i32", 3)),
        writer.table((0, "text", "t"), (3, "i32", 4), (7, "table", tensor)),
        writer.table((0, "text", "fs"), (3, "i32", 6), (10, "array", np.array([1.5, 2], "<f4"))),
        writer.table((0, "text", "is"), (3, "i32", 7), (11, "array", np.array([1, -2], "<i8"))),
        writer.table((0, "text", "ss"), (3, "i32", 8), (12, "texts", ["a", "b"])),
    ]
    found = load_graph(relu_file(attributes=attributes)).nodes[0].attributes
    stored = found.pop("t")
    assert found == {
        "quant_type": "S8",
        "f": 0.5,
        "i": -(2**40),
        "empty": "",
        "fs": (1.5, 2.0),
        "is": (1, -2),
        "ss": ("a", "b"),
    }
    assert isinstance(stored, Tensor)
    assert stored.array.tolist() == [[1, 2], [3, 4]]
    assert stored.info.exponent == -2


@pytest.mark.parametrize(
    ("code", "slot", "stored", "values"),
    [
        (1, 2, "<f4", [0.5, -1.0]),
        (3, 3, "<i4", [1, -2]),
        (5, 3, "<i4", [300, -2]),
        (7, 5, "<i8", [2**40, -2]),
        (9, 3, "<i4", [1, 0]),
        (11, 11, "<f8", [0.5, -1.0]),
        (13, 12, "<u8", [2**63, 1]),
    ],
)
def test_constants_in_typed_fields(writer, relu_file, code, slot, stored, values):
    field = (slot, "array", np.array(values, stored))
    constant = writer.table(
        (0, "array", np.array([2], "<i8")), (1, "i32", code), (6, "text", "c"), field
    )
    tensor = load_graph(relu_file(constants=[constant])).initializers["c"]
    assert tensor.raw.tolist() == values
    assert tensor.span is None
    assert tensor.info.exponents == (0,)


def test_scalars_and_empty_constants(writer, relu_file):
    scalar = writer.tensor("s", np.array(-3, "int16"))
    empty = writer.tensor("e", np.zeros((0, 4), "float32"), raw=False)
    graph = load_graph(relu_file(constants=[scalar, empty]))
    assert graph.initializers["s"].array.shape == ()
    assert int(graph.initializers["s"].array) == -3
    assert graph.initializers["e"].array.shape == (0, 4)


def test_a_graph_input_that_is_a_constant_is_no_input(writer, relu_file):
    inputs = [writer.value_info("x", "int8", (1, 4)), writer.value_info("c", "int8", (2,))]
    graph = load_graph(
        relu_file(constants=[writer.tensor("c", np.zeros(2, "int8"))], inputs=inputs)
    )
    assert [info.name for info in graph.inputs] == ["x"]


def test_an_unknown_length_is_minus_one(writer, relu_file):
    extra = writer.value_info("z", "int8", (1, None, 4))
    assert load_graph(relu_file(value_info=[extra])).value_info["z"].shape == (1, -1, 4)


def test_embedded_test_values(writer, relu_file):
    given = writer.tensor("x", np.array([[1, -2, 3, 4]], "int8"))
    wanted = writer.tensor("y", np.array([[1, 0, 3, 4]], "int8"))
    graph = load_graph(relu_file(test_inputs=[given], test_outputs=[wanted]))
    assert graph.test_inputs["x"].tolist() == [[1, -2, 3, 4]]
    assert graph.test_outputs["y"].tolist() == [[1, 0, 3, 4]]


def attribute(writer, *fields):
    return writer.table((0, "text", "a"), *fields)


CONTRADICTIONS = {
    "no graph": (lambda w, f: w.finish(), "model: there is no graph"),
    "nameless node": (
        lambda w, f: f(nodes=[w.node("", "Relu", ["x"], ["y"])]),
        "node 0: a node needs a name and an operator",
    ),
    "same node twice": (
        lambda w, f: f(
            nodes=[w.node("n", "Relu", ["x"], ["y"]), w.node("n", "Relu", ["x"], ["z"])],
            value_info=[w.value_info("z", "int8", (1, 4))],
        ),
        "two nodes are named 'n'; ESP-DL would keep one of them",
    ),
    "out of order": (
        lambda w, f: f(
            nodes=[w.node("a", "Relu", ["z"], ["y"]), w.node("b", "Relu", ["x"], ["z"])],
            value_info=[w.value_info("z", "int8", (1, 4))],
        ),
        "Relu 'a' reads 'z', which nothing before it makes",
    ),
    "made twice": (
        lambda w, f: f(nodes=[w.node(n, "Relu", ["x"], ["y"]) for n in "ab"]),
        "Relu 'b' makes 'y', which exists already",
    ),
    "untyped": (
        lambda w, f: f(nodes=[w.node("a", "Relu", ["x"], ["q"])]),
        "Relu 'a' makes 'q', whose type the file does not say",
    ),
    "no maker": (
        lambda w, f: f(nodes=[], value_info=[]),
        "nothing makes the graph output 'y'",
    ),
    "same output twice": (
        lambda w, f: f(outputs=[w.value_info("y", "int8", (1, 4)) for _ in range(2)]),
        "the graph outputs are not uniquely named: ['y', 'y']",
    ),
    "same attribute twice": (
        lambda w, f: f(attributes=[attribute(w, (3, "i32", 3)) for _ in range(2)]),
        "attribute 1 of node 0 ('relu'): a second attribute is named 'a'",
    ),
    "subgraph": (
        lambda w, f: f(attributes=[attribute(w, (3, "i32", 5))]),
        "attribute 0 of node 0 ('relu'): attribute type 5, expected a number, text, a list",
    ),
    "tensor attribute without one": (
        lambda w, f: f(attributes=[attribute(w, (3, "i32", 4))]),
        "attribute 0 of node 0 ('relu'): there is no tensor",
    ),
    "text that is not UTF-8": (
        lambda w, f: f(attributes=[attribute(w, (3, "i32", 3), (6, "bytes", b"\xff"))]),
        "attribute 0 of node 0 ('relu'): the text is not UTF-8",
    ),
    "same constant twice": (
        lambda w, f: f(constants=[w.tensor("c", np.zeros(2, "int8")) for _ in range(2)]),
        "initializer 1 ('c'): a constant needs a name of its own",
    ),
    "elements missing": (
        lambda w, f: f(
            constants=[w.tensor("c", np.zeros(9, "int32"), fields=[(8, "blocks", bytes(32))])]
        ),
        "initializer 0 ('c'): 32 bytes of raw data, shape (9,) of int32 needs 36 padded to 16",
    ),
    "elements too many": (
        lambda w, f: f(
            constants=[w.tensor("c", np.zeros(4, "int32"), fields=[(8, "blocks", bytes(32))])]
        ),
        "32 bytes of raw data, shape (4,) of int32 needs 16 padded to 16",
    ),
    "typed elements missing": (
        lambda w, f: f(constants=[w.tensor("c", np.zeros(2, "int8"), raw=False)]),
        "initializer 0 ('c'): 0 values, shape (2,) needs 2",
    ),
    "negative length": (
        lambda w, f: f(
            constants=[
                w.tensor("c", np.zeros(0, "int8"), fields=[(0, "array", np.array([-1], "<i8"))])
            ]
        ),
        "initializer 0 ('c'): impossible shape (-1,)",
    ),
    "too many axes": (
        lambda w, f: f(constants=[w.tensor("c", np.zeros((1,) * 9, "int8"))]),
        "initializer 0 ('c'): 9 dimensions, expected 8 or fewer",
    ),
    "half a boolean": (
        lambda w, f: f(constants=[w.tensor("c", np.array([2], "uint8"), code=9)]),
        "initializer 0 ('c'): a boolean is neither 0 nor 1",
    ),
    "strings": (
        lambda w, f: f(constants=[w.tensor("c", np.zeros(1, "int8"), code=8)]),
        "initializer 0 ('c'): element type 8 is not a number",
    ),
    "elsewhere": (
        lambda w, f: f(constants=[w.tensor("c", np.zeros(1, "int8"), fields=[(10, "i32", 1)])]),
        "initializer 0 ('c'): the data is in another file, which ESP-DL cannot load",
    ),
    "huge exponent": (
        lambda w, f: f(constants=[w.tensor("c", np.zeros(1, "int8"), exponents=(300,))]),
        "initializer 0 ('c'): an exponent is outside +-256",
    ),
    "sequence": (
        lambda w, f: f(value_info=[w.table((0, "text", "q"), (1, "table", w.table((0, "u8", 2))))]),
        "value info 0 ('q'): it is not a tensor",
    ),
    "typeless": (
        lambda w, f: f(value_info=[w.table((0, "text", "q"), (1, "table", w.table((0, "u8", 1))))]),
        "value info 0 ('q'): it has no tensor type",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_named_with_their_place(case, writer, relu_file):
    make, message = CONTRADICTIONS[case]
    with pytest.raises(ArtifactError) as caught:
        load_graph(make(writer, relu_file))
    assert message in str(caught.value)
    assert caught.value.path == "<bytes>"
    assert caught.value.offset >= 16


def words(*values):
    return struct.pack(f"<{len(values)}I", *values)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "0 bytes hold no model (at byte 16)"),
        (words(2, 0), "offset of model points to byte 18, outside (at byte 16)"),
        (words(400, 0), "offset of model points to byte 416, outside (at byte 16)"),
        (words(4, 100), "model: its field list is at byte -80, outside (at byte 20)"),
        (words(4, 4), "model: it has 0 bytes by its field list, less than 4 (at byte 20)"),
        (words(4, 2**32 - 4, 3), "model: its field list has 3 bytes (at byte 20)"),
        (words(4, 2**32 - 4, 2), "model: its field list has 2 bytes (at byte 20)"),
        (words(4, 2**32 - 4, 8 << 16 | 200), "field list of model needs 200 bytes, 4 are left"),
        (words(4, 2**32 - 4, 2 << 16 | 4), "model: it has 2 bytes by its field list, less than 4"),
        (words(4, 2**32 - 4, 99 << 16 | 4), "model needs 99 bytes, 8 are left (at byte 20)"),
        (
            words(4, 2**32 - 4, 4 << 16 | 22, 0, 0, 0, 8 << 16, 0),
            "model: field 7 is outside its table",
        ),
    ],
)
def test_broken_offsets(payload, message):
    data = b"EDL2" + struct.pack("<III", 0, len(payload), 0) + payload
    with pytest.raises(ArtifactError) as caught:
        load_graph(data)
    assert message in str(caught.value)


def test_a_text_that_is_not_utf8(relu_file):
    data = relu_file((6, "text", "some doc"))
    with pytest.raises(ArtifactError, match=r"doc string of model is not UTF-8 text \(at byte"):
        load_graph(data.replace(b"some doc", b"some\xffdoc"))


def test_one_weight_is_patched_in_place(golden):
    data = golden("tcn_res.esp32s3.int16")[0]
    before = load_graph(data).initializers
    name, tensor = next(item for item in before.items() if item[1].info.dtype == "int16")
    patched = patch_initializer(data, name, 5, 0x8001)
    after = load_graph(patched).initializers
    assert [i for i in range(len(data)) if data[i] != patched[i]] == [
        tensor.span.offset + 10,
        tensor.span.offset + 11,
    ]
    assert int(after[name].raw[5]) & 0xFFFF == (int(tensor.raw[5]) & 0xFFFF) ^ 0x8001
    assert patch_initializer(patched, name, 5, 0x8001) == data


@pytest.mark.parametrize(
    ("name", "index", "xor"), [("absent", 0, 1), (None, 10**6, 1), (None, -1, 1), (None, 0, 2**16)]
)
def test_what_cannot_be_patched(golden, name, index, xor):
    data = golden("tcn_res.esp32s3.int16")[0]
    weights = load_graph(data).initializers
    name = name or next(n for n, tensor in weights.items() if tensor.info.dtype == "int16")
    with pytest.raises(ConfigError, match=r"to patch|out of range"):
        patch_initializer(data, name, index, xor)


@pytest.mark.parametrize("dims", [(2**31 - 1, 2**31 - 1, 4), (2**31 - 1, 2**31 - 1, 2**31 - 1, 0)])
def test_lengths_whose_product_wraps_in_64_bits(writer, dims):
    fields = [(0, "array", np.array(dims, "<i8")), (1, "i32", 3), (6, "text", "c")]
    data = writer.finish((7, "table", writer.graph(constants=[writer.table(*fields)])))
    with pytest.raises(ArtifactError, match="impossible shape"):
        load_graph(data)
