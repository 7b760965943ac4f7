"""What is made before the first test, shown to whoever watches. Knows steps, not their work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from espdl_hil.proof.rig import Rig


def make_ready(rig: Rig, stream: TextIO, *, devices: bool = True) -> None:
    """Make firmware and artifacts, and flash, while the rig's watch shows how far it is.

    Args:
        rig: Its ports have been found.
        stream: Gets what took its time, and what is to be known of the files.
        devices: Flash and boot all devices now; otherwise each when it is asked for.

    Raises:
        HarnessError: the user must act first: no firmware, a silent board, an unwritable folder.
    """
    with rig.watch.work("building the firmware", at_once=True):
        rig.build()
    start_s = time.monotonic()
    with rig.watch.work("quantizing", "recipes", at_once=True) as progress:
        rig.prepare(progress)
    elapsed_s = time.monotonic() - start_s
    if elapsed_s > 1:
        print(f"quantized {len(rig.cases)} cases in {elapsed_s:.1f} s", file=stream)
    for text in rig.discarded:
        print(f"artifact store: {text}", file=stream)
    for text in rig.notes:
        print(f"quantization: {text}", file=stream)
    if devices:
        with rig.watch.work("flashing", at_once=True):
            rig.bring_up()
