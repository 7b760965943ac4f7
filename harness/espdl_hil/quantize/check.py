"""Is a streaming file the same quantized network as its offline file? Knows files only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from espdl_hil.errors import QuantizeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from espdl_hil.espdl import Graph, Node

_PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))  # read int64 as a bias
_CACHE = "StreamingCache"
_TABLE = "lut"
_SHOWN = 3


def check_same_calibration(offline: Graph, streaming: Graph, chunk_frames: int) -> None:
    """Check that two files came from one calibration.

    Every weight, bias and look-up table of the offline file must be in the streaming file,
    byte for byte, and what the same node writes must have the same type and exponents.

    Raises:
        QuantizeError: stage ``check``; names the tensors that differ.
    """
    problems = []
    for name, other_name in _same_constants(offline, streaming):
        tensor, other = offline.initializers[name], streaming.initializers.get(other_name)
        if other is None:
            problems.append(f"constant {name} is missing")
        elif replace(tensor.info, name="") != replace(other.info, name=""):
            problems.append(f"constant {name} was {tensor.info}, is {other.info}")
        elif tensor.raw.tobytes() != other.raw.tobytes():
            problems.append(f"constant {name} has other values")
    for name, other_name in _same_tensors(offline, streaming):
        info, other_info = offline.info(name), streaming.info(other_name)
        if (info.dtype, info.exponents) != (other_info.dtype, other_info.exponents):
            problems.append(
                f"tensor {name} was {info.dtype} at exponent {info.exponents}, is "
                f"{other_info.dtype} at {other_info.exponents}"
            )
    for node in streaming.nodes:
        if node.op_type == _CACHE:
            source, result = streaming.info(node.inputs[0]), streaming.info(node.outputs[0])
            if (source.dtype, source.exponents) != (result.dtype, result.exponents):
                problems.append(f"cache {node.name} changes type or exponent of {source.name}")
    if problems:
        more = len(problems) - _SHOWN
        raise QuantizeError(
            f"the streaming file for chunks of {chunk_frames} frames is not the offline network: "
            + "; ".join(problems[:_SHOWN])
            + (f"; and {more} more" if more > 0 else ""),
            stage="check",
            hint="streaming passes may move and slice data, not change how it is quantized",
        )


def check_state(graph: Graph, state: Mapping[str, str]) -> None:
    """Check in any file of a model that each state output can be fed back as it is.

    Raises:
        QuantizeError: stage ``check``; types, shapes or exponents of a pair differ.
    """
    for source, sink in state.items():
        before, after = graph.info(source), graph.info(sink)
        if replace(before, name="") != replace(after, name=""):
            moved = sorted(before.shape) == sorted(after.shape) and before.shape != after.shape
            raise QuantizeError(
                f"state output {sink} ({after.dtype} {after.shape}, exponent {after.exponents}) "
                f"cannot be fed back to input {source} ({before.dtype} {before.shape}, exponent "
                f"{before.exponents})",
                stage="check",
                hint="what convolutions give lies as (1, frames, channels) in the file: let the "
                "state have its axes so, with state.transpose(1, 2) in forward, at both ends"
                if moved
                else "the state that goes out must be what the recurrent layer returns, unchanged",
            )


def _same_tensors(offline: Graph, streaming: Graph) -> list[tuple[str, str]]:
    """Pair the tensors of two files by who writes them: generated tensor names may be reused."""
    writers = {node.name: node for node in offline.nodes}
    pairs = [(info.name, info.name) for info in offline.inputs]
    for node in streaming.nodes:
        twin = writers.get(node.name)
        if twin is not None and twin.op_type == node.op_type:
            pairs += [pair for pair in zip(twin.outputs, node.outputs, strict=False) if all(pair)]
    return pairs


def _same_constants(offline: Graph, streaming: Graph) -> list[tuple[str, str]]:
    """Pair the constants of two files by who reads them, at which input; "" where there is none.

    The exporter numbers look-up tables in the order of the graph, so names may be exchanged.
    Left out are those that say where data goes, and those of a Pad that caches have replaced.
    """
    twins = {node.name: node for node in streaming.nodes}
    pairs: dict[tuple[str, str], None] = {}  # an ordered set
    for node in offline.nodes:
        twin = twins.get(node.name)
        if twin is None and node.op_type == "Pad":
            continue
        mine, theirs = _read(node), {} if twin is None else _read(twin)
        for place, name in mine.items():
            info = offline.initializers[name].info if name in offline.initializers else None
            if info and (info.dtype != "int64" or node.op_type in _PRODUCTS):
                pairs[name, theirs.get(place, "")] = None
    return list(pairs)


def _read(node: Node) -> dict[int | str, str]:
    """Names of what a node reads, its look-up table too."""
    table = node.attributes.get(_TABLE)
    return {**dict(enumerate(node.inputs)), **({_TABLE: str(table)} if table else {})}
