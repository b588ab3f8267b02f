"""A link to the store with a limited rate in bytes per second, each way."""

import contextlib
import socket
import threading
import time

PIECE = 64 << 10


class Pace:
    """A rate limit shared by all who use it, in bytes per second; 0 stops everything."""

    def __init__(self, rate):
        self._lock = threading.Lock()
        self.rate, self._free_at = rate, time.monotonic()

    def wait_for(self, count):
        with self._lock:
            if not self.rate:
                return 0.1
            now = time.monotonic()
            self._free_at = max(self._free_at, now - 0.05) + count / self.rate
            return max(0.0, self._free_at - now)


class Link:
    """Listens on loopback, and passes bytes on to `port`. Its own port is in the attribute `port`."""

    def __init__(self, port, rate):
        self._to = port
        self.up, self.down = Pace(rate), Pace(rate)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        self._sockets = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self._to))
                except OSError:
                    client.close()
                    continue
                self._sockets |= {client, server}
                for source, sink, pace in ((client, server, self.up), (server, client, self.down)):
                    threading.Thread(target=self._pass_on, args=(source, sink, pace), daemon=True).start()

    def _pass_on(self, source, sink, pace):
        with contextlib.suppress(OSError):
            while piece := source.recv(PIECE):
                time.sleep(pace.wait_for(len(piece)))
                while not pace.rate:
                    time.sleep(0.1)
                sink.sendall(piece)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            self._sockets.discard(each)
            each.close()

    def close(self):
        for each in [self._listener, *self._sockets]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
