"""``espdl-hil inspect --run``: from arrays in a file to every result in another."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import numpy as np

from espdl_hil.errors import ConfigError
from espdl_hil.formats.npz import UNREADABLE, read_npz
from espdl_hil.interpreter import load

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from espdl_hil.espdl import Array, Graph, TensorInfo
    from espdl_hil.interpreter import Execution

MAX_RESULT_BYTES = 2**30  # a chunk of one byte can give results of many


def execute(graph: Graph, options: argparse.Namespace) -> int:
    """Execute the graph chunk by chunk and store the results.

    Args:
        graph: What to run.
        options: Of ``inspect``: ``run``, ``output``, ``target`` and ``all``.

    Raises:
        HarnessError: A file cannot be read or written, the arrays do not fit the graph, or ESP-DL
            cannot run it.
    """
    inputs, chunks = _read_inputs(options.run, graph)
    execution = load(graph, options.target)
    results = _room(execution, every=options.all, chunks=chunks or 1)
    for chunk in range(chunks or 1):
        step = {name: array if chunks is None else array[chunk] for name, array in inputs.items()}
        made = {**execution.trace, **execution.step(step)}
        for name, places in results.items():
            places[chunk] = made[name]
    stored = {n: a[0] if chunks is None else a for n, a in results.items()}
    _write_arrays(options.output, stored)
    runs = "1 run" if chunks is None else f"{chunks} chunks"
    print(f"{options.output}: {len(stored)} tensors of {runs} on {options.target}")
    return 0


def _room(execution: Execution, *, every: bool, chunks: int) -> dict[str, Array]:
    """Memory for the results by name, (chunks, ...) each; of *every* node, or outputs alone."""
    kept: dict[str, TensorInfo | Array] = {info.name: info for info in execution.outputs}
    kept |= execution.trace if every else {}
    size = chunks * sum(tensor.nbytes for tensor in kept.values())
    if size > MAX_RESULT_BYTES:
        raise ConfigError(
            f"the results of {chunks} chunks take {size} bytes, {MAX_RESULT_BYTES} are the most",
            hint="run fewer chunks at a time, or leave --all out",
        )
    return {name: np.empty((chunks, *like.shape), like.dtype) for name, like in kept.items()}


def _write_arrays(path: Path, arrays: dict[str, Array]) -> None:
    """Like ``numpy.savez``, which cannot store a tensor that is named ``file``."""
    try:
        with zipfile.ZipFile(path, "w") as archive:
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def _read_inputs(path: Path, graph: Graph) -> tuple[dict[str, Array], int | None]:
    """Arrays by input name, and the number of chunks, or None for a single run."""
    try:
        arrays = read_npz(path)
    except UNREADABLE as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    names = {info.name for info in graph.inputs}
    if set(arrays) != names:
        raise ConfigError(f"{path} holds {sorted(arrays)}, the graph inputs are {sorted(names)}")
    counts = {_chunks(arrays[info.name], info, path) for info in graph.inputs}
    if len(counts) != 1:
        raise ConfigError(f"{path}: the inputs do not have the same number of chunks")
    return arrays, counts.pop()


def _chunks(array: Array, info: TensorInfo, path: Path) -> int | None:
    shape = array.shape
    if array.dtype != info.dtype or info.shape not in (shape, shape[1:]) or not array.size:
        raise ConfigError(
            f"{path}: {info.name!r} is {array.dtype} {shape}, the graph takes {info.dtype} "
            f"{info.shape}",
            hint="quantize to integers in the file's layout; add one leading axis for chunks",
        )
    return None if shape == info.shape else shape[0]
