"""The float module: built and run, with what its author got wrong in it named with file and line.

Runs only in a worker process.
"""

from __future__ import annotations

import inspect
import random
import re
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from espdl_hil.errors import QuantizeError
from espdl_hil.model import describe_error, raised_at
from espdl_hil.streaming import refuse, rules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType

    from numpy.typing import NDArray

    from espdl_hil.model import StreamingModel
    from espdl_hil.quantize.artifacts import Arrays

NO_FUNCTION = "forward gives something else when it runs again on the same input"
NO_RANDOM = "write F.dropout(x, training=self.training), and draw no random numbers"
_DRAWS = 5  # times that a coin is thrown: it may well show the same side twice
_HERE = str(Path(__file__).parent)
_TORCH = str(Path(torch.__file__).parent)
_SIZES = re.compile(r"size|shape|channel|dimension", re.IGNORECASE)


def build_module(model: StreamingModel) -> Any:
    """Run ``build``, and return its module in evaluation mode.

    Raises:
        QuantizeError: stage ``build``; it raised, or its parameters cannot be computed with.
    """
    random.seed(model.seed)
    torch.manual_seed(model.seed)
    assert model.build is not None, "ConfigError otherwise"
    assert model.source is not None
    try:
        module = model.build()
    except Exception as error:
        message = f"build() raised {describe_error(error)} (at {raised_at(error, model.source)})"
        hint = None
        if isinstance(model.build, type):
            hint = "build is a class: give build=lambda: Network(..) with what it takes"
        elif "CUDA" in str(error):
            hint = (
                "it is quantized on the CPU: leave .cuda() out, torch.load(.., map_location='cpu')"
            )
        raise QuantizeError(message, stage="build", hint=hint) from error
    if not isinstance(module, torch.nn.Module):
        raise QuantizeError(
            f"build() returned a {type(module).__name__}, expected a torch.nn.Module",
            stage="build",
            hint="end build with: return network",
        )
    module = getattr(module, "_orig_mod", module)  # of torch.compile
    _check_parameters(module)
    return module.eval()


def run_module(
    module: Any,
    inputs: Mapping[str, NDArray[Any]],
    outputs: Sequence[str],
    follow: Callable[[Sequence[Any]], object] | None = None,
) -> Arrays:
    """Run the float module.

    Args:
        module: A ``torch.nn.Module`` in evaluation mode.
        inputs: float32 by name, in the order of ``forward``'s arguments.
        outputs: Names of what it returns.
        follow: Gets the tensors that it is given: copies, which it may change in place.

    Raises:
        QuantizeError: stage ``build``; it raised, or returned something else than *outputs* says.
    """
    shapes = ", ".join(f"{name} {array.shape}" for name, array in inputs.items())
    given = [torch.from_numpy(array.copy()) for array in inputs.values()]
    if follow:
        follow(given)
    try:
        with torch.no_grad():
            result = module(*given)
    except Exception as error:
        raise QuantizeError(
            f"forward({shapes}) raised {describe_error(error)}{_raised_in(error)}",
            stage="build",
            hint=_hint(error, module),
        ) from error
    values = _flatten(result)
    if len(values) != len(outputs) or not all(isinstance(value, torch.Tensor) for value in values):
        kinds = ", ".join(sorted({type(value).__name__ for value in values}))
        raise QuantizeError(
            f"forward({shapes}) returned {len(values)} value(s) of type {kinds}; the model "
            f"declares outputs = {tuple(outputs)}",
            stage="build",
            hint="return one tensor for each name in outputs, in that order: no dictionary",
        )
    return {name: value.float().numpy().copy() for name, value in zip(outputs, values, strict=True)}


def run_first(module: Any, inputs: Arrays, names: Sequence[str]) -> Arrays:
    """Run the float module for what it gives, and check that run.

    Raises:
        QuantizeError: stage ``build``; as ``run_module`` and ``check_run`` do, or it draws random
            numbers that its outputs depend on.
        StreamingError: as ``check_run`` does.
    """
    state = torch.get_rng_state()
    outputs = run_module(module, inputs, names)
    drawn = not torch.equal(state, torch.get_rng_state())
    check_run(module, inputs, outputs)
    for _ in range(_DRAWS if drawn else 0):
        with _Draws() as first:
            again = run_module(module, inputs, names)
        if not all(np.array_equal(again[name], value) for name, value in outputs.items()):
            raise QuantizeError(
                f"{NO_FUNCTION}: it draws random numbers{first.place and f' at {first.place}'}",
                stage="build",
                hint=NO_RANDOM,
            )
    return outputs


def check_run(module: Any, inputs: Arrays, outputs: Arrays) -> None:
    """See that a first run was one of evaluation, and gave numbers.

    Raises:
        QuantizeError: stage ``build``; names the module in training mode, or the line.
        StreamingError: a batch normalization has no statistics of its own.
    """
    training = [name for name, child in module.named_modules() if name and child.training]
    if training:
        raise QuantizeError(
            f"forward puts {', '.join(training)} into training mode, where it computes with "
            "statistics of the whole sequence or drops values at random",
            stage="build",
            hint="leave .train() to the training script; what runs on the chip is .eval()",
        )
    for name, child in module.named_modules():
        if isinstance(child, _BatchNorm) and child.running_mean is None:
            reason = "it keeps no running statistics, so it takes those of the whole sequence"
            raise refuse(rules.NORMALIZATION, name, reason)
    spoiled = [name for name, value in outputs.items() if not np.isfinite(value).all()]
    if spoiled:
        with _Finite() as first:
            run_module(module, inputs, list(outputs))
        raise QuantizeError(
            f"output {', '.join(map(repr, spoiled))} of the float network holds NaN or inf for the "
            f"stimulus{first.place and f', first at {first.place}'}",
            stage="build",
            hint="keep what is divided by, and what a root or logarithm is taken of, above zero: "
            "torch.log(x.clamp(min=1e-3)); or give a stimulus of values that it is made for",
        )


def attributes(module: Any) -> Iterator[tuple[str, Any]]:
    """What the modules hold besides parameters, as ``self.buffer``: copies."""
    for path, child in module.named_modules():
        for name, value in {**vars(child), **dict(child.named_buffers(recurse=False))}.items():
            where = ".".join(filter(None, ("self", path, name)))
            if isinstance(value, torch.Tensor):
                yield where, value.detach().clone()
            elif isinstance(value, int | float) and not name.startswith("_"):
                yield where, torch.tensor(value)


def lines_of(module: Any, pattern: str) -> list[str]:
    """Lines of the ``forward`` functions of a user's modules, as ``file:line``."""
    found = []
    for kind in dict.fromkeys(type(child) for child in module.modules()):
        if not kind.__module__.startswith("torch."):
            lines, first = inspect.getsourcelines(kind.forward)
            name = Path(inspect.getfile(kind.forward)).name
            here = (first + i for i, text in enumerate(lines) if re.search(pattern, text))
            found += [f"{name}:{number}" for number in here]
    return found


def user_frame() -> FrameType | None:
    """The innermost frame of what ``forward`` runs, without torch's own; None outside of it."""
    frame = inspect.currentframe()
    while frame and frame.f_code.co_filename.startswith((_TORCH, _HERE)):
        if frame.f_code is run_module.__code__:
            return None
        frame = frame.f_back
    return frame


class _Finite(TorchFunctionMode):
    """Notes the line of ``forward`` that gives the first NaN or inf, as ``file:line``."""

    def __init__(self) -> None:
        super().__init__()
        self.place = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.place and not all(map(_finite, tree_leaves(result))):
            self.place = _user_line()
        return result


class _Draws(TorchFunctionMode):
    """Notes the line of ``forward`` that first draws from torch's generator, as ``file:line``."""

    def __init__(self) -> None:
        super().__init__()
        self.place = ""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        state = torch.get_rng_state()
        result = func(*args, **(kwargs or {}))
        if not self.place and not torch.equal(state, torch.get_rng_state()):
            self.place = _user_line()
        return result


def _user_line() -> str:
    frame = user_frame()
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else ""


def _finite(value: Any) -> bool:
    floats = isinstance(value, torch.Tensor) and value.is_floating_point()
    return not floats or bool(torch.isfinite(value).all())


def _check_parameters(module: Any) -> None:
    """Refuse weights that are no numbers, or that are not on the CPU.

    Raises:
        QuantizeError: stage ``build``; names every parameter and buffer that is so.
    """
    tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    lazy = [name for name, tensor in tensors.items() if is_lazy(tensor)]
    if lazy:
        raise QuantizeError(
            f"parameters without a shape: {', '.join(lazy)}",
            stage="build",
            hint="give lazy modules their sizes, or run the network once at the end of build()",
        )
    moved = [f"{n} on {tensor.device}" for n, tensor in tensors.items() if not tensor.is_cpu]
    if moved:
        raise QuantizeError(
            f"parameters that are not on the CPU: {'; '.join(moved)}",
            stage="build",
            hint="end build with: return network.to('cpu'); a meta device holds no weights",
        )
    found = [
        f"{name} {tuple(tensor.shape)} holds {', '.join(kinds)}"
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point()
        and (
            kinds := [
                f"{count} {kind}"
                for kind, where in (("NaN", tensor.isnan()), ("inf", tensor.isinf()))
                if (count := int(where.sum()))
            ]
        )
    ]
    if found:
        raise QuantizeError(
            "parameters that are not finite: " + "; ".join(found),
            stage="build",
            hint="the training has diverged, or the file that build() loads is damaged: look at "
            "these parameters where they come from",
        )


def other_floats(module: Any) -> str:
    """Say which parameters have another width than float32; empty if none has."""
    tensors = (*module.named_parameters(), *module.named_buffers())
    kinds = {n: str(t.dtype).removeprefix("torch.") for n, t in tensors if t.is_floating_point()}
    found = [f"{name} is {kind}" for name, kind in kinds.items() if kind != "float32"]
    return f"{', '.join(found)}: end build with return network.float()" if found else ""


def _hint(error: Exception, module: Any) -> str:
    """What to do about an error in ``forward``."""
    if isinstance(error, TypeError) and "forward()" in str(error):
        return "input_shape names one input for each argument of forward, in their order"
    if isinstance(error, RuntimeError):
        other = other_floats(module)
        if other or _SIZES.search(str(error)):
            return other or "input_shape must be what the module takes"
    return "mend this line; build()(torch.zeros(..)) of input_shape runs it alone"


def _raised_in(error: Exception) -> str:
    """Where the author's own code was last, as `` (at file:line)``."""
    for step in reversed(traceback.extract_tb(error.__traceback__)):
        if not step.filename.startswith((_TORCH, _HERE)):
            return f" (at {Path(step.filename).name}:{step.lineno})"
    return ""


def _flatten(value: Any) -> list[Any]:
    if isinstance(value, tuple | list):
        return [leaf for entry in value for leaf in _flatten(entry)]
    return [value]
