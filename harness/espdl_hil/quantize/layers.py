"""Which width each node of a network gets: module paths and node names. Runs only in a worker."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from espdl_hil.errors import QuantizeError
from espdl_hil.streaming.names import module_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

_FUSED = ("Relu", "Clip")
_SHOWN = 60


def choose_bits(
    graph: Any, bits: int, layer_bits: Mapping[str, int], quantized: Collection[str]
) -> dict[str, int]:
    """Give nodes the width that is asked for.

    An activation that becomes part of the layer before it has that layer's width, and layers whose
    states lie in one tensor have one width: what no name speaks of follows what one does.

    Args:
        graph: The float network as esp-ppq reads it.
        bits: Of what no name speaks of.
        layer_bits: See ``Quantization``.
        quantized: Operators that esp-ppq quantizes.

    Returns:
        By node, those that are to be quantized at another width.

    Raises:
        QuantizeError: stage ``calibrate``; a name fits no node.
    """
    operations = [op for op in graph.operations.values() if op.type in quantized]
    paths = {
        op.name: module_of(op.name, op.type, [v.name for v in op.inputs[1:] if v.is_parameter])
        for op in operations
    }
    unknown = [key for key in layer_bits if not any(fits(key, name, paths[name]) for name in paths)]
    if unknown:
        raise QuantizeError(
            f"quantization: the network has no layer {', '.join(map(repr, unknown))}; it has "
            + _listed(paths),
            stage="calibrate",
            hint="give a module path, which stands for all below it too, or the name of a node",
        )
    named = {
        name: layer_bits[max(keys, key=len)]
        for name, path in paths.items()
        if (keys := [key for key in layer_bits if fits(key, name, path)])
    }
    for op in operations:
        following = op.outputs[0].dest_ops
        if len(following) == 1 and following[0].type in _FUSED:
            pair = (op.name, following[0].name)
            given = [named[name] for name in pair if name in named]
            named |= dict.fromkeys(pair, given[0]) if given else {}
    return {name: width for name, width in named.items() if width != bits}


def share_bits(chosen: dict[str, int], groups: Iterable[Collection[str]]) -> None:
    """Give the nodes of each group one width: that of the first that was chosen."""
    for group in groups:
        given = [chosen[name] for name in group if name in chosen]
        chosen.update(dict.fromkeys(group, given[0]) if given else {})


def fits(key: str, name: str, path: str) -> bool:
    """Whether a key of ``Quantization.layer_bits`` speaks of a node."""
    return key in (name, path) or path.startswith(f"{key}.")


def _listed(paths: Mapping[str, str]) -> str:
    names = sorted({path or name for name, path in paths.items()})
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(itertools.islice(names, _SHOWN)) + more
