"""A link to the store with a fixed round trip, which counts what goes over it.

What comes in at one end leaves at the other half a round trip later, however much is under way. A connection costs a
round trip of its own, as everywhere. Requests are counted by method, as their heads pass.
"""

import collections
import contextlib
import socket
import threading
import time

PIECE = 256 << 10
# The most bytes under way in one direction of one connection.
MOST = 64 << 20


class Requests:
    """Follows what a client sends, and counts the requests."""

    def __init__(self, counts, lock):
        self.counts, self.lock, self.head, self.body = counts, lock, b"", 0

    def feed(self, piece):
        while piece:
            if self.body:
                passed = min(self.body, len(piece))
                self.body -= passed
                piece = piece[passed:]
                continue
            self.head += piece
            end = self.head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, piece, self.head = self.head[:end], self.head[end + 4:], b""
            with self.lock:
                self.counts[head.split(b" ", 1)[0].decode("latin-1")] += 1
            lengths = [line.split(b":", 1)[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            self.body = int(lengths[0]) if lengths else 0


class Delayed:
    """Listens on loopback at `port`, and passes everything on to `to`; `round_trip` is in seconds."""

    def __init__(self, to, round_trip):
        self.to, self.half, self.lock = to, round_trip / 2, threading.Lock()
        self.counts, self.bytes = collections.Counter(), collections.Counter()
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def take(self):
        """Requests by method, and bytes up and down, since the last call."""
        with self.lock:
            taken = dict(self.counts), dict(self.bytes)
            self.counts.clear()
            self.bytes.clear()
        return taken

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", self.to))
                except OSError:
                    client.close()
                    continue
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                Way(self, client, server, "up", self.half * 2)
                Way(self, server, client, "down", 0)

    def close(self):
        self.listener.close()


class Way:
    """One direction of one connection."""

    def __init__(self, link, source, sink, name, handshake):
        self.link, self.source, self.sink, self.name = link, source, sink, name
        self.not_before = time.monotonic() + handshake + link.half if handshake else 0
        self.queue, self.held, self.changed = collections.deque(), 0, threading.Condition()
        for work in (self.take_in, self.pass_on):
            threading.Thread(target=work, daemon=True).start()

    def take_in(self):
        requests = Requests(self.link.counts, self.link.lock) if self.name == "up" else None
        with contextlib.suppress(OSError):
            while piece := self.source.recv(PIECE):
                if requests:
                    requests.feed(piece)
                with self.link.lock:
                    self.link.bytes[self.name] += len(piece)
                with self.changed:
                    self.changed.wait_for(lambda: self.held < MOST)
                    self.put(piece)
        with self.changed:
            self.put(b"")

    def put(self, piece):
        self.queue.append((max(time.monotonic() + self.link.half, self.not_before), piece))
        self.held += len(piece)
        self.changed.notify_all()

    def pass_on(self):
        with contextlib.suppress(OSError):
            while True:
                with self.changed:
                    self.changed.wait_for(lambda: self.queue)
                    due, piece = self.queue.popleft()
                    self.held -= len(piece)
                    self.changed.notify_all()
                if (wait := due - time.monotonic()) > 0:
                    time.sleep(wait)
                if not piece:
                    break
                self.sink.sendall(piece)
        # Nothing more comes in this direction; the other may go on.
        with contextlib.suppress(OSError):
            self.sink.shutdown(socket.SHUT_WR)
        with self.changed:
            self.held = 0
            self.changed.notify_all()
