"""``espdl-hil inspect``: what it prints, what it runs, what it says to mistakes."""

import argparse
import json
import zipfile

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from flat_writer import FlatWriter

from espdl_hil.__main__ import main
from espdl_hil.cli.inspect import parse_key
from espdl_hil.espdl import load_graph, write_package

STREAM = "stream_stack.streaming.esp32s3.int8"


@pytest.fixture
def model(golden, tmp_path):
    """Function from a golden case's name to the path of its model file."""

    def write(name):
        path = tmp_path / f"{name}.espdl"
        path.write_bytes(golden(name)[0])
        return path

    return write


def run(*arguments):
    return main(["inspect", *map(str, arguments)])


def test_a_streaming_file_reads_like_this(model, capsys):
    path = model(STREAM)
    assert run(path) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    size = path.stat().st_size
    assert lines[0].startswith(f"{path}: EDL2, plain, {size:,} bytes")
    assert lines[2] == "target: not in the file; by its filters esp32s3 or esp32p4"
    graph = load_graph(path)
    for node in graph.nodes:
        assert any(f" {node.op_type} " in line for line in lines)
    assert " window 3, frame axis 1 " in text
    assert "nodes, in order of execution" in text
    assert "multiply-accumulates a run" in text
    assert all(len(line) <= 100 for line in lines[1:])


def test_the_caches_and_their_state(model, capsys):
    assert run(model(STREAM), "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    graph = load_graph(model(STREAM))
    caches = [node for node in graph.nodes if node.op_type == "StreamingCache"]
    assert [cache["node"] for cache in facts["caches"]] == [node.name for node in caches]
    for cache, node in zip(facts["caches"], caches, strict=True):
        window = node.attributes["window_size"]
        channels = graph.value_info[node.inputs[0]].shape[-1]
        assert cache["window_frames"] == window
        assert cache["frame_axis"] == 1
        assert cache["state_bytes"] == (window - 1) * channels
    assert facts["sizes"]["state_bytes"] == sum(cache["state_bytes"] for cache in facts["caches"])


def test_json_of_a_convolution(model, capsys):
    assert run(model("conv1d_causal_k3.esp32p4.int8"), "--json", "--target", "esp32p4") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["file"]["format"] == "EDL2"
    assert facts["checked"] == {"target": "esp32p4", "refusal": None}
    conv = next(node for node in facts["nodes"] if node["operator"] == "Conv")
    made, weights = conv["outputs"][0], conv["inputs"][1]
    stored = next(tensor for tensor in facts["constants"] if tensor["name"] == weights)
    kernel, channels = stored["shape"][:2]
    assert conv["macs"] == np.prod(made["shape"]) * kernel * channels
    assert stored["layout"].startswith("(N/16)WC16")
    assert facts["sizes"]["macs"] == conv["macs"]
    assert facts["problems"] == []


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("pc_conv1d.esp32p4.int8", ["esp32p4"]),
        ("conv1d_causal_k3.esp32s3.int8", ["esp32s3", "esp32p4"]),
        ("relu.esp32s3.int8", ["esp32s3", "esp32p4"]),
        ("add.esp32s3.int8", ["esp32s3", "esp32p4", "c"]),
    ],
)
def test_what_the_contents_say_of_the_target(model, capsys, name, targets):
    run(model(name), "--json")
    found = json.loads(capsys.readouterr().out)["targets"]
    assert set(found) <= {"esp32s3", "esp32p4", "c"}
    graph = load_graph(model(name))
    if any(node.op_type in ("Conv", "Gemm") for node in graph.nodes):
        assert found == [t for t in targets if t != "c"]
    else:
        assert found == ["esp32s3", "esp32p4", "c"]


def test_every_golden_file_prints(model, golden_names, capsys):
    for name in golden_names[::7]:
        assert run(model(name)) == 0
        assert "nodes, in order of execution" in capsys.readouterr().out


def test_a_target_is_checked(model, capsys):
    path = model("pc_conv1d.esp32p4.int8")
    assert run(path, "--target", "esp32p4") == 0
    assert "esp32p4: every node is supported" in capsys.readouterr().out
    assert run(path, "--target", "esp32s3") == 1
    text = capsys.readouterr().out
    assert "has an exponent per channel, which esp32s3 does not have" in text
    assert "hint: supported: Conv: int8, int16;" in text


def test_a_package_lists_its_models(model, tmp_path, capsys):
    first, second = model("add.esp32s3.int8"), model("relu.esp32s3.int8")
    package = tmp_path / "models.espdl"
    package.write_bytes(write_package([("one", first.read_bytes()), ("7", second.read_bytes())]))
    assert run(package) == 0
    text = capsys.readouterr().out
    assert "2 models" in text
    assert f"{first.stat().st_size:,}" in text
    assert "Select one with --model NAME or --model INDEX." in text
    assert run(package, "--json") == 0
    assert json.loads(capsys.readouterr().out)["models"] == [
        {"name": "one", "bytes": first.stat().st_size},
        {"name": "7", "bytes": second.stat().st_size},
    ]
    for selected, operator in [("one", "Add"), ("0", "Add"), ("7", "Relu"), ("1", "Relu")]:
        assert run(package, "--json", "--model", selected) == 0
        nodes = json.loads(capsys.readouterr().out)["nodes"]
        assert operator in {node["operator"] for node in nodes}
    assert run(package, "--model", "two") == 2
    assert "no model 'two' in the package; it holds 0: 'one', 1: '7'" in capsys.readouterr().err


def inputs_of(index, tensors, step):
    found = {}
    for name in index["inputs"]:
        separator = "" if name.startswith("/") else "/"
        found[name] = tensors[f"s0/t{step}/in{separator}{name}"]
    return found


def test_chunks_are_run_in_order(golden, model, tmp_path, capsys):
    _, index, tensors = golden(STREAM)
    stream = index["streams"][0]
    steps = stream["steps"] if isinstance(stream["steps"], int) else len(stream["steps"])
    chunks = [inputs_of(index, tensors, step) for step in range(steps)]
    np.savez(tmp_path / "in.npz", **{n: np.stack([c[n] for c in chunks]) for n in chunks[0]})
    out = tmp_path / "out.npz"
    common = (model(STREAM), "--run", tmp_path / "in.npz", "--target", "esp32s3", "-o", out)
    assert run(*common) == 0
    assert f"{out}: 1 tensors of {steps} chunks on esp32s3" in capsys.readouterr().out
    name = stream["outputs"][0]
    with np.load(out) as stored:
        assert stored.files == [name]
        for step in range(steps):
            separator = "" if name.startswith("/") else "/"
            expected = tensors[f"s0/t{step}/out{separator}{name}"]
            assert np.array_equal(stored[name][step], expected)
    assert run(*common, "--all") == 0
    with np.load(out) as stored:
        assert set(stored.files) == set(stream["order"])


def test_a_single_run(golden, model, tmp_path):
    case = "conv1d_causal_k3.esp32p4.int16"
    _, index, tensors = golden(case)
    np.savez(tmp_path / "in.npz", **inputs_of(index, tensors, 0))
    out = tmp_path / "out.npz"
    assert run(model(case), "--run", tmp_path / "in.npz", "--target", "esp32p4", "-o", out) == 0
    name = index["streams"][0]["outputs"][0]
    with np.load(out) as stored:
        separator = "" if name.startswith("/") else "/"
        assert np.array_equal(stored[name], tensors[f"s0/t0/out{separator}{name}"])


def test_mistakes_are_answered_in_one_line(model, tmp_path, capsys):
    path = model("conv1d_causal_k3.esp32s3.int8")
    name = load_graph(path).inputs[0].name
    good, out = tmp_path / "in.npz", tmp_path / "o.npz"
    shape = load_graph(path).inputs[0].shape
    np.savez(good, **{name: np.zeros(shape, "int8")})
    wrong = {
        "other": {"q": np.zeros(1, "int8")},
        "type": {name: np.zeros(shape, "float32")},
        "shape": {name: np.zeros((3, 3), "int8")},
        "empty": {name: np.zeros((0, *shape), "int8")},
    }
    for kind, arrays in wrong.items():
        np.savez(tmp_path / f"{kind}.npz", **arrays)
    (tmp_path / "text.npz").write_text("no archive")
    np.savez_compressed(tmp_path / "bomb.npz", **{name: np.zeros(2**28, "int8")})
    with zipfile.ZipFile(tmp_path / "header.npz", "w") as archive:
        text = "{'descr': '|i1', 'fortran_order': False, 'shape': (1099511627776,)}\n"
        head = b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()
        archive.writestr(f"{name}.npy", head)
    run_it = ("--target", "esp32s3", "-o", out, "--run")
    cases = [
        ((tmp_path / "absent.espdl",), "cannot read"),
        ((tmp_path / "text.npz",), "expected magic EDL1, EDL2, PDL1, PDL2 or PDL3, found b'no a'"),
        ((path, "--model", "3"), "no model 3 in the package"),
        ((path, "--run", good), "--run IN.npz and -o OUT.npz belong together"),
        ((path, "-o", out), "--run IN.npz and -o OUT.npz belong together"),
        ((path, "--all"), "--all needs them"),
        ((path, "--run", good, "-o", out), "--run needs --target: an .espdl file does not say"),
        ((path, *run_it, tmp_path / "absent.npz"), "cannot read"),
        ((path, *run_it, tmp_path / "text.npz"), "cannot read"),
        ((path, *run_it, tmp_path / "other.npz"), f"holds ['q'], the graph inputs are ['{name}']"),
        (
            (path, *run_it, tmp_path / "type.npz"),
            f"is float32 {shape}, the graph takes int8 {shape}",
        ),
        ((path, *run_it, tmp_path / "shape.npz"), f"is int8 (3, 3), the graph takes int8 {shape}"),
        ((path, *run_it, tmp_path / "empty.npz"), "the graph takes int8"),
        ((path, *run_it, tmp_path / "bomb.npz"), "are the most for its size"),
        ((path, *run_it, tmp_path / "header.npz"), "has 1099511627776 bytes, 0 are there"),
        (
            (path, "--target", "esp32s3", "--run", good, "-o", tmp_path / "no" / "o.npz"),
            "cannot write",
        ),
    ]
    for arguments, message in cases:
        assert run(*arguments) == 2, arguments
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ")
        assert message in captured.err
        assert "Traceback" not in captured.err
        assert not captured.out


AS_PRINTED = "".join(f"0x{byte:02x}, " for byte in range(16))  # by esp-ppq


@pytest.mark.parametrize("text", ["000102030405060708090a0b0c0d0e0f", AS_PRINTED])
def test_keys_as_people_paste_them(text):
    assert parse_key(text) == bytes(range(16))


@pytest.mark.parametrize("text", ["", "00", "zz" * 16, "00" * 17])
def test_what_is_no_key(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not 16 bytes; give 32 hexadecimal"):
        parse_key(text)


def test_an_encrypted_file(model, capsys):
    path, key = model(STREAM), bytes(range(16))
    data = path.read_bytes()
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(range(16, 32)))).encryptor()
    path.write_bytes(data[:4] + b"\1\0\0\0" + data[8:16] + cipher.update(data[16:]))
    assert run(path) == 2
    assert "hint: pass the 128-bit key that the exporter printed" in capsys.readouterr().err
    assert run(path, "--key", key.hex()) == 0
    assert "EDL2, AES-128, " in capsys.readouterr().out


def test_a_wrong_key_is_a_usage_error(model, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(model(STREAM), "--key", "12")
    assert "argument --key: '12' is not 16 bytes" in capsys.readouterr().err


def test_results_beyond_any_memory(model, tmp_path, capsys, monkeypatch):
    path = model("conv1d_causal_k3.esp32s3.int8")
    info = load_graph(path).inputs[0]
    np.savez(tmp_path / "in.npz", **{info.name: np.zeros((9, *info.shape), "int8")})
    run_it = ("--target", "esp32s3", "-o", tmp_path / "o.npz", "--run", tmp_path / "in.npz")
    assert run(path, *run_it) == 0
    monkeypatch.setattr("espdl_hil.cli.execute.MAX_RESULT_BYTES", 100)
    assert run(path, *run_it) == 2
    assert "the results of 9 chunks take" in capsys.readouterr().err
    assert "9 chunks" not in capsys.readouterr().out


def hostile_model(name, operator="Relu", count=1):
    writer = FlatWriter()
    kind = writer.table((0, "text", "quant_type"), (3, "i32", 3), (6, "bytes", b"S8"))
    nodes = [writer.node(f"{name}{i}", operator, ["x"], [f"y{i}"], [kind]) for i in range(count)]
    return writer.finish(
        (6, "text", name),
        (
            7,
            "table",
            writer.graph(
                nodes=nodes,
                inputs=[writer.value_info("x", "int8", (1, 4))],
                outputs=[writer.value_info(f"y{i}", "int8", (1, 4)) for i in range(count)],
            ),
        ),
    )


@pytest.mark.parametrize("operator", ["Relu", "[/]\x1b[2J"])
def test_nothing_of_a_file_moves_the_cursor(tmp_path, capsys, operator):
    path = tmp_path / "hostile.espdl"
    path.write_bytes(hostile_model("\x1b]0;title\x07\x1b[31m\u202ename", operator))
    assert run(path) == 0
    assert run(path, "--target", "esp32s3") == (operator != "Relu")
    assert run(path, "--json") == 0
    text = capsys.readouterr().out
    assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "name" in text


def test_a_long_table_is_cut_and_says_so(tmp_path, capsys):
    path = tmp_path / "long.espdl"
    path.write_bytes(hostile_model("n" * 1000, count=503))
    assert run(path) == 0
    text = capsys.readouterr().out
    assert "and 3 more nodes; --json lists all" in text
    assert "503 nodes, 0 multiply-accumulates a run" in text
    assert run(path, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)["nodes"]) == 503
