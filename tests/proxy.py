"""TCP proxy that can simulate loss of the connection."""

from __future__ import annotations

import socket
import threading

from .harness import PATIENCE_S


class Proxy:
    def __init__(self, port: int) -> None:
        self.target = port
        self._whole = threading.Event()
        self._whole.set()
        self._sockets: list[socket.socket] = []
        self._pumps: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._whole.set()
        self._thread.join(PATIENCE_S)
        self._hang_up()
        for pump in self._pumps:
            pump.join(PATIENCE_S)
        for sock in self._sockets:
            sock.close()

    def cut(self) -> None:
        """Ends all connections; new ones wait."""
        self._whole.clear()
        self._hang_up()

    def mend(self) -> None:
        self._whole.set()

    def hang_up_on_clients(self) -> None:
        """Ends the connections on the clients' side alone."""
        for near in self._sockets[::2]:
            near.shutdown(socket.SHUT_RDWR)

    def _hang_up(self) -> None:
        for sock in self._sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended already

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._whole.wait(PATIENCE_S)
            far = socket.create_connection(("127.0.0.1", self.target))
            self._sockets += [near, far]
            for ends in ((near, far), (far, near)):
                pump = threading.Thread(target=self.pump, args=ends, daemon=True)
                self._pumps.append(pump)
                pump.start()

    def pump(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass
