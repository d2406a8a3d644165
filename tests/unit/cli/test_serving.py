import json
import shlex

import pytest

from tailorbird.cli.serving import client_key, curl_line
from tailorbird.errors import InputError


def test_the_example_request_is_one_that_a_shell_can_run():
    words = shlex.split(curl_line("http://127.0.0.1:8000", "my model's", None))
    assert words[:2] == ["curl", "http://127.0.0.1:8000/v1/chat/completions"]
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == "my model's"
    assert body["messages"] == [{"role": "user", "content": "Hello"}]


def test_the_example_request_names_the_variable_and_never_the_key(monkeypatch):
    monkeypatch.setenv("CLIENT_KEY", "secret")
    assert '-H "Authorization: Bearer $CLIENT_KEY"' in curl_line("http://h", "m", "CLIENT_KEY")


def test_the_key_is_read_from_the_named_variable(monkeypatch):
    monkeypatch.setenv("CLIENT_KEY", " secret\n")
    assert client_key("CLIENT_KEY") == "secret"
    assert client_key(None) is None


def test_a_variable_without_a_key_is_refused(monkeypatch):
    monkeypatch.setenv("CLIENT_KEY", " ")
    with pytest.raises(
        InputError, match="--key-env CLIENT_KEY: the environment variable is not set or empty"
    ):
        client_key("CLIENT_KEY")
