"""What the report shows of the float network: an error budget, and what each layer keeps."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.compare import TAIL
from espdl_hil.streaming.names import is_made_up, module_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from espdl_hil.compare import Tensors
    from espdl_hil.proof.expected import Expected

    Picture = dict[str, Any]


def error_budget(
    expected: Expected, stream: Sequence[Tensors], offline: Mapping[str, Any]
) -> list[Picture]:
    """Where the difference between stream and float model comes from, in mean squares.

    ::

        stream - float = (esp-ppq - float) + (device's offline run - esp-ppq) + (stream - offline)

    The square of a sum is more than the sum of the squares: what is left over is said, too, so
    that the parts add up.

    Returns:
        An entry an output that has a time axis and a float counterpart; in steps, or in units of
        the model where the output is float.
    """
    found = []
    exponents = {info.name: info.exponents for info in expected.offline_graph.outputs}
    for alignment in expected.plan.alignments:
        name, axis = alignment.output, alignment.frame_axis
        if alignment.kind == TAIL or alignment.state_input or axis < 0:
            continue
        if name not in expected.artifacts.float_outputs:
            continue
        real = np.moveaxis(expected.artifacts.float_outputs[name], axis, 0)
        streamed = np.concatenate([np.moveaxis(step[name], axis, 0) for step in stream])
        late, warm = alignment.latency_frames, alignment.warmup_frames
        end = min(len(real), len(streamed) - late)
        if end <= warm:
            continue
        step = 1.0 if streamed.dtype.kind == "f" else 2.0 ** exponents[name][0]
        whole = [
            np.moveaxis(array[name], axis, 0)[warm:end].astype(np.float64)
            for array in (expected.artifacts.reference, offline)
        ]
        stages = [
            real[warm:end].astype(np.float64) / step,
            *whole,
            streamed[late + warm : late + end].astype(np.float64),
        ]
        parts = [_square(b - a) for a, b in itertools.pairwise(stages)]
        total = _square(stages[-1] - stages[0])
        if not np.isfinite(total):
            continue
        keys = ("quantization", "device", "streaming")
        found.append(
            {
                "output": name,
                "unit": "" if streamed.dtype.kind == "f" else "LSB",
                "signal": _square(stages[0]),
                "total": total,
                **dict(zip(keys, parts, strict=True)),
                "together": total - sum(parts),
            }
        )
    return found


def _square(values: NDArray[np.float64]) -> float:
    return float(np.mean(np.square(values)))


def draw_layers(expected: Expected) -> list[Picture]:
    """The streaming file's nodes in order of execution, with what each keeps of the float network.

    Returns:
        An entry a node; graph inputs first. ``inputs`` are numbers of entries.
    """
    graph, plan = expected.streaming_graph, expected.plan
    rungs = {rung.tensor: rung for rung in expected.ladder.rungs}
    axes = expected.artifacts.frame_axes
    outputs = {info.name for info in graph.outputs}
    made: dict[str, int] = {}
    layers: list[Picture] = []

    def add(operator: str, name: str, tensor: str, reads: Sequence[str], keeps: int = 0) -> None:
        weights = [source for source in reads if source in graph.initializers]
        rung, shape, axis = rungs.get(tensor), plan.shapes.get(tensor), axes.get(tensor)
        layers.append(
            {
                "operator": operator,
                "node": name,
                "module": module_of(name, operator, weights),
                "made_up": is_made_up(name),
                "tensor": tensor,
                "inputs": sorted({made[source] for source in reads if source in made}),
                "frames": shape[axis] if shape and axis is not None and axis < len(shape) else None,
                "keeps": keeps,
                "changes_db": rung and round(rung.changes_db, 2),
                "clipped": rung and round(rung.clipped, 6),
                "saturated": rung and round(rung.saturated, 6),
                "output": tensor in outputs,
            }
        )

    for info in graph.inputs:
        add("Input", info.name, info.name, ())
        made[info.name] = len(layers) - 1
    for node in graph.nodes:
        window = node.attributes.get("window_size") if node.op_type == "StreamingCache" else None
        keeps = int(window) - 1 if isinstance(window, int) else 0
        add(node.op_type, node.name, node.outputs[0], node.inputs, keeps)
        made |= dict.fromkeys(filter(None, node.outputs), len(layers) - 1)
    return layers
