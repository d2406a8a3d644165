"""The front door: addresses that mean this machine."""

import subprocess
import sys

import pytest

from tailorbird.server.front_door import is_loopback


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.9.9.9", "::1"])
def test_these_mean_this_machine(host):
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["", "0.0.0.0", "::", "10.0.0.1", "localhost.example.org", "127.0.0.1.example.org", "1"]
)
def test_these_do_not(host):
    assert not is_loopback(host)


def test_the_server_starts_without_torch():
    code = "import sys, tailorbird.server.app, tailorbird.server.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
