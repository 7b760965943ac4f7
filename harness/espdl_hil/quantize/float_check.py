"""Is the traced ONNX graph the module that was trained? Runs only in a worker process.

A trace keeps what ``forward`` did once: a Python number taken from the data, and the branch
that it led to, become constants. So the graph runs beside the module on the stimulus, on another
sequence, and on a longer one where the network takes it.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from espdl_hil.errors import QuantizeError
from espdl_hil.model import describe_error
from espdl_hil.quantize.float_module import (
    NO_FUNCTION,
    NO_RANDOM,
    attributes,
    lines_of,
    other_floats,
    run_module,
    user_frame,
)
from espdl_hil.quantize.onnx_session import open_session
from espdl_hil.streaming import refuse, rules

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from espdl_hil.model import StreamingModel
    from espdl_hil.quantize.artifacts import Arrays
    from espdl_hil.streaming import Rule

# Of the largest value: two float32 libraries differ by 1e-6 a layer, a constant that was taken
# from the data by as much as the data do.
TOLERANCE = 1e-3
_NOISE = 1e-7  # differences that a signal of zeros may have
_TO_PYTHON = frozenset(
    (
        *("item", "tolist", "numpy", "__array__", "__bool__", "__float__", "__int__"),
        *("__index__", "equal", "allclose", "is_nonzero"),
    )
)
_LENGTH = r"\.shape\b|\.size\(|\blen\("


def check_trace(
    module: Any,
    model: StreamingModel,
    path: Path,
    stimulus: Arrays,
    outputs: Arrays,
    states: Arrays,
    warned: list[str],
) -> None:
    """Compare the ONNX graph with the module, in evaluation mode, that it was traced from.

    *outputs* is what the module gives for *stimulus*, *states* inputs whose states are as the
    network leaves them, and *warned* the ``file:line`` of what the tracer warned of.

    Raises:
        StreamingError: the graph keeps what the data, or their length, were at the trace.
        QuantizeError: stage ``build``; the module is not a function of its inputs.
    """
    run = _runner(path, model.outputs, module)
    kept = dict(attributes(module))

    def of_another_order(level: int) -> tuple[Arrays, Arrays, _Watch]:
        inputs = {
            name: np.ascontiguousarray(level * np.flip(array, model.frame_axes[name]))
            if name in model.frame_axes
            else states[name]
            for name, array in stimulus.items()
        }
        with _Watch() as watch:
            return inputs, run_module(module, inputs, model.outputs, watch.follow), watch

    try:
        other, values, watch = of_another_order(level=2)
    except QuantizeError:  # it takes certain values only, such as indices
        other, values, watch = of_another_order(level=1)
    _check_kept(module, kept, outputs, stimulus)
    places = watch.places or warned
    for inputs, wanted in ((stimulus, outputs), (other, values)):
        different = _difference(wanted, run(inputs))
        if different and _difference(wanted, run_module(module, inputs, model.outputs)):
            raise QuantizeError(
                NO_FUNCTION,
                stage="build",
                hint=NO_RANDOM,
            )
        if different:
            raise _refusal(rules.BAKED_DATA, module, places, different)
    if watch.places:
        raise _refusal(rules.BAKED_DATA, module, places, "the data decide what is computed")
    _check_length(module, model, run, stimulus, warned)


def _check_kept(module: Any, kept: Arrays, outputs: Arrays, stimulus: Arrays) -> None:
    """Refuse a module whose attributes another run has changed: no graph has such a state."""
    changed = {n: v for n, v in attributes(module) if n not in kept or not _same(kept[n], v)}
    if changed and _difference(outputs, run_module(module, stimulus, list(outputs))):
        name = min(changed, key=lambda name: changed[name].numel() < 2)  # rather the tensor
        word = name.rpartition(".")[2]
        raise QuantizeError(
            f"{NO_FUNCTION}: it changes {', '.join(changed)}",
            stage="build",
            hint=f"take what {name} holds as an input of forward and return what it becomes; name "
            f"both, as state={{'{word}': '{word}_out'}} in StreamingModel",
        )


def _same(one: Any, other: Any) -> bool:
    return bool(one.shape == other.shape and torch.equal(one, other))


def _check_length(
    module: Any,
    model: StreamingModel,
    run: Callable[[Arrays], Arrays],
    stimulus: Arrays,
    warned: list[str],
) -> None:
    """Compare at another length, if module and graph take it.

    Where the graph does not run, or gives another number of frames, its constants say where data
    go, and the streaming analysis judges them.
    """
    more = model.chunk_of(model.chunk_frames[0])
    axes = model.frame_axes
    longer = {
        name: np.concatenate([array, np.take(array, range(more[name]), axes[name])], axes[name])
        if name in axes
        else array
        for name, array in stimulus.items()
    }
    try:
        wanted, found = run_module(module, longer, model.outputs), run(longer)
    except QuantizeError:
        return
    same = {name: value for name, value in wanted.items() if value.shape == found[name].shape}
    different = _difference(same, found)
    if different:
        frames = model.frames + next(iter(more.values()))
        what = f"with {frames} instead of {model.frames} frames, {different}"
        raise _refusal(rules.BAKED_LENGTH, module, lines_of(module, _LENGTH) or warned, what)


def _runner(path: Path, outputs: Sequence[str], module: Any) -> Callable[[Arrays], Arrays]:
    """Load the graph so that it runs at any length."""
    proto = onnx.load(path)
    del proto.graph.value_info[:]
    for info in (*proto.graph.input, *proto.graph.output):
        for dimension in info.type.tensor_type.shape.dim:
            dimension.Clear()

    def run(inputs: Arrays) -> Arrays:
        try:
            values = session.run(list(outputs), inputs)
        except Exception as error:
            raise QuantizeError(
                f"the ONNX graph does not run: {describe_error(error)}", stage="build"
            ) from error
        return dict(zip(outputs, values, strict=True))

    try:
        session = open_session(proto.SerializeToString(), optimized=False)
    except Exception as error:
        raise QuantizeError(
            f"the ONNX graph does not load: {describe_error(error)}",
            stage="build",
            hint=other_floats(module) or "compute with float32 throughout, without autocast",
        ) from error
    return run


def _difference(wanted: Arrays, found: Arrays) -> str:
    """Say where two runs differ; empty when they do not."""
    for name, value in wanted.items():
        other = found[name]
        if value.shape != other.shape:
            return f"output {name!r} of the trace is {other.shape}, of the module {value.shape}"
        same = (value == other) | (np.isnan(value) & np.isnan(other))
        error = np.where(same, 0, np.abs(np.where(same, 0, value) - np.where(same, 0, other)))
        peak = np.abs(value[np.isfinite(value)]).max(initial=0)
        if not (error <= TOLERANCE * peak + _NOISE).all():
            worst = np.nanmax(error, initial=0)
            return f"output {name!r} of the trace differs by up to {worst:.3g} of {peak:.3g}"
    return ""


def _refusal(rule: Rule, module: Any, places: Sequence[str], what: str) -> Exception:
    named = list(dict.fromkeys(places)) or lines_of(module, "def forward")
    return refuse(rule, ", ".join(named), what)


class _Watch(TorchFunctionMode):
    """Follows the data through ``forward``, and notes where they become Python values.

    Attributes:
        places: ``file:line`` of each; not of an assertion, a guard that only raises, or a call
            whose value is dropped (a print).
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []
        # By the address of the storage, which views and in-place results share.
        self._data: dict[int, Any] = {}

    def follow(self, tensors: Sequence[Any]) -> None:
        """Take these for the data."""
        self._data.update((_storage(tensor), tensor) for tensor in tensors)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(_storage(tensor) in self._data for tensor in given):
            if getattr(func, "__name__", "") in _TO_PYTHON:
                self._note()
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self._data[_storage(leaf)] = leaf
        return result

    def _note(self) -> None:
        frame = user_frame()
        if frame and not _is_guard(path := Path(frame.f_code.co_filename), frame.f_lineno):
            self.places.append(f"{path.name}:{frame.f_lineno}")


def _storage(tensor: Any) -> int:
    return int(tensor.untyped_storage().data_ptr())


def _is_guard(path: Path, line: int) -> bool:
    """Whether the statement at a line leaves nothing behind but perhaps an exception."""
    around = [
        node
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.stmt) and node.lineno <= line <= (node.end_lineno or 0)
    ]
    at = min(around, key=lambda node: (node.end_lineno or 0) - node.lineno)
    if isinstance(at, ast.If):
        return not at.orelse and all(isinstance(body, ast.Raise) for body in at.body)
    return isinstance(at, ast.Assert | ast.Raise | ast.Expr)
