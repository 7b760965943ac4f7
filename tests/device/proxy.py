"""A TCP proxy in front of a devkit: damages bytes in both directions. Knows no protocol."""

from __future__ import annotations

import contextlib
import random
import socket
import threading


class Proxy:
    """Forwards connections to *port* on 127.0.0.1, one thread a direction.

    Args:
        port: TCP port of the devkit.
        rate: Share of bytes that are replaced by another one; may be changed at any time.
        seed: Of what is damaged.
    """

    def __init__(self, port: int, rate: float, seed: int) -> None:
        self.rate = rate
        self.damaged = self.passed = 0  # bytes
        self._port = port
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self.url = f"rfc2217://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._listener, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive()

    def damage(self, data: bytes) -> bytes:
        """Replace bytes of *data*, each with probability ``rate``."""
        self.passed += len(data)
        if not self.rate:
            return data
        damaged = bytearray(data)
        at = int(self._random.expovariate(self.rate))
        while at < len(damaged):
            damaged[at] ^= self._random.randrange(1, 256)
            self.damaged += 1
            at += 1 + int(self._random.expovariate(self.rate))
        return bytes(damaged)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                upstream = socket.create_connection(("127.0.0.1", self._port))
                for end in (client, upstream):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._ends += (client, upstream)
                for pair in ((client, upstream), (upstream, client)):
                    self._threads.append(threading.Thread(target=self._pump, args=pair))
                    self._threads[-1].start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(self.damage(data))
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
