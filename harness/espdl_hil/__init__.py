"""Hardware-in-the-loop harness for streaming neural networks on Espressif chips.

::

    from espdl_hil import StreamingModel, verify

    result = verify("mine.py", target="esp32s3")
    print(result)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espdl_hil.model import StreamingModel

if TYPE_CHECKING:
    from espdl_hil.proof.hil import Hil
    from espdl_hil.proof.verify import Verification, verify

__all__ = ["Hil", "StreamingModel", "Verification", "verify"]


def __getattr__(name: str) -> Any:
    """Import the proof when it is asked for: a model file needs only its declaration."""
    if name in ("Hil", "Verification", "verify"):
        from espdl_hil.proof import verify as module

        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
