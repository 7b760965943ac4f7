"""Hardware-in-the-loop harness for streaming neural networks on Espressif chips."""

import sys

from espdl_hil.model import StreamingModel

__all__ = ["StreamingModel"]

if not (3, 11) <= sys.version_info[:2] <= (3, 12):
    print(
        "espdl-hil needs Python 3.11 or 3.12, this is "
        f"{sys.version_info[0]}.{sys.version_info[1]}: esp-ppq, which quantizes, supports no newer "
        "one; use an environment made with python3.12",
        file=sys.stderr,
    )
    raise SystemExit(4)  # what pytest ends with after a usage error
