"""Stand-in for Espressif's QEMU: its command line, with a simulated devkit's firmware core inside.

It is no emulator: no instruction of any chip is executed. What it has of QEMU is what the harness
can see of it: the arguments, a raw flash image that it reads and writes, the UART on a TCP socket
that takes one client at a time, and ``system_reset`` over QMP. The core runs with the flags of a
device that is none of the simulator's: the real firmware cannot know that its chip is emulated.
"""

import argparse
import contextlib
import dataclasses
import json
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

from espdl_hil.operators.registry import OPERATORS
from espdl_hil.simulator import devkit as devkits
from espdl_hil.simulator import port as ports

VERSION = "QEMU emulator version 0.0.0-stand-in"
FLASH_BYTES = tuple(size << 20 for size in (2, 4, 8, 16))  # what the esp32s3 machine accepts
FLASH = r"file=(.+),if=mtd,format=raw"
PSRAM = ("2M", "4M", "8M", "16M", "32M")


class Raw:
    """Stands in for the telnet server: no protocol on top of the bytes."""

    def __init__(self, signature):
        pass

    def feed(self, data):
        yield data

    def take_replies(self):
        return b""


class Uart(ports.SerialPort):
    """The port without RFC 2217: no lines, so only QMP resets the chip."""

    reset_wanted = False

    def reset(self):
        self.reset_wanted = True
        self._wake_out.send(b"\x00")

    def _pump(self, timeout_s):
        super()._pump(timeout_s)
        if self.reset_wanted:
            self.reset_wanted = False
            self._wake_in.recv(1 << 10)
            self._received.clear()
            raise ports.EnableLow


def parse(arguments):
    parser = argparse.ArgumentParser(prog="qemu-system-xtensa", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("-machine", "-M", required=True, choices=["esp32s3"])
    parser.add_argument("-m", choices=PSRAM, required=True)
    parser.add_argument("-nographic", action="store_true", required=True)
    parser.add_argument("-monitor", choices=["none"], required=True)
    parser.add_argument("-global", action="append", default=[], dest="globals")
    parser.add_argument("-drive", action="append", default=[])
    parser.add_argument("-serial", required=True)
    parser.add_argument("-qmp", required=True)
    parser.add_argument("-slow", type=float, default=0.0, help="of the stand-in: wait before boot")
    parser.add_argument(
        "-wrong", choices=["negative", "tails", "all"], help="of the stand-in: biases of Conv"
    )
    found = parser.parse_args(arguments)
    drive = next(filter(None, (re.fullmatch(FLASH, drive) for drive in found.drive)), None)
    serial = re.fullmatch(r"tcp:127\.0\.0\.1:(\d+),server,nowait", found.serial)
    qmp = re.fullmatch(r"unix:(.+),server,nowait", found.qmp)
    for option, match in {"-drive": drive, "-serial": serial, "-qmp": qmp}.items():
        if match is None:
            parser.error(f"argument {option}: not understood")
    size = Path(drive[1]).stat().st_size
    if size not in FLASH_BYTES:
        parser.error("only 2, 4, 8, 16 MB flash images are supported")
    return SimpleNamespace(
        target=found.machine,
        image=Path(drive[1]),
        port=int(serial[1]),
        qmp=qmp[1],
        slow_s=found.slow,
        wrong=found.wrong,
    )


def serve_qmp(listener, uart):
    while True:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError), client.makefile("rw") as stream:
            negotiated = False

            def say(message, stream=stream):
                stream.write(json.dumps(message) + "\r\n")
                stream.flush()

            say({"QMP": {"version": {"qemu": {"major": 0}}, "capabilities": []}})
            for line in stream:
                command = json.loads(line)["execute"]
                if command == "qmp_capabilities":
                    negotiated = True
                elif command == "system_reset" and negotiated:
                    uart.reset()
                    say({"event": "RESET", "data": {"guest": False}})
                else:
                    say({"error": {"class": "CommandNotFound", "desc": f"no {command} here"}})
                    continue
                say({"return": {}})


def spoil_conv(which):
    """Let channels of every convolution come out wrong, as QEMU's do that have a negative bias."""

    def build(bound, whole=OPERATORS["Conv"].build):
        kernel, out = whole(bound), bound.out.array
        bias = bound.input(2).array.ravel()
        wrong = bias == bias if which == "all" else bias < 0
        if which == "tails":
            wrong[: bias.size // 16 * 16] = False

        def run():
            kernel()
            out[..., wrong] = 127

        return run

    OPERATORS["Conv"] = dataclasses.replace(OPERATORS["Conv"], build=build)


def main():
    options = parse(sys.argv[1:])
    if options.wrong:
        spoil_conv(options.wrong)
    bind = devkits.abi.bind

    class Api:
        """The core's interface, with a device that does not call itself simulated."""

        HIL_FLAG_SIMULATED = 0

        def __init__(self, library):
            self._api = bind(library)

        def __getattr__(self, name):
            return getattr(self._api, name)

    devkits.abi = SimpleNamespace(bind=Api)
    devkits.SerialPort = Uart
    ports.TelnetServer, ports.escape = Raw, bytes
    Path(options.qmp).unlink(missing_ok=True)  # as QEMU does
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(options.qmp)
    listener.listen(1)
    boot = devkits.boot

    def boot_slowly(*arguments):
        time.sleep(options.slow_s)
        return boot(*arguments)

    devkits.boot = boot_slowly
    with devkits.Devkit(
        options.target,
        port=options.port,
        flash_bytes=options.image.stat().st_size,
        flash_file=options.image,
    ) as devkit:
        threading.Thread(target=serve_qmp, args=(listener, devkit._port), daemon=True).start()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
