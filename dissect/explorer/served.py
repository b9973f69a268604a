"""An explorer as a page of its own, for people without a notebook: served on this machine alone, behind a token.

The page asks by POST and is told through one long answer. Requests wait in line: what they ask is done one after the
other in `work`, in the thread that calls it. In the main thread, Ctrl-C so stops a measurement as in a notebook.
"""

from __future__ import annotations

import json
import queue
import secrets
import struct
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from dissect.base.errors import DissectError
from dissect.explorer.bundle import in_order, packed_plotly, page_file
from dissect.explorer.desk import Desk
from dissect.explorer.explorer import Explorer
from dissect.explorer.link import message

HOST = "127.0.0.1"
GONE = "The command that serves this page has ended. Start it again, and open the address that it prints."
LARGEST = 64 * 2**20  # bytes of a request: the numbers of sixteen million units
FILES = {"": "page.html", "page.css": "page.css"} | {name: name for name in in_order("served.js")}
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
# Plotly sets styles of elements; blob: is the page's own text. Nothing comes from or goes to anywhere else.
POLICY = "default-src 'none'; script-src 'self' blob:; style-src 'self' 'unsafe-inline'; img-src data: blob:; "
POLICY += "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"


def serve(explorer: Explorer, port: int = 0, *, announce: Callable[[str], None]) -> None:
    """Serve an explorer until Ctrl-C comes while it does nothing; `announce` gets the address.

    Raises:
        DissectError: The port cannot be used.
    """
    served = Served(explorer._desk, port)
    try:
        announce(served.address)
        served.work()
    except KeyboardInterrupt:
        pass
    finally:
        served.close()
        explorer.close()


def pack(content: dict[str, Any], buffers: Sequence[bytes]) -> bytes:
    """A message as bytes: the length of its JSON (uint32, little-endian), the JSON with the buffers' lengths, these."""
    text = json.dumps(content | {"lengths": [len(part) for part in buffers]}, allow_nan=False).encode()
    return b"".join([struct.pack("<I", len(text)), text, *buffers])


def unpack(data: bytes) -> tuple[dict[str, Any], list[bytes]]:
    """The message that was given to `pack`.

    Raises:
        ValueError: It is none.
    """
    if len(data) < 4:
        raise ValueError("too short for a message")
    end = 4 + struct.unpack("<I", data[:4])[0]
    content = json.loads(data[4:end])
    lengths = content.pop("lengths", None) if isinstance(content, dict) else None
    if not isinstance(lengths, list) or end + sum(lengths) != len(data) or min(lengths, default=0) < 0:
        raise ValueError("what it holds is not as long as it says")
    buffers = []
    for length in lengths:
        buffers.append(data[end : end + length])
        end += length
    return content, buffers


LAST = pack(*message("gone", text=GONE))


class Served:
    """Serves one explorer from the moment it is made.

    Attributes:
        address: Where the page is. It contains the token: who knows it can use the page, nobody else can.
    """

    def __init__(self, desk: Desk, port: int = 0):
        self._desk, self._todo = desk, queue.SimpleQueue()
        self._token = secrets.token_urlsafe(24)
        try:
            self._server = ThreadingHTTPServer((HOST, port), self._handler())
        except (OSError, OverflowError) as error:
            raise DissectError(f"port {port} cannot be used: {error}; leave it out for a free one") from error
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.address = f"http://{HOST}:{self.port}/{self._token}/"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
        self._thread.start()

    def work(self) -> None:
        """Do what pages ask, until `close`, or until Ctrl-C while there is nothing to do."""
        while (request := self._next()) is not None:
            self._desk.receive(*request)

    def close(self) -> None:
        """Serve no more, and tell pages so. `work` returns when it has done what it is doing."""
        self._desk.link.tell(message("gone", text=GONE))
        self._todo.put(None)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _next(self) -> tuple[dict[str, Any], list[bytes]] | None:
        while True:
            try:
                return self._todo.get(timeout=0.5)  # Windows takes Ctrl-C only between waits
            except queue.Empty:
                continue

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        desk, todo, root = self._desk, self._todo, f"/{self._token}/"
        hosts = lambda: {f"{HOST}:{self.port}", f"localhost:{self.port}"}  # noqa: E731

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self._name()
                if name == "events":
                    self._tell()
                elif name == "plotly.min.js":
                    self._answer(packed_plotly(), "text/javascript", {"Content-Encoding": "gzip"})
                elif name in FILES:
                    file = FILES[name]
                    self._answer(page_file(file).encode(), KINDS[file.rpartition(".")[2]])
                else:
                    self.send_error(404)

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if self._name() != "ask" or not length.isdecimal():
                    self.send_error(404)
                elif int(length) > LARGEST:
                    self.send_error(413)
                else:
                    self._take(self.rfile.read(int(length)))

            def _take(self, data: bytes) -> None:
                try:
                    todo.put(unpack(data))
                except (ValueError, TypeError):
                    self.send_error(400)
                else:
                    self._answer(b"", "text/plain")

            def _name(self) -> str | None:
                """What is asked for; None where the token or the host is not ours (a name that leads here is not)."""
                given = self.path.encode("utf-8", "replace")[: len(root)]
                ours = secrets.compare_digest(given, root.encode()) and self.headers.get("Host") in hosts()
                return self.path[len(root) :] if ours else None

            def _answer(self, data: bytes, kind: str, further: dict[str, str] | None = None) -> None:
                self._begin(kind, {"Content-Length": str(len(data))} | (further or {}))
                self.wfile.write(data)

            def _begin(self, kind: str, headers: dict[str, str]) -> None:
                self.send_response(200)
                fixed = {"Content-Type": f"{kind}; charset=utf-8", "Content-Security-Policy": POLICY}
                fixed |= {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
                fixed |= {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}
                for name, value in (fixed | headers).items():
                    self.send_header(name, value)
                self.end_headers()

            def _tell(self) -> None:
                """One long answer: every message, as it comes, until the page is closed."""
                told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
                page = _into(told)
                desk.link.connect(page)
                try:
                    self._begin("application/octet-stream", {"Connection": "close"})
                    while (part := _next_or_nothing(told)) != LAST:
                        self.wfile.write(part)
                    self.wfile.write(LAST)
                except OSError:
                    pass  # the page is closed
                finally:
                    desk.link.disconnect(page)
                    self.close_connection = True

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing: an address has the token in it."""

        return Handler


def _into(told: queue.SimpleQueue[bytes]) -> Callable[[dict[str, Any], list[bytes]], None]:
    return lambda content, buffers: told.put(pack(content, buffers))


def _next_or_nothing(told: queue.SimpleQueue[bytes]) -> bytes:
    """The next message, or after some seconds one that says nothing, by which a closed page is noticed."""
    try:
        return told.get(timeout=5)
    except queue.Empty:
        return pack({"kind": "nothing"}, [])
