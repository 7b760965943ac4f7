"""Tensors as the device describes them, to and from numpy arrays. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from espdl_hil.device.replies import MAX_BLOCK_BYTES
from espdl_hil.espdl import DTYPES  # the protocol has the file's codes
from espdl_hil.wire.messages import MAX_RANK, TensorFlag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from espdl_hil.wire.messages import WireTensor

MAX_EXPONENT = 256  # as a file may have

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a model on the device.

    Attributes:
        name: As in the file.
        dtype: Of the elements, little endian.
        shape: In the file's layout.
        exponent: ``real = q * 2**exponent``; None when it differs by channel.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    exponent: int | None

    @property
    def nbytes(self) -> int:
        """Size of the tensor, bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    @classmethod
    def from_wire(cls, tensor: WireTensor, name: str | None = None) -> TensorSpec:
        """Read a description.

        Raises:
            ValueError: The element type is unknown, or shape and size contradict each other.
        """
        if tensor.dtype not in DTYPES:
            raise ValueError(f"tensor {tensor.name!r} has unknown element type {tensor.dtype}")
        if len(tensor.dims) > MAX_RANK:
            raise ValueError(f"tensor {tensor.name!r} has rank {len(tensor.dims)}")
        if abs(tensor.exponent) > MAX_EXPONENT:
            raise ValueError(f"tensor {tensor.name!r} has exponent {tensor.exponent}")
        spec = cls(
            name if name is not None else tensor.name,
            DTYPES[tensor.dtype],
            tuple(tensor.dims),
            None if tensor.flags & TensorFlag.PER_CHANNEL else tensor.exponent,
        )
        if spec.nbytes != tensor.bytes:
            raise ValueError(
                f"tensor {spec.name!r} of shape {spec.shape} and type {spec.dtype.name} "
                f"cannot have {tensor.bytes} bytes"
            )
        if spec.nbytes > MAX_BLOCK_BYTES:
            raise ValueError(f"tensor {spec.name!r} has {spec.nbytes} bytes, more than any chip")
        return spec

    def to_array(self, data: bytes) -> Array:
        """Interpret *data* (``nbytes`` long) as this tensor; the array is a copy and writable."""
        return (
            np.frombuffer(data, self.dtype).reshape(self.shape).astype(self.dtype.newbyteorder("="))
        )

    def to_bytes(self, array: Array) -> bytes:
        """Encode *array* as this tensor.

        Raises:
            ValueError: Type or shape differ; values are never converted silently.
        """
        given = np.asarray(array)
        if given.shape != self.shape or given.dtype.newbyteorder("<") != self.dtype:
            raise ValueError(
                f"tensor {self.name!r} is {self.dtype.name}{list(self.shape)}, "
                f"got {given.dtype.name}{list(given.shape)}"
            )
        return given.astype(self.dtype, copy=False).tobytes()


@dataclass(frozen=True)
class Unwritten:
    """Output memory that a step left as it was.

    Attributes:
        tensors: How many outputs are concerned.
        output: Name of the first one.
        offset: Byte offset of its first unwritten run.
        nbytes: Bytes in all its unwritten runs.
    """

    tensors: int
    output: str
    offset: int
    nbytes: int


@dataclass(frozen=True)
class VectorUnit:
    """Modes of the vector unit that were not those that ESP-DL's kernels rely on.

    Attributes:
        rounding_lost: The rounding mode was another one.
        misaligned: Misaligned loads or stores were on.
        late: So after the step, whose values may be wrong; otherwise only before it, where the
            firmware has put it right.
    """

    rounding_lost: bool
    misaligned: bool
    late: bool

    def __str__(self) -> str:
        names = {"rounding mode lost": self.rounding_lost, "misaligned-load mode": self.misaligned}
        return " and ".join(name for name, found in names.items() if found)


@dataclass(frozen=True)
class StepResult:
    """What one step gave.

    Attributes:
        outputs: Graph outputs by name, in the file's layout and exponent.
        latency_us: Time of the step on the chip; None when the device measures none.
        watched: Watched tensors by name; for a digest watch the CRC-32 of the bytes.
        unwritten: Output memory that the step did not write; None when all was written.
        suspect: An output too short to tell may be unwritten.
        vector_unit: Modes that other code had left in the vector unit; None when all was right.
    """

    outputs: dict[str, Array]
    latency_us: int | None
    watched: dict[str, Array | int]
    unwritten: Unwritten | None
    suspect: bool
    vector_unit: VectorUnit | None = None


def pack(specs: Sequence[TensorSpec], arrays: Mapping[str, Array]) -> bytes:
    """Concatenate *arrays* in the order of *specs*.

    Raises:
        ValueError: A name is missing or unknown, or an array does not fit its tensor.
    """
    expected = [spec.name for spec in specs]
    if set(arrays) != set(expected):
        raise ValueError(
            f"inputs are {', '.join(arrays) or 'none'}; expected {', '.join(expected)}"
        )
    return b"".join(spec.to_bytes(arrays[spec.name]) for spec in specs)


def unpack(specs: Sequence[TensorSpec], data: bytes) -> dict[str, Array]:
    """Split *data*, the tensors of *specs* one after the other.

    Raises:
        ValueError: The sizes do not add up.
    """
    total = sum(spec.nbytes for spec in specs)
    if total != len(data):
        raise ValueError(f"{len(data)} bytes came for tensors of {total} bytes")
    arrays: dict[str, Array] = {}
    offset = 0
    for spec in specs:
        arrays[spec.name] = spec.to_array(data[offset : offset + spec.nbytes])
        offset += spec.nbytes
    return arrays
