"""The HTTP answers themselves, byte by byte where it matters, from a real server on a loopback port."""

import http.client
import json
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from served_models import SmallWorkbench, running, wait_until

from tailorbird.errors import InputError
from tailorbird.server.app import create_app
from tailorbird.server.serve import build_server, listen, serve, url_of

ASK = {"model": "bare", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def server():
    with running(SmallWorkbench(), keep_alive_s=0.05) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with httpx.Client(base_url=server.url, timeout=10) as client:
        yield client


def chat(client, **fields):
    return client.post("/v1/chat/completions", json={**ASK, **fields})


def test_health_needs_nothing():
    with running(SmallWorkbench(), key="secret") as server:
        assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/", 404, "not_found"),
        ("GET", "/v1/nothing", 404, "not_found"),
        ("GET", "/v1/models/", 404, "model_not_found"),
        ("GET", "/v1/models/nobody", 404, "model_not_found"),
        ("GET", "/docs", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models", 405, "method_not_allowed"),
        ("POST", "/v1/chat/completions", 400, "invalid_content_type"),
    ],
)
def test_every_failure_has_openais_shape_and_a_request_id(client, method, path, status, code):
    answer = client.request(method, path)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["code"] == code
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["x-should-retry"] == "false"


def test_a_request_that_is_not_allowed_says_what_is(client):
    assert client.get("/v1/chat/completions").headers["allow"] == "POST"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"model": NaN}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"model": "\\ud800"}',
        b"1" * 5000,
    ],
)
def test_a_body_that_is_no_chat_request_is_400(client, body):
    answer = client.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_body_without_a_length_is_measured_as_it_comes(client):
    pieces = (b"x" * 100_000 for _ in range(40))
    answer = client.post("/v1/chat/completions", content=pieces, headers={"content-type": "application/json"})
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "request_too_large"


def test_headers_that_are_too_large_are_refused(server):
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
    connection.request("GET", "/healthz", headers={"x": "y" * 200_000})
    assert connection.getresponse().status == 400
    connection.close()


def test_a_stream_is_server_sent_events_and_ends_with_done(client):
    answer = chat(client, stream=True)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["transfer-encoding"] == "chunked"
    *events, done, rest = answer.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(json.loads(e.removeprefix("data: "))["object"] == "chat.completion.chunk" for e in events)


def test_a_stream_that_waits_says_that_it_lives():
    workbench = SmallWorkbench()
    with (
        running(workbench, keep_alive_s=0.02) as server,
        httpx.stream(
            "POST", f"{server.url}/v1/chat/completions", json={**ASK, "model": "gated", "stream": True}
        ) as answer,
    ):
        lines = answer.iter_lines()
        assert next(line for line in lines if line.startswith(":")) == ": keep-alive"
        workbench.gate.set()
        assert [line for line in lines if line.startswith("data")][-1] == "data: [DONE]"


def test_a_stream_that_breaks_off_has_an_error_event_and_no_done(client):
    events = chat(client, model="cut off", stream=True).text.strip().split("\n\n")
    error = json.loads(events[-1].removeprefix("data: "))["error"]
    assert error == {
        "message": "endpoint: gone.",
        "type": "server_error",
        "param": None,
        "code": "endpoint_error",
    }


def test_a_connection_cut_in_the_middle_of_a_stream_stops_the_model():
    workbench = SmallWorkbench()
    with running(workbench) as server:
        address = urlsplit(server.url)
        body = json.dumps({**ASK, "model": "stuck", "stream": True, "max_tokens": 20_000})
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((address.hostname, address.port)) as line:
            line.sendall(head.encode() + body.encode())
            assert line.recv(10)
        assert wait_until(workbench.stuck.closed.is_set)
        assert wait_until(lambda: server.num_under_way == 0)


def test_a_server_that_stops_stops_its_models():
    workbench = SmallWorkbench()
    with running(workbench) as server:
        stream = httpx.stream(
            "POST",
            f"{server.url}/v1/chat/completions",
            json={**ASK, "model": "stuck", "stream": True, "max_tokens": 5000},
        )
        with stream as answer:
            next(answer.iter_bytes())
    assert workbench.stuck.closed.is_set()


def test_without_a_key_only_names_of_this_machine_are_answered(client):
    answer = client.get("/v1/models", headers={"host": "attacker.example"})
    assert answer.status_code == 403
    assert "start the server with a key" in answer.json()["error"]["message"]
    for host in ("localhost", "localhost:80", "127.0.0.1", "[::1]:8000"):
        assert client.get("/v1/models", headers={"host": host}).status_code == 200


def test_a_web_page_cannot_ask_a_server_without_a_key(client):
    answer = client.post(
        "/v1/chat/completions", content=json.dumps(ASK), headers={"content-type": "text/plain"}
    )
    assert answer.json()["error"]["code"] == "invalid_content_type"


@pytest.mark.parametrize("header", [None, "secret", "Basic secret", "Bearer", "Bearer secre", b"Bearer \xff"])
def test_a_wrong_key_is_401_before_anything_is_looked_at(header):
    with running(SmallWorkbench(), key="secret") as server:
        headers = {} if header is None else {"authorization": header}
        answer = httpx.post(f"{server.url}/v1/nothing", content=b"{", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["x-request-id"]
        right = httpx.get(
            f"{server.url}/v1/models", headers={"authorization": "bearer secret", "host": "any.example"}
        )
        assert right.status_code == 200


def test_an_empty_key_is_no_key():
    with pytest.raises(InputError, match="key: got an empty one"):
        create_app(SmallWorkbench(), key=" ")


# -- listening --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])
def test_other_machines_are_let_in_with_a_key_only(host):
    with pytest.raises(InputError, match=r"without a key\. Give a key, or listen on 127"):
        serve(SmallWorkbench(), host, 0)


def test_a_port_that_is_taken_is_a_clear_error():
    with (
        listen("127.0.0.1", 0, None) as taken,
        pytest.raises(InputError, match=r"cannot listen there .*--port"),
    ):
        serve(SmallWorkbench(), port=taken.getsockname()[1])


def test_a_port_that_is_none_is_refused():
    with pytest.raises(InputError, match="port: got 70000"):
        listen("127.0.0.1", 70_000, None)


def test_an_unknown_log_level_is_refused():
    with listen("127.0.0.1", 0, None) as listener, pytest.raises(InputError, match="log_level: got 'loud'"):
        build_server(SmallWorkbench(), listener, log_level="loud")


def test_serving_tells_its_url_and_models_and_prints_nothing(capfd):
    told = []
    with listen("127.0.0.1", 0, None) as listener:
        server = build_server(
            SmallWorkbench(), listener, references=["x"], on_ready=lambda *told_: told.append(told_)
        )
        url = url_of(listener)
        server.should_exit = True  # it goes as soon as it is ready
        server.run(sockets=[listener])
        assert told == [(url, [*SmallWorkbench().built, "x"])]
    assert capfd.readouterr() == ("", "")
