"""The ladder for viewers of networks: node data for Model Explorer, a graph for Netron."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from espdl_hil.errors import ConfigError
from espdl_hil.report.files import safe_name

if TYPE_CHECKING:
    from pathlib import Path

    from espdl_hil.report.results import Results
    from espdl_hil.report.row import Row

# From red, where nothing is left of the float network, to green
_GRADIENT = (
    {"stop": 0, "bgColor": "#b3161e", "textColor": "white"},
    {"stop": 0.5, "bgColor": "#ffc14d", "textColor": "black"},
    {"stop": 1, "bgColor": "#136c3f", "textColor": "white"},
)
_OPSET = 17  # the nodes are shown, never run


def write_node_data(results: Results, folder: Path) -> list[Path]:
    """Write ``<id>.json`` for Model Explorer and ``<id>.onnx`` for Netron, a pair a row.

    The names of nodes are those of the streaming file and of the ONNX graph; the values are the
    SQNR of what changes along time, in dB. In the graph each node carries them as metadata.

    Args:
        results: Rows without pictures are left out.
        folder: Created if absent.

    Returns:
        The files.

    Raises:
        ConfigError: the folder cannot be written.
    """
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for row in results.rows:
            if not row.details.pictures.get("layers"):
                continue
            path = folder / safe_name(row.id)
            data, graph = (path.with_name(path.name + end) for end in (".json", ".onnx"))
            data.write_text(json.dumps(node_data(row), indent=1) + "\n", encoding="utf-8")
            graph.write_bytes(_onnx(row))
            written += [data, graph]
    except OSError as error:
        raise ConfigError(
            f"the node data cannot be written to {folder}: {error.strerror or error}",
            hint="name another folder with --hil-node-data DIR",
        ) from None
    return written


def node_data(row: Row) -> dict[str, Any]:
    """What Model Explorer overlays on a graph: a value a node, and the colours."""
    layers = row.details.pictures["layers"]
    values = {
        layer["node"]: {"value": layer["changes_db"]}
        for layer in layers
        if layer["changes_db"] is not None
    }
    return {row.model: {"results": values, "gradient": list(_GRADIENT)}}


def _onnx(row: Row) -> bytes:
    """The streaming file's nodes as a graph of ONNX, without constants, to be looked at."""
    import onnx
    from onnx import helper

    layers = row.details.pictures["layers"]
    wrong = (row.diagnosis or {}).get("tensor")
    nodes, inputs, outputs = [], [], []
    for layer in layers:
        name = layer["tensor"]
        value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        if layer["output"]:
            outputs.append(value)
        if layer["operator"] == "Input":
            inputs.append(value)
            continue
        reads = [layers[number]["tensor"] for number in layer["inputs"]]
        node = helper.make_node(layer["operator"], reads, [name], layer["node"], domain="espdl")
        for key in ("changes_db", "clipped", "saturated", "frames", "keeps"):
            if layer[key]:
                node.metadata_props.add(key=key, value=f"{layer[key]:g}")
        if name == wrong:
            node.metadata_props.add(key="differs first", value=str((row.diagnosis or {})["cause"]))
        nodes.append(node)
    graph = helper.make_graph(nodes, row.id, inputs, outputs)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("espdl", 1)]
    model = helper.make_model(graph, producer_name="espdl-hil", opset_imports=opsets)
    return bytes(model.SerializeToString())
