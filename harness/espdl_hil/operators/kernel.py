"""What runs at a step: a function without arguments. Knows arrays, not nodes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from espdl_hil.espdl import Array

Kernel: TypeAlias = Callable[[], object]


def in_order(kernels: list[Kernel]) -> Kernel:
    """A kernel that runs others."""
    if len(kernels) == 1:
        return kernels[0]

    def run() -> None:
        for kernel in kernels:
            kernel()

    return run


def copier(source: Array, destination: Array) -> Kernel:
    """A kernel that copies a view into another."""

    def copy() -> None:
        destination[...] = source

    return copy


def storer(destination: Array, function: Callable[..., Array], *sources: Array) -> Kernel:
    """A kernel that stores a function of arrays."""

    def store() -> None:
        destination[...] = function(*sources)

    return store


def gatherer(source: Array, destination: Array, indices: Array) -> Kernel:
    """A kernel that fills *destination* by flat *indices* into *source*, made at load."""
    taken, output = source.reshape(-1), destination.reshape(-1)
    flat = np.ascontiguousarray(indices).reshape(-1).astype(np.intp)
    return partial(taken.take, flat, out=output, mode="clip")
