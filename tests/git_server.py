"""A server of git repositories over HTTP: git's own, `git http-backend`, behind a small one."""

import os
import shutil
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


def is_there():
    """Whether git, and what serves its repositories, is installed."""
    if shutil.which("git") is None:
        return False
    where = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()
    return (Path(where) / "git-http-backend").exists()


class GitServer:
    """Serves the repositories of a folder. `asked` are methods, paths and the header Authorization."""

    def __init__(self, root, token=""):
        self.root, self.token, self.asked = root, token, []
        self.respond = None

    @contextmanager
    def running(self):
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer()

            def do_POST(self):
                self.answer()

            def answer(self):
                authorization = self.headers.get("Authorization", "")
                server.asked.append((self.command, self.path, authorization))
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                if server.respond is not None and (answer := server.respond(self.path)) is not None:
                    status, headers, content = answer
                elif server.token and authorization != server.token:
                    status, headers, content = 401, {"WWW-Authenticate": "Basic"}, b""
                else:
                    status, headers, content = server.backend(self, body)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        httpd.handle_error = lambda *_: None  # who asks may hang up
        thread = threading.Thread(target=httpd.serve_forever, daemon=True)
        thread.start()
        self.host = f"127.0.0.1:{httpd.server_port}"
        try:
            yield self
        finally:
            httpd.shutdown()
            httpd.server_close()
            thread.join()

    def backend(self, request, body):
        """What git answers."""
        parts = urlsplit(request.path)
        environment = {
            **os.environ,
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "REQUEST_METHOD": request.command,
            "CONTENT_TYPE": request.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "REMOTE_USER": "",
        }
        if protocol := request.headers.get("Git-Protocol"):
            environment["GIT_PROTOCOL"] = protocol
        if request.headers.get("Content-Encoding"):
            environment["HTTP_CONTENT_ENCODING"] = request.headers["Content-Encoding"]
        ran = subprocess.run(
            ["git", "http-backend"], input=body, env=environment, capture_output=True, check=True
        )
        head, _, content = ran.stdout.partition(b"\r\n\r\n")
        headers = dict(line.decode().split(": ", 1) for line in head.split(b"\r\n"))
        status = int(headers.pop("Status", "200").split()[0])
        return status, headers, content
