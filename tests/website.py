"""A small website for tests on a real socket, and a socket that only counts who comes."""

import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Website(ThreadingHTTPServer):
    """Answers a path with what `pages` holds for it: text, (status, headers, body) or a function of the handler."""

    daemon_threads = True

    def __init__(self, pages=None, host="127.0.0.1"):
        super().__init__((host, 0), Handler)
        self.pages, self.asked, self.bodies = dict(pages or {}), [], []

    @property
    def host(self):
        return f"127.0.0.1:{self.server_port}"

    def url(self, path="/"):
        return f"http://{self.host}{path}"

    @property
    def paths(self):
        return [path for path, _ in self.asked]

    @contextmanager
    def running(self):
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.005})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()

    def handle_error(self, request, client_address):
        """A client that hangs up is what is tested, not an error."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        site = self.server
        site.asked.append((self.path, dict(self.headers)))
        page = site.pages.get(self.path, (404, {}, b"no such page"))
        if callable(page):
            page(self)
            return
        status, headers, body = (200, {}, page) if isinstance(page, str) else page
        self.answer(status, headers, body.encode() if isinstance(body, str) else body)

    def do_POST(self):
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

    def answer(self, status, headers, body):
        self.send_response(status)
        for name, value in {"Content-Type": "text/html", "Content-Length": str(len(body)), **headers}.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Trap:
    """Listens on the loopback addresses, on one port, and counts the connections that are made."""

    def __init__(self):
        self.sockets = [socket.create_server(("127.0.0.1", 0))]
        self.port = self.sockets[0].getsockname()[1]
        with suppress(OSError):  # a machine without IPv6
            self.sockets.append(socket.create_server(("::1", self.port), family=socket.AF_INET6))

    @property
    def count(self):
        """Connections so far; they wait in the system's queue until they are counted."""
        found = 0
        for listening in self.sockets:
            listening.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    listening.accept()[0].close()
                    found += 1
        return found

    def close(self):
        for listening in self.sockets:
            listening.close()
