"""Hardware-in-the-loop harness for streaming neural networks on Espressif chips.

::

    from espdl_hil import StreamingModel, verify

    result = verify("mine.py", target="esp32s3")
    print(result)
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from espdl_hil.model import Quantization, StreamingModel

if TYPE_CHECKING:
    from espdl_hil.proof.hil import Hil
    from espdl_hil.proof.verify import Verification, verify

__all__ = ["Hil", "Quantization", "StreamingModel", "Verification", "verify"]

_ROOMS = {"Hil": "hil", "Verification": "verify", "verify": "verify"}


def __getattr__(name: str) -> Any:
    """Import the proof when it is asked for: a model file needs only its declaration."""
    if name in _ROOMS:
        return getattr(importlib.import_module(f"espdl_hil.proof.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not (3, 11) <= sys.version_info[:2] <= (3, 12):
    print(
        "espdl-hil needs Python 3.11 or 3.12, this is "
        f"{sys.version_info[0]}.{sys.version_info[1]}: esp-ppq, which quantizes, supports no newer "
        "one; use an environment made with python3.12",
        file=sys.stderr,
    )
    raise SystemExit(4)  # what pytest ends with after a usage error
