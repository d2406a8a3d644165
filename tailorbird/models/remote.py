"""A model behind any OpenAI-compatible endpoint: asked over chat completions, never trained here."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import httpx

from tailorbird.errors import EndpointError, InputError, Unsupported
from tailorbird.models.chat_template import too_long, turns_of, with_less
from tailorbird.models.model import Pieces, in_one_piece
from tailorbird.models.request_checks import check_request, only_choice, refuse_bounds, weighed
from tailorbird.records import Completion, Request, Usage

Labels = Literal["auto", "schema", "logprobs", "parse"]

ATTEMPTS = 3
LONGEST_WAIT_S = 20.0
LETTERS_A_TOKEN, TOKENS_A_TURN = 3, 5
"""By which a prompt's tokens are estimated, rather too many: an endpoint's tokenizer is not at hand."""
RETRIED = frozenset({408, 409, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class RemoteWeights:
    """Weights elsewhere.

    Closed sets are asked by `labels`: "schema" (an enum in `response_format`: the endpoint cannot leave
    the set), "logprobs" (the first token's candidates, where they tell the labels apart), or "parse"
    (free text, read back; words that name no label make the completion invalid). "auto" tries schema,
    and parses where the endpoint refuses a schema.

    Args:
        url: the endpoint's base, such as `http://127.0.0.1:8000/v1`.
        model: its model id.
        key_env: environment variable that holds the key; none is sent if it is empty.
        timeout_s: seconds a request may take.
        concurrency: requests under way at once.
    """

    url: str
    model: str
    key_env: str = "OPENAI_API_KEY"
    timeout_s: float = 120.0
    concurrency: int = 4
    labels: Labels = "auto"

    @property
    def name(self) -> str:
        return self.model

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        with self._client() as client, ThreadPoolExecutor(self.concurrency) as pool:
            return list(pool.map(lambda r: self._one(client, r), requests))

    def stream(self, request: Request) -> Pieces:
        check_request(request)
        if request.choices:
            return (yield from in_one_piece(self.answer([request])[0]))
        request, dropped = self._readied(request)
        started = time.perf_counter()
        with self._client() as client:
            body = {**self._body(request), "stream": True, "stream_options": {"include_usage": True}}
            try:
                with client.stream("POST", "chat/completions", json=body) as response:
                    if response.status_code >= 400:
                        response.read()
                        raise _refused(self.url, response)
                    completion = yield from _pieces(self.url, response)
            except httpx.HTTPError as error:
                raise self._unreachable(error) from error
        return replace(completion, seconds=time.perf_counter() - started, asked=request, dropped=dropped)

    def _client(self) -> httpx.Client:
        key = os.environ.get(self.key_env, "") if self.key_env else ""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        try:
            url = httpx.URL(self.url.rstrip("/") + "/")
            if url.scheme not in ("http", "https") or not url.host:
                raise ValueError("no http:// or https:// with a host")  # noqa: TRY301 - caught with httpx's own
            return httpx.Client(base_url=url, headers=headers, timeout=self.timeout_s)
        except (httpx.InvalidURL, ValueError) as error:
            raise InputError(
                f"endpoint {self.url!r}: not a usable URL ({error}). Expected http://host:port/v1."
            ) from error

    def _one(self, client: httpx.Client, request: Request) -> Completion:
        check_request(request)
        request, dropped = self._readied(request)
        if request.choices is not None and len(request.choices) == 1:
            return only_choice(request)
        started = time.perf_counter()
        completion = self._chosen(client, request) if request.choices else self._free(client, request)
        completion = weighed(completion, request)
        return replace(completion, seconds=time.perf_counter() - started, asked=request, dropped=dropped)

    def _readied(self, request: Request) -> tuple[Request, tuple[str, ...]]:
        """The request within its budget of tokens, as far as these can be told from here, and what was left out.

        Raises:
            Unsupported: it asks for what only weights on this machine can do.
            ContextTooLong: nothing of it can be spared.
        """
        refuse_bounds(request, self.name, schema=True)
        if request.layout != "chat":
            raise Unsupported(
                f"model {self.name!r}: an endpoint puts every conversation into its own chat template, so layout = "
                f"{request.layout!r} is not to be had. Leave it out, or use weights on this machine."
            )
        kept, dropped, budget = request, list[str](), request.prompt_tokens
        while budget is not None and (count := _estimated_tokens(kept)) > budget:
            fewer = with_less(kept)
            if fewer is None:
                raise too_long(request, count, budget, budget)
            kept, left_out = fewer
            dropped.append(f"{left_out}: budget of {budget} tokens full, by estimate")
        return kept, tuple(reversed(dropped))

    def _free(self, client: httpx.Client, request: Request) -> Completion:
        answer = self._post(client, self._body(request))
        choice, usage = _first_choice(self.url, answer)
        finish = "length" if choice.get("finish_reason") == "length" else "stop"
        return Completion(choice["message"]["content"] or "", finish, usage)

    def _chosen(self, client: httpx.Client, request: Request) -> Completion:
        if self.labels == "logprobs":
            return self._by_logprobs(client, request)
        if self.labels in ("auto", "schema"):
            try:
                return self._by_schema(client, request)
            except EndpointError as error:
                if self.labels == "schema" or error.status not in (400, 404, 415, 422, 501):
                    raise
        return self._by_parsing(client, request)

    def _by_schema(self, client: httpx.Client, request: Request) -> Completion:
        assert request.choices is not None
        schema = {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": list(request.choices)}},
            "required": ["label"],
            "additionalProperties": False,
        }
        form = {"type": "json_schema", "json_schema": {"name": "label", "strict": True, "schema": schema}}
        # The bound on the answer's length is for the bare label; braces and quotes come on top.
        body = {
            **self._body(request),
            "response_format": form,
            "max_tokens": request.sampling.max_tokens + 32,
        }
        choice, usage = _first_choice(self.url, self._post(client, body))
        text = choice["message"]["content"] or ""
        try:
            label = str(json.loads(text)["label"])
        except (ValueError, KeyError, TypeError):
            label = text
        return _read_label(label, request, usage)

    def _by_logprobs(self, client: httpx.Client, request: Request) -> Completion:
        assert request.choices is not None
        body = {**self._body(request), "max_tokens": 1, "logprobs": True, "top_logprobs": 20}
        choice, usage = _first_choice(self.url, self._post(client, body))
        try:
            candidates = [
                (str(c["token"]).strip(), math.exp(c["logprob"]))
                for c in choice["logprobs"]["content"][0]["top_logprobs"]
            ]
        except (KeyError, IndexError, TypeError) as error:
            raise EndpointError(
                f"endpoint {self.url}: it sent no logprobs for {self.model!r}. Use labels='schema' or "
                "labels='parse'."
            ) from error
        chances = dict.fromkeys(request.choices, 0.0)
        for start, chance in candidates:
            named = [c for c in request.choices if start and c.startswith(start)]
            if len(named) == 1:
                chances[named[0]] += chance
        total = sum(chances.values())
        if total == 0:
            return self._by_parsing(client, request)
        best = max(request.choices, key=lambda c: chances[c])
        shares = {c: p / total for c, p in chances.items()}
        return Completion(best, "choice", usage, probabilities=shares)

    def _by_parsing(self, client: httpx.Client, request: Request) -> Completion:
        choice, usage = _first_choice(self.url, self._post(client, self._body(request)))
        return _read_label(choice["message"]["content"] or "", request, usage)

    def _body(self, request: Request) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self.model,
            "messages": [{"role": m.role, "content": m.content} for m in turns_of(request)],
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if request.schema is not None:
            form = {"name": "answer", "strict": True, "schema": json.loads(request.schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        return body

    def _post(self, client: httpx.Client, body: dict[str, Any]) -> Any:
        for attempt in range(ATTEMPTS):
            try:
                response = client.post("chat/completions", json=body)
            except httpx.HTTPError as error:
                if attempt + 1 == ATTEMPTS or not isinstance(error, httpx.TransportError):
                    raise self._unreachable(error) from error
                time.sleep(0.5 * 2**attempt)
                continue
            if response.status_code in RETRIED and attempt + 1 < ATTEMPTS:
                asked_s = _retry_after_s(response)
                time.sleep(0.5 * 2**attempt if asked_s is None else min(LONGEST_WAIT_S, max(0.0, asked_s)))
                continue
            if response.status_code >= 400:
                raise _refused(self.url, response)
            try:
                return response.json()
            except ValueError as error:
                raise EndpointError(
                    f"endpoint {self.url}: answered HTTP {response.status_code} with something that is not "
                    "JSON: "
                    f"{response.text[:80]!r}. Is this an OpenAI-compatible API? The base usually ends in /v1."
                ) from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _unreachable(self, error: Exception) -> EndpointError:
        return EndpointError(
            f"endpoint {self.url}: no answer for model {self.model!r} ({type(error).__name__}: {error}). "
            "Check that the server runs and that the URL, with /v1 if it has one, is right."
        )


def _estimated_tokens(request: Request) -> int:
    return sum(math.ceil(len(m.content) / LETTERS_A_TOKEN) + TOKENS_A_TURN for m in turns_of(request))


def _refused(url: str, response: httpx.Response) -> EndpointError:
    try:
        message = response.json()["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = response.text[:200]
    advice = (
        "Check the key in the environment variable named by --key-env." if response.status_code == 401 else ""
    )
    return EndpointError(
        f"endpoint {url}: HTTP {response.status_code}: {message} {advice}".strip(), response.status_code
    )


def _retry_after_s(response: httpx.Response) -> float | None:
    try:
        return float(response.headers["retry-after"])
    except (KeyError, ValueError):
        return None


def _first_choice(url: str, answer: Any) -> tuple[Any, Usage]:
    try:
        choice = answer["choices"][0]
        content, usage = choice["message"]["content"], _usage(answer)
        if not isinstance(content, str | None):
            raise TypeError(content)  # noqa: TRY301 - one message for every odd shape
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise EndpointError(
            f"endpoint {url}: the answer has no choices[0].message.content. Got {str(answer)[:120]!r}. "
            "Is this an OpenAI-compatible chat completions API?"
        ) from error
    return choice, usage


def _usage(answer: Any) -> Usage:
    counts = answer.get("usage") or {}
    cached = (counts.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
    return Usage(counts.get("prompt_tokens") or 0, counts.get("completion_tokens") or 0, cached)


def _read_label(text: str, request: Request, usage: Usage) -> Completion:
    """The one choice that the words name; otherwise the words themselves, marked invalid."""
    assert request.choices is not None
    said = _plain(text)
    exact = [c for c in request.choices if _plain(c) == said]
    named = exact or [c for c in request.choices if re.search(rf"(?<!\w){re.escape(_plain(c))}(?!\w)", said)]
    if len(named) > 1:  # `card` inside `card arrival`: the longest that covers all others is meant
        longest = max(named, key=len)
        named = [longest] if all(_plain(c) in _plain(longest) for c in named) else named
    if len(named) == 1:
        return Completion(named[0], "choice", usage)
    return Completion(text, "stop", usage, valid=False)


def _plain(text: str) -> str:
    return re.sub(r"[\s_]+", " ", text).strip(" .:;,'\"`*").lower()


def _pieces(url: str, response: httpx.Response) -> Pieces:
    text: list[str] = []
    finish: Literal["stop", "length"] = "stop"
    usage, ended = Usage(), False
    for line in response.iter_lines():
        ended = ended or line.endswith("[DONE]")
        if not line.startswith("data:") or line.endswith("[DONE]"):
            continue
        try:
            event = json.loads(line.removeprefix("data:"))
            broken = event.get("error")
            choice = event["choices"][0] if event.get("choices") else {"delta": {}}
            piece = choice["delta"].get("content")
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            raise EndpointError(
                f"endpoint {url}: the stream holds something that is no chat completion chunk: "
                f"{line[:80]!r}. Is this an OpenAI-compatible API?"
            ) from error
        if broken:
            message = broken.get("message") if isinstance(broken, dict) else broken
            raise EndpointError(f"endpoint {url}: the stream broke off: {message}. Ask again.")
        ended = ended or bool(choice.get("finish_reason"))
        finish = "length" if choice.get("finish_reason") == "length" else finish
        usage = _usage(event) if event.get("usage") else usage
        if piece:
            text.append(piece)
            yield piece
    if not ended:
        raise EndpointError(f"endpoint {url}: the stream ended in the middle of the answer. Ask again.")
    return Completion("".join(text), finish, usage)
