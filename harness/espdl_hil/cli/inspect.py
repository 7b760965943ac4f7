"""``espdl-hil inspect``: print a model file as people read it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espdl_hil.cli.describe import describe
from espdl_hil.cli.execute import execute
from espdl_hil.errors import ConfigError, UnsupportedOpError, printable
from espdl_hil.espdl import load_graph, read_package
from espdl_hil.espdl.reader import read_bytes
from espdl_hil.operators import check_graph
from espdl_hil.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console
    from rich.table import Table

    from espdl_hil.espdl import Graph

PIPE_COLUMNS = 100  # width where there is no terminal to ask
MAX_ROWS = 500  # of a table or list for people; a hostile file has a node for each 100 bytes
MAX_TEXT = 400  # characters of one text
DETAILS = {  # attributes that a reader looks for, and what to print before them
    "kernel_shape": "kernel ",
    "strides": "stride ",
    "dilations": "dilation ",
    "pads": "pads ",
    "group": "group ",
    "activation": "",
    "window_size": "window ",
    "frame_axis": "frame axis ",
    "axis": "axis ",
    "perm": "perm ",
    "hidden_size": "hidden ",
    "original_op_type": "",
    "mode": "",
    "lut": "table ",
}
UNREMARKABLE = (1, "Linear")  # a stride, dilation or group of 1; no activation


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe ``inspect`` and what it takes."""
    parser.description = (
        "Print an .espdl model or package: tensors, nodes, caches, sizes. With "
        "--run, execute it bit for bit as ESP-DL would."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help=".espdl model or package")
    parser.add_argument("--model", metavar="NAME", help="name or index of a model in a package")
    parser.add_argument("--key", type=parse_key, metavar="HEX", help="AES-128 key, 32 hex digits")
    parser.add_argument("--json", action="store_true", help="print JSON for machines")
    parser.add_argument(
        "--target",
        choices=sorted(TARGETS),
        help="say whether ESP-DL runs the model on this target; files do not name theirs",
    )
    parser.add_argument(
        "--run",
        type=Path,
        metavar="IN.npz",
        help="execute on arrays named like the graph inputs, in the file's layout and type; "
        "one leading axis more runs that many chunks in order",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="OUT.npz", help="results of --run")
    parser.add_argument("--all", action="store_true", help="with --run: every node's output too")


def parse_key(text: str) -> bytes:
    """Parse a key as ``00112233…`` or as esp-ppq prints it, ``0x00, 0x11, …``.

    Raises:
        argparse.ArgumentTypeError: It is not 16 bytes in hexadecimal.
    """
    digits = text.replace("0x", "").replace(",", "").replace(" ", "")
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        key = b""
    if len(key) != 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not 16 bytes; give 32 hexadecimal digits")
    return key


def run(options: argparse.Namespace) -> int:
    """Print a file, or execute it.

    Returns:
        0, or 1 when ``--target`` was given and ESP-DL cannot run the model there.

    Raises:
        HarnessError: The file cannot be read, or an option does not fit it.
    """
    if (options.run is None) != (options.output is None) or (options.all and not options.run):
        raise ConfigError("--run IN.npz and -o OUT.npz belong together; --all needs them")
    if options.run is not None and options.target is None:
        raise ConfigError("--run needs --target: an .espdl file does not say what it is for")
    entries = read_package(read_bytes(options.file), label=str(options.file))
    if options.model is None and len(entries) != 1:
        _list_package(options, [(entry.name, len(entry.data)) for entry in entries])
        return 0
    model = options.model
    if model is not None and model.isdecimal() and model not in {entry.name for entry in entries}:
        model = int(model)
    graph = load_graph(options.file, key=options.key, model=model)
    if options.run is not None:
        return execute(graph, options)
    refusal = None if options.target is None else _refusal(graph, options.target)
    if options.json:
        print(json.dumps(describe(graph) | _verdict(options.target, refusal), indent=2))
    else:
        _print_graph(graph, options.target, refusal)
    return 0 if refusal is None else 1


def _refusal(graph: Graph, target: str) -> str | None:
    try:
        check_graph(graph, target)
    except UnsupportedOpError as error:
        return str(error)
    return None


def _verdict(target: str | None, refusal: str | None) -> dict[str, Any]:
    return {} if target is None else {"checked": {"target": target, "refusal": refusal}}


def _list_package(options: argparse.Namespace, models: list[tuple[str, int]]) -> None:
    if options.json:
        listed = [{"name": name, "bytes": size} for name, size in models]
        print(json.dumps({"file": str(options.file), "models": listed}, indent=2))
        return
    from rich.text import Text

    console = _console()
    console.print(f"{options.file}: {len(models)} models", soft_wrap=True, markup=False)
    table = _table("", ("#", "name", "bytes"), right=(0, 2))
    for i, (name, size) in enumerate(models[:MAX_ROWS]):
        table.add_row(str(i), Text(_shown(name)), f"{size:,}")
    console.print(table)
    console.print("Select one with --model NAME or --model INDEX.", markup=False)


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS, highlight=False)


def _table(title: str, columns: Iterable[str], *, right: Iterable[int] = ()) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    heading = Text(title) if title else None
    table = Table(title=heading, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        justify = "right" if i in tuple(right) else "left"
        table.add_column(column, justify=justify, overflow="fold")  # type: ignore[arg-type]
    return table


def _print_graph(graph: Graph, target: str | None, refusal: str | None) -> None:
    from rich.text import Text

    console, facts = _console(), _shown(describe(graph))
    for line in _header_lines(facts):
        console.print(line, markup=False, soft_wrap=True)
    for title in ("inputs", "outputs"):
        table = _table(title, ("name", "type", "shape", "exponent"))
        for tensor in facts[title]:
            table.add_row(Text(tensor["name"]), tensor["type"], _shape(tensor), _exponents(tensor))
        console.print(table)
    console.print(_node_table(facts))
    if len(graph.nodes) > MAX_ROWS:
        console.print(f"and {len(graph.nodes) - MAX_ROWS} more nodes; --json lists all\n")
    if facts["caches"]:
        console.print(_cache_table(facts))
    for line in _size_lines(facts, graph):
        console.print(line, markup=False)
    for problem in facts["problems"] if target is None else ():
        console.print(f"ESP-DL cannot run {problem}", markup=False, style="red", soft_wrap=True)
    if refusal is not None:
        console.print(f"{target}: {refusal}", markup=False, style="red", soft_wrap=True)
    elif target is not None:
        console.print(f"{target}: every node is supported", markup=False, style="green")


def _shown(value: Any) -> Any:
    """Facts as a terminal may have them: no control characters, and of all that is long a part."""
    if isinstance(value, dict):
        return {_shown(k): _shown(v) for k, v in list(value.items())[:MAX_ROWS]}
    if isinstance(value, list):
        return [_shown(item) for item in value[:MAX_ROWS]]
    if isinstance(value, str):
        cut = value if len(value) <= MAX_TEXT else f"{value[:MAX_TEXT]}…"
        return printable(cut)
    return value


def _header_lines(facts: dict[str, Any]) -> list[str]:
    file, targets = facts["file"], facts["targets"]
    kind = f"{file['format']}, {'AES-128' if file['encrypted'] else 'plain'}"
    made = f", by {file['producer']}" if file["producer"] else ""
    lines = [
        f"{file['path']}: {kind}, {file['bytes']:,} bytes{made}",
        f"graph {file['graph']!r}, model version {file['model_version']}",
        f"target: {targets[0]}, by its contents"
        if len(targets) == 1
        else f"target: not in the file; by its filters {' or '.join(targets)}",
    ]
    if file["doc_string"]:
        lines.append(file["doc_string"])
    lines += [f"{name}: {value}" for name, value in facts["metadata"].items()]
    return [*lines, ""]


def _node_table(facts: dict[str, Any]) -> Table:
    from rich.text import Text

    columns = ("#", "operator", "name", "output", "exp", "details", "MACs")
    table = _table("nodes, in order of execution", columns, right=(0, 4, 6))
    for i, node in enumerate(facts["nodes"]):
        outputs = node["outputs"]
        table.add_row(
            str(i),
            Text(node["operator"]),
            Text(node["name"]),
            "\n".join(_shape(tensor) for tensor in outputs),
            "\n".join(_exponents(tensor) for tensor in outputs),
            Text(", ".join(_details(node["attributes"]))),
            f"{node['macs']:,}" if node["macs"] else "",
        )
    return table


def _details(attributes: dict[str, Any]) -> list[str]:
    found = []
    for name, label in DETAILS.items():
        value = attributes.get(name)
        values = value if isinstance(value, list) else [value]
        plain = (0,) if name == "pads" else UNREMARKABLE if name != "frame_axis" else ()
        if value is None or all(item in plain for item in values):
            continue
        shown = "x".join(map(str, values)) if name == "kernel_shape" else _join(values)
        found.append(f"{label}{shown}")
    return found


def _join(values: list[Any]) -> str:
    return " ".join(map(str, values))


def _cache_table(facts: dict[str, Any]) -> Table:
    from rich.text import Text

    columns = ("cache", "of tensor", "window, frames", "frame axis", "state, bytes")
    table = _table("caches", columns, right=(2, 3, 4))
    for cache in facts["caches"]:
        table.add_row(
            Text(cache["node"]),
            Text(cache["tensor"]),
            str(cache["window_frames"]),
            str(cache["frame_axis"]),
            f"{cache['state_bytes']:,}",
        )
    return table


def _size_lines(facts: dict[str, Any], graph: Graph) -> list[str]:
    sizes, tests = facts["sizes"], facts["tests"]
    lines = []
    if sizes is not None:
        lines = [
            f"{len(graph.nodes)} nodes, {sizes['macs']:,} multiply-accumulates a run",
            f"{len(graph.initializers)} constants, {sizes['parameter_bytes']:,} bytes; "
            f"activations {sizes['activation_bytes']:,} bytes; "
            f"state {sizes['state_bytes']:,} bytes",
        ]
    if tests["inputs"] or tests["outputs"]:
        lines.append(f"embedded test values: {_join(tests['inputs'] + tests['outputs'])}")
    return lines


def _shape(tensor: dict[str, Any]) -> str:
    return "x".join("?" if dim < 0 else str(dim) for dim in tensor["shape"]) or "scalar"


def _exponents(tensor: dict[str, Any]) -> str:
    exponents = tensor["exponents"]
    if tensor["type"].startswith("float"):
        return ""
    low, high = min(exponents), max(exponents)
    return str(low) if low == high else f"{low}..{high}"
