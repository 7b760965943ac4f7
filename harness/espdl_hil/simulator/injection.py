"""The faults that are active, and what those of the line do to bytes. Knows no sockets."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from espdl_hil.simulator.faults import (
    DropBytes,
    DuplicateBytes,
    Fault,
    Panic,
    ScatteredFault,
    SilentPort,
    SlowPort,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray


FaultT = TypeVar("FaultT", bound=Fault)


class _Injected:
    """One fault with what it has done so far."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.boots_left = getattr(fault, "boots", None)
        self.bytes_out = 0
        seed = getattr(fault, "seed", 0)
        self.dice = {way: np.random.default_rng([seed, index]) for index, way in enumerate(_WAYS)}


_WAYS = ("to_host", "to_device")


class Injection:
    """The active faults of one devkit.

    Methods may be called from any thread.
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

    def active(self, kind: type[FaultT], model: str | None = None) -> tuple[FaultT, ...]:
        """Return the active faults of a kind, oldest first.

        Args:
            kind: Class of the faults.
            model: Leave out faults of other models than this; None leaves out none.
        """
        return tuple(
            one.fault
            for one in self._injected
            if isinstance(one.fault, kind)
            and model in (None, getattr(one.fault, "model", None) or model)
        )

    def strike(self, kind: type[FaultT]) -> FaultT | None:
        """Return a fault that ends this boot, and count it off; None when none does."""
        with self._lock:
            for one in self._injected:
                if isinstance(one.fault, kind) and one.boots_left != 0:
                    if one.boots_left is not None:
                        one.boots_left -= 1
                    return one.fault
        return None

    def begin_boot(self) -> None:
        """An application starts: what is counted per boot is counted from here."""
        with self._lock:
            for one in self._injected:
                if isinstance(one.fault, Panic):
                    one.bytes_out = 0

    def bytes_until_panic(self, size: int) -> int | None:
        """Count bytes that the application is about to send.

        Args:
            size: How many.

        Returns:
            How many of them get out before it crashes, which is counted off;
            None when it does not.
        """
        with self._lock:
            for one in self._injected:
                if isinstance(one.fault, Panic) and one.boots_left != 0:
                    left = one.fault.after_bytes - one.bytes_out
                    one.bytes_out += size
                    if left < size:
                        if one.boots_left is not None:
                            one.boots_left -= 1
                        return max(0, left)
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
            elif isinstance(fault, ScatteredFault) and fault.direction in (way, "both"):
                data = _scatter(fault, one.dice[way].random(len(data)), data)
        return data


def _scatter(fault: ScatteredFault, dice: NDArray[np.float64], data: bytes) -> bytes:
    """Damage the bytes whose die falls below the rate."""
    values = np.frombuffer(data, np.uint8)
    hit = dice < fault.rate
    if isinstance(fault, DropBytes):
        return values[~hit].tobytes()
    if isinstance(fault, DuplicateBytes):
        return np.repeat(values, np.where(hit, 2, 1)).tobytes()
    # A die that hits is uniform below the rate, so it also chooses one of the 255 other values.
    damaged = values.copy()
    damaged[hit] ^= (1 + dice[hit] / fault.rate * 255).astype(np.uint8)
    return damaged.tobytes()
