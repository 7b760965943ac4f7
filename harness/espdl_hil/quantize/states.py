"""How a recurrent state is quantized on its way: it is fed back as it is. Runs only in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from esp_ppq.core import LSTM_QUANT_EXPONENT, QuantizationStates
from esp_ppq.IR.quantize import QuantableOperation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_STATES = {"GRU": ((5, 1),), "LSTM": ((5, 1), (6, 2))}  # (input, output) of each state
_MOVERS = frozenset(
    (
        *("Concat", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze"),
        *("Transpose", "Unsqueeze"),
    )
)
_CELL_STEP = torch.tensor(2.0**LSTM_QUANT_EXPONENT)


def align_state(graph: Any, source: str, sink: str) -> None:
    """Give a state one exponent on its whole way: it is fed back as it is.

    esp-ppq aligns each layer for itself, so two layers whose states lie in one tensor differ.
    """
    movers, layers = _way(graph, source, sink)
    ends = [(op, entry, end) for op in layers for entry, end in _slots(op, movers, {source, sink})]
    hidden = [op.output_quant_config[1] for op, _, end in ends if end == 1]
    cells = [(op, entry) for op, entry, end in ends if end == 2]
    movers = [op for op in movers if isinstance(op, QuantableOperation)]
    configs = [config for op in movers for config in _moved_configs(op)]
    if not movers:
        return
    if cells:
        for op in movers:  # a cell state has 16 bits at any width
            op.platform = _of_16_bits(cells[0][0].platform)
        for config in configs:
            vars(config)["_dominator"] = config
            set_step(config, _CELL_STEP.clone())
            config.num_of_bits, config.quant_min, config.quant_max = 16, -(2**15), 2**15 - 1
            config.state = QuantizationStates.PASSIVE
        for config in {c.dominated_by: None for c in hidden}:  # it lies beside
            narrow = config.num_of_bits < 16
            set_step(config, torch.maximum(config.scale, _CELL_STEP) if narrow else _CELL_STEP)
    elif hidden:
        scale = max(hidden, key=lambda config: float(config.scale.max())).scale.clone()
        for config in {c.dominated_by: None for c in hidden + configs}:
            set_step(config, scale)


def _of_16_bits(platform: Any) -> Any:
    return type(platform)[platform.name.replace("INT8", "INT16")]


def state_groups(graph: Any, state: Mapping[str, str]) -> list[set[str]]:
    """Names of the nodes that hold or move each state; they are to have one width."""
    ways = [_way(graph, source, sink) for source, sink in state.items()]
    return [{op.name for op in (*movers, *layers)} for movers, layers in ways]


def _way(graph: Any, source: str, sink: str) -> tuple[list[Any], list[Any]]:
    """Nodes that move the elements of a state, and the layers at their ends."""
    movers: dict[Any, None] = {}
    layers: dict[Any, None] = {}
    todo = [graph.inputs[source], graph.outputs[sink]]
    seen = set()
    while todo:
        variable = todo.pop()
        seen.add(variable.name)
        around = [*variable.dest_ops, *([variable.source_op] if variable.source_op else [])]
        for op in around:
            if op.type in _STATES:
                layers[op] = None
            elif op.type in _MOVERS and op not in movers:
                movers[op] = None
                ends = [v for v in (*op.inputs, *op.outputs) if not v.is_parameter]
                todo += [v for v in ends if v.name not in seen]
    return list(movers), list(layers)


def _slots(op: Any, movers: Sequence[Any], ends: set[str]) -> Iterator[tuple[int, int]]:
    """Which states of a layer are on the way."""
    on_way = {v.name for mover in movers for v in (*mover.inputs, *mover.outputs)}
    for entry, end in _STATES[op.type]:
        if entry < len(op.inputs) and op.inputs[entry].name in on_way | ends:
            yield entry, end


def _moved_configs(op: Any) -> list[Any]:
    return [
        config
        for config, variable in op.config_with_variable
        if not variable.is_parameter and config.scale is not None
    ]


def set_step(config: Any, scale: Any) -> None:
    """Set the step of a root, active or not: esp-ppq's setter refuses those it has aligned."""
    vars(config).update(_scale=scale, _offset=torch.zeros_like(scale))
