"""Decompositions of what ESP-DL has no operator for, or ONNX no word, into operators that it has.

Each one computes the same in other steps. ``float_check`` compares the trace with the module as
it was written, so a wrong one cannot pass. Runs only in a worker process.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody writes it
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakIdKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable

_LARGEST_TABLE = 4  # axes of what PRelu takes as it is


class Decomposed(TorchFunctionMode):
    """While it is entered, functions of ``DECOMPOSITIONS`` are computed so.

    Zeros that are joined to a tensor are padding.
    """

    def __init__(self) -> None:
        super().__init__()
        self._zeros = WeakIdKeyDictionary()  # to its version, which a write into it changes

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _ZEROS:
            zeros = func(*args, **kwargs)
            self._zeros[zeros] = zeros._version  # noqa: SLF001 - torch documents it
            return zeros
        decomposition = self._join if func in _JOINS else DECOMPOSITIONS.get(func)
        if decomposition is not None:
            with self:
                result = decomposition(*args, **kwargs)
            if result is not NotImplemented:
                return result
        return func(*args, **kwargs)

    def _join(self, tensors: Any, dim: int = 0, **named: Any) -> Any:
        if named or len(tensors) != 2:
            return NotImplemented
        in_front = self._is_zero(tensors[0])
        if in_front == self._is_zero(tensors[1]):
            return NotImplemented
        zeros, x = tensors if in_front else reversed(tensors)
        if (zeros.dim(), zeros.dtype) != (x.dim(), x.dtype):
            return NotImplemented
        size = int(zeros.shape[dim])
        width = (size, 0) if in_front else (0, size)
        return F.pad(x, (0, 0) * (x.dim() - 1 - dim % x.dim()) + width)

    def _is_zero(self, x: Any) -> bool:
        return isinstance(x, Tensor) and self._zeros.get(x) == x._version  # noqa: SLF001


def _abs(x: Tensor) -> Tensor:
    return F.relu(x) + F.relu(-x) if x.is_floating_point() else NotImplemented


def _largest(a: Any, b: Any = None, *rest: Any, **named: Any) -> Any:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or rest or named:
        return NotImplemented  # torch.max(x), torch.max(x, 1)
    return a + F.relu(b - a)


def _smallest(a: Any, b: Any = None, *rest: Any, **named: Any) -> Any:
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or rest or named:
        return NotImplemented
    return a - F.relu(a - b)


def _clamp(x: Tensor, min: Any = None, max: Any = None) -> Tensor:  # noqa: A002 - torch's names
    if not isinstance(min, Tensor) and not isinstance(max, Tensor):
        return NotImplemented
    x = x if min is None else torch.maximum(x, torch.as_tensor(min))
    return x if max is None else torch.minimum(x, torch.as_tensor(max))


def _softplus(x: Tensor, beta: float = 1, *_: Any, **__: Any) -> Tensor:
    scaled = x if beta == 1 else x * beta
    result = F.relu(scaled) + torch.log(1 + torch.exp(-abs(scaled)))
    return result if beta == 1 else result / beta


def _mish(x: Tensor, **_: Any) -> Tensor:
    return x * torch.tanh(F.softplus(x))


def _selu(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return 1.0507009873554805 * F.elu(x, 1.6732632423543772)


def _celu(x: Tensor, alpha: float = 1.0, *_: Any, **__: Any) -> Tensor:
    return alpha * F.elu(x / alpha)


def _softsign(x: Tensor) -> Tensor:
    return x / (1 + abs(x))


def _softshrink(x: Tensor, lambd: float = 0.5) -> Tensor:
    return F.relu(x - lambd) - F.relu(-x - lambd)


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    if weight.numel() == 1:
        return F.leaky_relu(x, float(weight))
    if x.dim() == _LARGEST_TABLE:
        return NotImplemented
    return F.relu(x) - weight.reshape(-1, *(1,) * (x.dim() - 2)) * F.relu(-x)


def _power(x: Tensor, exponent: Any) -> Tensor:
    if not isinstance(x, Tensor) or exponent not in (2, 3, 4):
        return NotImplemented  # powf of what is below zero is NaN once the exponent is quantized
    square = x * x
    return square if exponent == 2 else square * (x if exponent == 3 else square)


def _reciprocal(x: Tensor) -> Tensor:
    return torch.ones(()) / x


def _divided(x: Tensor, other: Any) -> Tensor:
    """``other / x``."""
    return torch.as_tensor(float(other)) / x if not isinstance(other, Tensor) else NotImplemented


def _lerp(start: Tensor, end: Tensor, weight: Any) -> Tensor:
    return start + weight * (end - start)


def _flip(x: Tensor, *dims: Any, **named: Any) -> Tensor:
    axes = named.get("dims", dims)
    for axis in axes[0] if axes and isinstance(axes[0], tuple | list) else axes:
        x = torch.index_select(x, axis, torch.arange(x.shape[axis] - 1, -1, -1))
    return x


def _matrix_transpose(x: Tensor) -> Tensor:
    return x.transpose(-1, -2)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """A constant from the left: ESP-DL takes constants from the right."""
    if a.dim() != 2 or b.dim() <= 2:
        return NotImplemented
    return (b.transpose(-1, -2) @ a.transpose(0, 1)).transpose(-1, -2)


def _bmm(a: Tensor, b: Tensor) -> Tensor:
    return a[0] @ b if a.shape[0] == 1 else NotImplemented


def _einsum(equation: str, *operands: Any) -> Tensor:
    """One contracted axis with a matrix: a product from the right, as of ``nn.Linear``."""
    text = equation.replace(" ", "") if isinstance(equation, str) else ""
    read, arrow, wanted = text.partition("->")
    names = read.split(",")
    if not arrow or len(operands) != 2 or len(names) != 2 or "." in text:
        return NotImplemented
    pairs = sorted(zip(names, operands, strict=True), key=lambda pair: len(pair[0]) == 2)
    (of_x, x), (of_matrix, matrix) = pairs
    contracted = [name for name in of_matrix if name in of_x]
    kept = [name for name in of_x if name not in contracted]
    made = [name for name in of_matrix if name not in of_x]
    alike = len(set(of_x)) == len(of_x) and sorted(wanted) == sorted(kept + made)
    if len(of_matrix) != 2 or len(contracted) != 1 or not alike:
        return NotImplemented
    x = x.permute([of_x.index(name) for name in (*kept, *contracted)])
    y = x @ (matrix if of_matrix[0] == contracted[0] else matrix.transpose(0, 1))
    return y.permute([(kept + made).index(name) for name in wanted])


def _cosine_similarity(a: Tensor, b: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    lengths = torch.sqrt((a * a).sum(dim)) * torch.sqrt((b * b).sum(dim))
    return (a * b).sum(dim) / (lengths + eps)


def _sinc(x: Tensor) -> Tensor:
    return torch.where(x == 0, torch.ones(()), torch.sin(math.pi * x) / (math.pi * x))


def _exp2(x: Tensor) -> Tensor:
    return torch.exp(x * math.log(2))


def _channel_shuffle(x: Tensor, groups: int) -> Tensor:
    return x.unflatten(1, (groups, x.shape[1] // groups)).transpose(1, 2).flatten(1, 2)


def _nan_to_num(x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x  # a stimulus that gives NaN is refused


def _vdot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


def _unfold(x: Tensor, dimension: int, size: int, step: int) -> Tensor:
    count = (x.shape[dimension] - size) // step + 1
    index = [slice(None)] * x.dim()
    parts = []
    for start in range(size):
        index[dimension] = slice(start, start + (count - 1) * step + 1, step)
        parts.append(x[tuple(index)])
    return torch.stack(parts, -1)


def _repeat(x: Tensor, *sizes: Any) -> Tensor:
    counts = sizes[0] if isinstance(sizes[0], tuple | list | torch.Size) else sizes
    x = x.reshape((1,) * (len(counts) - x.dim()) + tuple(x.shape))
    for axis, count in enumerate(counts):
        x = torch.cat([x] * count, axis) if count > 1 else x
    return x


def _repeat_interleave(x: Tensor, repeats: Any, dim: int | None = None, **_: Any) -> Tensor:
    if not isinstance(repeats, int) or dim is None:
        return NotImplemented
    axis = dim % x.dim()
    return torch.stack([x] * repeats, axis + 1).flatten(axis, axis + 1)


def _rms_norm(
    x: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None
) -> Tensor:
    axes = tuple(range(-len(normalized_shape), 0))
    y = x / torch.sqrt((x * x).mean(axes, keepdim=True) + (eps or torch.finfo(x.dtype).eps))
    return y if weight is None else y * weight


def _group_norm(
    x: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Tensor:
    if x.shape[0] == 1:
        return NotImplemented  # over time
    parts = x.reshape(x.shape[0], num_groups, -1)
    centred = parts - parts.mean(2, keepdim=True)
    y = centred / torch.sqrt((centred * centred).mean(2, keepdim=True) + eps)
    y = y.reshape(x.shape)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    y = y if weight is None else y * weight.reshape(shape)
    return y if bias is None else y + bias.reshape(shape)


def _instance_norm(
    x: Tensor,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if use_input_stats:
        return NotImplemented  # over time
    return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)


def _adaptive(count: int, whole: Any, pools: Any) -> Callable[..., Tensor]:
    """Pools whose windows are all of one size, over *count* axes."""

    def decomposed(x: Tensor, output_size: Any, return_indices: bool = False) -> Tensor:
        given = output_size if isinstance(output_size, tuple | list) else (output_size,) * count
        sizes = [int(size) for size in x.shape[-count:]]
        wanted = [size if n is None else int(n) for n, size in zip(given, sizes, strict=True)]
        uneven = any(s % n for s, n in zip(sizes, wanted, strict=True))
        if return_indices or uneven or all(n == 1 for n in wanted):
            return NotImplemented
        for axis, (size, n) in enumerate(zip(sizes, wanted, strict=True), x.dim() - count):
            if n == 1 < size:
                x = whole(x, axis, keepdim=True)
        window = [s // n if n > 1 else 1 for s, n in zip(sizes, wanted, strict=True)]
        return pools[count - 1](x, window, window) if math.prod(window) > 1 else x

    return decomposed


def _conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Frames in the batch axis, where ESP-DL takes one: a convolution in two dimensions."""
    if x.dim() != 3 or x.shape[0] == 1 or isinstance(padding, str):
        return NotImplemented
    along = [
        (first, n if isinstance(n, int) else n[0])
        for first, n in ((1, stride), (0, padding), (1, dilation))
    ]
    y = F.conv2d(x.transpose(0, 1).unsqueeze(0), weight.unsqueeze(2), bias, *along, groups)
    return y.squeeze(0).transpose(0, 1)


_ZEROS = (torch.zeros, torch.zeros_like, Tensor.new_zeros)
_JOINS = (torch.cat, torch.concat, torch.concatenate)
_AVERAGES = (F.avg_pool1d, F.avg_pool2d)
_MAXIMA = (F.max_pool1d, F.max_pool2d)
DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.abs, torch.absolute, Tensor.abs, Tensor.__abs__), _abs),
    **dict.fromkeys((torch.max, torch.maximum, Tensor.max, Tensor.maximum), _largest),
    **dict.fromkeys((torch.min, torch.minimum, Tensor.min, Tensor.minimum), _smallest),
    **dict.fromkeys((torch.pow, Tensor.pow, Tensor.__pow__), _power),
    F.softplus: _softplus,
    F.mish: _mish,
    F.selu: _selu,
    torch.selu: _selu,
    F.celu: _celu,
    F.softsign: _softsign,
    F.softshrink: _softshrink,
    F.prelu: _prelu,
    **dict.fromkeys((torch.reciprocal, Tensor.reciprocal), _reciprocal),
    Tensor.__rtruediv__: _divided,
    **dict.fromkeys((torch.lerp, Tensor.lerp), _lerp),
    **dict.fromkeys((torch.flip, Tensor.flip), _flip),
    Tensor.mT.__get__: _matrix_transpose,
    **dict.fromkeys((torch.matmul, Tensor.matmul, Tensor.__matmul__), _matmul),
    torch.vdot: _vdot,
    Tensor.unfold: _unfold,
    Tensor.repeat: _repeat,
    **dict.fromkeys((torch.repeat_interleave, Tensor.repeat_interleave), _repeat_interleave),
    F.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    **dict.fromkeys((F.instance_norm, torch.instance_norm), _instance_norm),
    F.adaptive_avg_pool1d: _adaptive(1, torch.mean, _AVERAGES),
    F.adaptive_avg_pool2d: _adaptive(2, torch.mean, _AVERAGES),
    F.adaptive_max_pool1d: _adaptive(1, torch.amax, _MAXIMA),
    F.adaptive_max_pool2d: _adaptive(2, torch.amax, _MAXIMA),
    **dict.fromkeys((torch.clamp, torch.clip, Tensor.clamp, Tensor.clip), _clamp),
    **dict.fromkeys((torch.bmm, Tensor.bmm), _bmm),
    torch.einsum: _einsum,
    F.cosine_similarity: _cosine_similarity,
    **dict.fromkeys((torch.sinc, Tensor.sinc), _sinc),
    **dict.fromkeys((torch.exp2, Tensor.exp2), _exp2),
    **dict.fromkeys((F.channel_shuffle, torch.channel_shuffle), _channel_shuffle),
    **dict.fromkeys((torch.nan_to_num, Tensor.nan_to_num), _nan_to_num),
    F.conv1d: _conv1d,
}
