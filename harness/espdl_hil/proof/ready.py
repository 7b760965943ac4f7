"""What is made before the first test, shown to whoever watches. Knows steps, not their work."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from espdl_hil.proof.rig import Rig


def make_ready(rig: Rig, stream: TextIO, *, devices: bool = True) -> None:
    """Make firmware and artifacts, with a progress bar where somebody watches; flash.

    Args:
        rig: Its ports have been found.
        stream: Gets progress, and what took its time.
        devices: Flash and boot all devices now; otherwise each when it is asked for.

    Raises:
        HarnessError: the user must act first: no firmware, a silent board, an unwritable folder.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(file=stream)
    with console.status("building the firmware"):
        rig.build()
    start_s = time.monotonic()
    columns = (
        TextColumn("quantizing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=None)
        rig.prepare(
            lambda done, total, label: bar.update(
                task, completed=done, total=total, description=label
            )
        )
    elapsed_s = time.monotonic() - start_s
    if elapsed_s > 1 and not console.is_terminal:
        print(f"quantized {len(rig.cases)} cases in {elapsed_s:.1f} s", file=stream)
    for text in rig.discarded:
        print(f"artifact store: {text}", file=stream)
    for text in rig.notes:
        print(f"quantization: {text}", file=stream)
    if devices:
        with console.status("flashing"):
            rig.bring_up()
