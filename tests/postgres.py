"""A PostgreSQL server of its own for tests, from the programs that are installed."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest


def programs():
    """Where the server's programs are, the newest; None if they are nowhere."""
    named = Path(shutil.which("initdb") or "/none").resolve().parent
    places = [named, *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    return next((place for place in places if (place / "initdb").is_file()), None)


class Server:
    """Its owner needs no password by the socket; everyone needs one by the port."""

    def __init__(self, place, folder, user):
        self.place, self.folder, self.user = place, folder, user
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def run(self, program, *arguments):
        ran = subprocess.run(
            [self.place / program, *arguments],
            check=False,
            user=self.user,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    def sql(self, text):
        """Runs statements as the owner; what they print."""
        connected = ("-h", str(self.folder), "-p", str(self.port), "-U", "owner", "-d", "postgres")
        return self.run("psql", *connected, "-v", "ON_ERROR_STOP=1", "-c", text)

    @contextmanager
    def running(self):
        data = self.folder / "data"
        self.run("initdb", "-D", str(data), "-U", "owner", "--auth=trust", "--no-sync")
        (data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        options = (
            f"port={self.port}",
            f"unix_socket_directories={self.folder}",
            "listen_addresses=127.0.0.1",
            "fsync=off",
        )
        started = subprocess.Popen(
            [self.place / "postgres", "-D", data, *(word for option in options for word in ("-c", option))],
            user=self.user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            self._wait()
            yield self
        finally:
            started.terminate()
            started.wait(60)

    def _wait(self):
        end_s = time.monotonic() + 60
        while True:
            try:
                self.sql("SELECT 1")
            except AssertionError:
                assert time.monotonic() < end_s, "PostgreSQL did not start"
                time.sleep(0.1)
            else:
                return


@contextmanager
def postgres(tables):
    """A running server that holds `tables`, SQL; the test is skipped where it, or its driver, isn't installed."""
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("psycopg", reason="psycopg, PostgreSQL's driver, is not installed")
    place, user = programs(), None
    if place is None:
        pytest.skip("PostgreSQL's programs (initdb, postgres, psql) are not installed")
    folder = Path(
        tempfile.mkdtemp(prefix="postgres-", dir="/tmp")
    )  # short: a socket's path may have 107 bytes
    try:
        if os.geteuid() == 0:  # it refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
            user = nobody.pw_name
        with Server(place, folder, user).running() as server:
            server.sql(tables)
            yield server
    finally:
        shutil.rmtree(folder)
