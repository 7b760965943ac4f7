"""Injected faults at work between an application and its client. Knows bytes, not sockets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from harness.simulator.faults import (
    CorruptBytes,
    DropBytes,
    DuplicateBytes,
    Fault,
    SilentPort,
    SlowPort,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Scattered = DropBytes | CorruptBytes | DuplicateBytes

FaultT = TypeVar("FaultT")


class _Injected:
    """One fault with what it has done so far."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.boots_left = getattr(fault, "boots", None)
        self.bytes_out = 0
        seed = getattr(fault, "seed", 0)
        self.dice = {way: np.random.default_rng([seed, index]) for index, way in enumerate(_WAYS)}


_WAYS = ("to_host", "to_device")


class FaultyLine:
    """The set of injected faults, and their effect on bytes.

    Methods may be called from any thread; the effect of an injection starts
    with the next byte.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._injected: tuple[_Injected, ...] = ()

    def inject(self, fault: Fault) -> None:
        """Add a fault to those that are active."""
        with self._lock:
            self._injected = (*self._injected, _Injected(fault))

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._injected = ()

    def active(self, kind: type[FaultT]) -> tuple[FaultT, ...]:
        """Return the active faults of a kind, oldest first."""
        return tuple(one.fault for one in self._injected if isinstance(one.fault, kind))

    def strike(self, kind: type[FaultT]) -> FaultT | None:
        """Return a fault that ends this boot, and count it off; None when none does."""
        with self._lock:
            for one in self._injected:
                if isinstance(one.fault, kind) and one.boots_left != 0:
                    if one.boots_left is not None:
                        one.boots_left -= 1
                    return one.fault
        return None

    @property
    def bytes_per_s(self) -> int | None:
        """Rate of the slowest active :class:`SlowPort`; None when the line is fast."""
        return min((fault.bytes_per_s for fault in self.active(SlowPort)), default=None)

    def to_host(self, data: bytes) -> bytes:
        """Return what the client receives of bytes that the application sent."""
        return self._damage("to_host", data)

    def to_device(self, data: bytes) -> bytes:
        """Return what the application receives of bytes that the client sent."""
        return self._damage("to_device", data)

    def _damage(self, way: str, data: bytes) -> bytes:
        for one in self._injected:
            fault = one.fault
            if isinstance(fault, SilentPort):
                if way == "to_host":
                    sent = data[: max(0, fault.after_bytes - one.bytes_out)]
                    one.bytes_out += len(data)
                    data = sent
            elif isinstance(fault, Scattered) and fault.direction in (way, "both"):
                data = _scatter(fault, one.dice[way].random(len(data)), data)
        return data


def _scatter(fault: Scattered, dice: NDArray[np.float64], data: bytes) -> bytes:
    """Damage the bytes whose die falls below the rate."""
    values = np.frombuffer(data, np.uint8)
    hit = dice < fault.rate
    if isinstance(fault, DropBytes):
        return values[~hit].tobytes()
    if isinstance(fault, DuplicateBytes):
        return np.repeat(values, np.where(hit, 2, 1)).tobytes()
    # A die that hits is uniform below the rate, so it also chooses one of the 255 other values.
    other = (1 + dice / max(fault.rate, 1e-300) * 255).astype(np.uint8)
    return np.where(hit, values ^ other, values).tobytes()
