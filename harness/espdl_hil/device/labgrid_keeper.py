"""Keeps a labgrid place while its standard input is open: acquired, used, released.

``python labgrid_keeper.py PLACE COORDINATOR SECONDS``, run by the Python that has labgrid, with
nothing of this package: labgrid replaces pyserial, so the two need not share an environment. The
pipe that is its input closes when the parent is done or was killed; in both cases the place is
released. What it has to say are lines of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

POLL_S = 1.0  # while another user has the place: labgrid has no queue for one place
SERIAL_PORTS = ("NetworkSerialPort", "RawSerialPort", "USBSerialPort")


class Trouble(Exception):  # noqa: N818 - becomes an error in the parent
    """Why there is no place.

    Args:
        message: For the user.
        kind: ``busy`` for others have it, ``mistake`` for what the user must change, or ``fault``.
    """

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class Keeper:
    """A place of a coordinator.

    Args:
        name: Of the place.
        coordinator: ``host:port``.
        say: Tells the parent.
    """

    def __init__(self, name: str, coordinator: str, say: Any) -> None:
        from labgrid.remote import client

        self._client, self._say = client, say
        options = argparse.Namespace(
            place=name, allow_unmatched=False, kick=False, state=None, initial_state=None
        )
        options.name, options.delay, options.action = None, None, "cycle"
        try:
            self._session = client.start_session(coordinator, extra={"args": options})
        except client.Error as error:
            raise Trouble(
                f"no answer from the coordinator {coordinator}: {error}", "fault"
            ) from None
        self._loop = self._session.loop
        self._is_acquired = False

    def run(self, wait_s: float) -> None:
        """Acquire, serve until the input ends, release."""
        self._loop.run_until_complete(self._run(wait_s))

    async def _run(self, wait_s: float) -> None:
        over = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            self._loop.add_signal_handler(number, over.set)
        reading = self._loop.create_task(self._serve(wait_s))
        ending = self._loop.create_task(over.wait())
        try:
            await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
        finally:
            if self._is_acquired:
                await self._session.release()

    async def _serve(self, wait_s: float) -> None:
        lines = asyncio.StreamReader()
        await self._loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(0, "rb", 0)
        )
        await self._acquire(time.monotonic() + wait_s, lines)
        if self._is_acquired:
            self._say(**self._port())
            while await lines.readline():  # each is a wish to cut the power
                self._cycle_power()

    async def _acquire(self, end_s: float, lines: asyncio.StreamReader) -> None:
        told = ""
        while not lines.at_eof():
            try:
                place = self._session.get_place()
            except self._client.UserError as error:
                raise Trouble(_words(error), "mistake") from None
            holder = place.acquired or (place.reservation and f"reservation {place.reservation}")
            try:
                await self._session.acquire()
            except self._client.Error as error:
                if not holder:
                    raise Trouble(_words(error), "mistake") from None
                if time.monotonic() >= end_s:
                    raise Trouble(f"it is acquired by {holder}", "busy") from None
                if holder != told:
                    told = holder
                    self._say(waiting=holder)
                await asyncio.sleep(POLL_S)
            else:
                self._is_acquired = True
                return

    def _port(self) -> dict[str, Any]:
        """Where the place's serial port is."""
        from labgrid.util.proxy import proxymanager

        target = self._session._get_target(self._session.get_place())  # noqa: SLF001 - has no other
        ports = [found for found in target.resources if type(found).__name__ in SERIAL_PORTS]
        if len(ports) != 1:
            names = ", ".join(str(found.name or type(found).__name__) for found in ports) or "none"
            raise Trouble(
                f"expected one serial port among its resources, found: {names}", "mistake"
            )
        (port,) = ports
        if type(port).__name__ != "NetworkSerialPort":
            return {"url": str(port.port), "speed": int(port.speed)}
        host, number = proxymanager.get_host_and_port(port)  # through SSH where labgrid says so
        scheme = "socket" if port.protocol == "raw" else "rfc2217"
        return {"url": f"{scheme}://{host}:{number}", "speed": int(port.speed)}

    def _cycle_power(self) -> None:
        try:
            self._session.power()
        except self._client.UserError:  # no resource of the place switches power
            self._say(cycled=False)
        except Exception as error:  # noqa: BLE001 - of labgrid's many drivers
            self._say(error=f"its power cannot be switched: {error}")
        else:
            self._say(cycled=True)


def _words(error: Exception) -> str:
    return str(error).removeprefix("Error: ")


def main() -> None:
    """Serve the parent; the exit code is always 0, since what went wrong was said."""
    name, coordinator, wait_s = sys.argv[1:]
    out, sys.stdout = sys.stdout, sys.stderr  # labgrid prints

    def say(**words: Any) -> None:
        print(json.dumps(words), file=out, flush=True)

    try:
        Keeper(name, coordinator, say).run(float(wait_s))
    except Trouble as error:
        say(error=str(error), kind=error.kind)
    except Exception as error:  # noqa: BLE001 - the parent shows it
        say(error=f"labgrid failed: {type(error).__name__}: {error}")
    out.flush()
    os._exit(0)  # threads of gRPC and of SSH need not be waited for


if __name__ == "__main__":
    main()
