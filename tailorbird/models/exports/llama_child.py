"""Asks a GGUF file through llama.cpp, in a process of its own: a native crash ends this and nothing else.

    python llama_child.py JOB.json ANSWERS.json

Only the standard library and xllamacpp are needed. Everything is the file's own: its chat template writes
the prompt, its tokenizer cuts prompt and labels.
"""

from __future__ import annotations

import heapq
import json
import math
import sys
import urllib.request
from importlib import import_module
from pathlib import Path
from typing import Any

LISTED = 64
"""Likeliest tokens that one request tells of; others are asked for one by one, where they matter."""
ALL = 1_000_000
"""More tokens than any vocabulary has."""
NEGLIGIBLE = math.log(1e-6)
"""A label less likely than this beside the best one counts as impossible."""
FORCED = 1e9
"""Added to a token's score before sampling, which draws it; the probability told is the one without."""

Tokens = tuple[int, ...]


class LlamaFile:
    """A loaded GGUF file.

    Args:
        path: of the file.
        adapter: path of a LoRA adapter's GGUF file, or None.
        context: tokens of prompt and answer together.
        threads: to compute with.
        end: the text of the token that ends an answer.
    """

    def __init__(self, path: str, adapter: str | None, context: int, threads: int, end: str) -> None:
        xllamacpp: Any = import_module("xllamacpp")  # a native module without types

        params = xllamacpp.CommonParams()
        params.model.path = path
        if adapter is not None:
            params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter, 1.0)]
        params.n_ctx = context
        params.n_parallel = 1
        params.fit_params = False
        params.warmup = False
        params.verbosity = -1
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        self.server = xllamacpp.Server(params)
        # A proxy of the surroundings has no business with this process's own socket.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        (self.end,) = self.tokens(end, control=True)

    def prompt(self, messages: list[dict[str, str]]) -> Tokens:
        """The conversation as tokens, up to where the answer begins."""
        text = self._post("/apply-template", {"messages": messages})["prompt"]
        return self.tokens(text, control=True)

    def tokens(self, text: str, *, control: bool = False) -> Tokens:
        """A text as tokens; with `control`, control tokens in it are those and not text."""
        body = {"content": text, "parse_special": control, "add_special": control}
        return tuple(self._post("/tokenize", body)["tokens"])

    def write(self, prompt: Tokens, max_tokens: int, stop: list[str]) -> str:
        """The greedy answer."""
        return self._complete(prompt, n_predict=max_tokens, stop=stop)["text"]

    def score(self, prompt: Tokens, labels: list[Tokens]) -> list[float]:
        """The log-probability of every label, none of which begins another; -inf where it is negligible.

        The likeliest beginning is continued first. A token that was not listed is at most as likely as the
        least one that was; it is asked for only if that could still matter.
        """
        found: dict[Tokens, float] = {}
        # Log-probability at most, negated; the tokens; that of the tokens but the last, where the last is open.
        queue: list[tuple[float, Tokens, float | None]] = [(0.0, (), None)]
        while queue and not (found and -queue[0][0] < max(found.values()) + NEGLIGIBLE):
            minus, path, before = heapq.heappop(queue)
            if before is not None:
                exact = before + self._log_p(prompt + path[:-1], path[-1])
                heapq.heappush(queue, (-exact, path, None))
            elif path in labels:
                found[path] = -minus
            else:
                follow = {label[len(path)] for label in labels if label[: len(path)] == path}
                listed = self._listed(prompt + path, LISTED)
                for token in sorted(follow):
                    log_p = listed.get(token)
                    most = min(listed.values()) if log_p is None else log_p
                    entry = (minus - most, (*path, token), -minus if log_p is None else None)
                    heapq.heappush(queue, entry)
        return [found.get(label, -math.inf) for label in labels]

    def _listed(self, prompt: Tokens, most: int) -> dict[int, float]:
        """The likeliest tokens after a prompt and their log-probabilities."""
        told = self._drawn(prompt, self.end, most)
        assert told is not None
        return {entry["id"]: entry["logprob"] for entry in told["top_logprobs"]}

    def _log_p(self, prompt: Tokens, token: int) -> float:
        told = self._drawn(prompt, token, 1)
        return self._listed(prompt, ALL)[token] if told is None else told["logprob"]

    def _drawn(self, prompt: Tokens, token: int, most: int) -> dict[str, Any] | None:
        """What is told of a token when it is drawn; None of one that is the first half of a character."""
        told = self._complete(prompt, n_predict=1, n_probs=most, logit_bias=[[token, FORCED]])["logprobs"]
        if told is None or told["content"][0]["id"] != token:
            return None
        return told["content"][0]

    def _complete(self, prompt: Tokens, **settings: Any) -> dict[str, Any]:
        body = {"prompt": list(prompt), "temperature": 0.0, "cache_prompt": True, **settings}
        answer = self.server.handle_completions(body)
        if "choices" not in answer:
            raise RuntimeError(f"llama.cpp answered {answer}")
        return answer["choices"][0]

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(  # noqa: S310 - our own socket
            self.server.listening_address + path,
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with self._opener.open(request) as answer:
            return json.load(answer)


def answer(file: LlamaFile, asked: dict[str, Any]) -> dict[str, Any]:
    """One answer: the prompt's tokens, and a text or every label's log-probability."""
    prompt = file.prompt(asked["messages"])
    if asked["choices"] is None:
        return {"prompt": prompt, "text": file.write(prompt, asked["max_tokens"], asked["stop"])}
    labels = [file.tokens(choice) for choice in asked["choices"]]
    begins = {label[:n] for label in labels for n in range(1, len(label))}
    closed = [(*label, file.end) if label in begins else label for label in labels]
    return {"prompt": prompt, "log_p": file.score(prompt, closed)}


def main(job_file: str, answers_file: str) -> None:
    """Answers a job."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    file = LlamaFile(job["gguf"], job["adapter"], job["context"], job["threads"], job["end"])
    answers = [answer(file, asked) for asked in job["asked"]]
    Path(answers_file).write_text(json.dumps(answers), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
