"""A labgrid place as a board: acquired for a run, its port and power used, released."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import parse_qs, urlsplit

from espdl_hil.device.bench import LABGRID_SCHEME
from espdl_hil.errors import BusyError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

COORDINATOR_VARIABLE: Final = "LG_COORDINATOR"  # labgrid's own
COORDINATOR: Final = "127.0.0.1:20408"  # labgrid's default
CLIENT: Final = "labgrid-client"  # says where labgrid is installed
RELEASE_S: Final = 10.0


class LabgridPlace:
    """A place that is acquired until :meth:`release`, or until this process has ended.

    Args:
        url: ``labgrid://place`` or ``labgrid://place?coordinator=host:port``.
        wait_s: How long to wait while others have it.
        tell: Gets a line when it is waited for.

    Attributes:
        port: Its serial port: device path or pyserial URL.
        baud: That the exporter says of it.

    Raises:
        BusyError: Others have it, or the coordinator does not answer.
        ConfigError: There is no labgrid, no such place, or it has no serial port.
    """

    def __init__(self, url: str, wait_s: float, tell: Callable[[str], object]) -> None:
        parts = urlsplit(url)
        coordinator = parse_qs(parts.query).get("coordinator", [""])[0]
        coordinator = coordinator or os.environ.get(COORDINATOR_VARIABLE) or COORDINATOR
        self._name = parts.netloc
        keeper = Path(__file__).with_name("labgrid_keeper.py")
        self._keeper = subprocess.Popen(
            [_python_of_labgrid(), "-I", str(keeper), self._name, coordinator, str(wait_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,  # what is sent to this group must not end it early
        )
        _places.add(self)
        try:
            while holder := (said := self._listen()).get("waiting"):
                tell(f"waiting for labgrid place {self._name}: acquired by {holder}")
            self.port, self.baud = str(said["url"]), int(said["speed"])
        except BaseException:
            self.release()
            raise

    def power_cycle(self) -> bool:
        """Take the board's supply away and give it back.

        Returns:
            Whether the place has a switch.

        Raises:
            BusyError: It does not work.
        """
        assert self._keeper.stdin is not None
        with contextlib.suppress(OSError):  # a keeper that has ended says nothing more, see below
            self._keeper.stdin.write("power\n")
            self._keeper.stdin.flush()
        return bool(self._listen()["cycled"])

    def release(self) -> None:
        """Give the place back; releasing twice does nothing."""
        self.forget()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._keeper.wait(RELEASE_S)
        if self._keeper.stdout is not None:
            self._keeper.stdout.close()

    def forget(self) -> None:
        """Let go of the pipe, in a forked child, too: the place is kept as long as one is open."""
        if self._keeper.stdin is not None:
            with contextlib.suppress(OSError):
                self._keeper.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _listen(self) -> dict[str, Any]:
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        said: dict[str, Any] = json.loads(line) if line else {"error": "its keeper has ended"}
        if (error := said.get("error")) is None:
            return said
        message = f"labgrid place {self._name}: {error}"
        if said.get("kind") == "mistake":
            raise ConfigError(message, hint=f"see {CLIENT} -p {self._name} show")
        raise BusyError(
            message,
            hint="wait for it with --hil-wait SECONDS, or end who has it: "
            f"{CLIENT} -p {self._name} release"
            if said.get("kind") == "busy"
            else f"see whether {CLIENT} places answers, and that {COORDINATOR_VARIABLE} is right",
        )


def _python_of_labgrid() -> str:
    """The Python of the environment that ``labgrid-client`` belongs to."""
    beside = str(Path(sys.executable).parent)
    client = shutil.which(CLIENT) or shutil.which(CLIENT, path=beside)
    python = Path(client).resolve().with_name("python3") if client else None
    if python is None or not python.exists():
        raise ConfigError(
            f"a board at {LABGRID_SCHEME} needs labgrid, and {CLIENT} is not on PATH",
            hint="pipx install labgrid (an environment of its own: it brings its own pyserial)",
        )
    return str(python)


_places: weakref.WeakSet[LabgridPlace] = weakref.WeakSet()


def _leave_to_parent() -> None:
    for place in tuple(_places):
        place.forget()


os.register_at_fork(after_in_child=_leave_to_parent)
