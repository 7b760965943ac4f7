"""Is a streaming file the same quantized network as its offline file? Knows files only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.errors import QuantizeError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from espdl_hil.espdl import Graph

_PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "MatMul"))  # read int64 as a bias
_CACHE = "StreamingCache"
_SHOWN = 3


def check_same_calibration(offline: Graph, streaming: Graph, chunk_frames: int) -> None:
    """Check that two files came from one calibration.

    Every weight, bias and look-up table of the offline file must be in the streaming file,
    byte for byte, and what the same node writes must have the same type and exponents.

    Args:
        offline: The non-streaming file.
        streaming: The streaming file.
        chunk_frames: Its chunk size, for the message.

    Raises:
        QuantizeError: stage ``check``; names the tensors that differ.
    """
    structural = _structural(offline) | _structural(streaming)
    problems = []
    for name, tensor in offline.initializers.items():
        if name in structural:
            continue
        other = streaming.initializers.get(name)
        if other is None:
            problems.append(f"constant {name} is missing")
        elif tensor.info != other.info:
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
    """Check that each state output can be fed back as it is.

    Args:
        graph: Any file of the model.
        state: Graph input to graph output.

    Raises:
        QuantizeError: stage ``check``; types, shapes or exponents of a pair differ.
    """
    for source, sink in state.items():
        before, after = graph.info(source), graph.info(sink)
        if (before.dtype, before.shape, before.exponents) != (
            after.dtype,
            after.shape,
            after.exponents,
        ):
            raise QuantizeError(
                f"state output {sink} ({after.dtype} {after.shape}, exponent {after.exponents}) "
                f"cannot be fed back to input {source} ({before.dtype} {before.shape}, exponent "
                f"{before.exponents})",
                stage="check",
                hint="the state that goes out must be what the recurrent layer returns, unchanged",
            )


def check_alive(outputs: Mapping[str, NDArray[Any]]) -> None:
    """Check that the quantized network says anything: equal constants prove nothing.

    Args:
        outputs: What it gave for the stimulus, by name, without recurrent state.

    Raises:
        QuantizeError: stage ``check``; every output holds one value only.
    """
    if any(array.size == 1 or np.ptp(array) for array in outputs.values()):
        return
    values = ", ".join(f"{name} is {array.flat[0]:g}" for name, array in outputs.items())
    raise QuantizeError(
        f"the quantized network gives the same value everywhere ({values}): a comparison would "
        "prove nothing",
        stage="check",
        hint="its weights may be untrained or its outputs saturated; give it trained weights, or "
        "a calibration like what it will see",
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


def _structural(graph: Graph) -> set[str]:
    """Return the constants that say where data goes, which a conversion may edit."""
    arithmetic = {name for node in graph.nodes if node.op_type in _PRODUCTS for name in node.inputs}
    return {
        name
        for name, tensor in graph.initializers.items()
        if tensor.info.dtype == "int64" and name not in arithmetic
    }
