"""A small workbench of real models that need no weights, and a real server over it in a thread."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tailorbird.data.task import Task
from tailorbird.errors import ContextTooLong, EndpointError, IntegrityError, NotFound
from tailorbird.models.blank import Blank, Scripted
from tailorbird.models.model import Wrapped
from tailorbird.records import Completion, Passage, Usage
from tailorbird.server.serve import build_server, listen, url_of
from tailorbird.workbench import ModelInfo, OpenModel

LABELS = ("card arrival", "refund", "exchange rate")
SORTING = Task("classify", "Name the category.", LABELS)
ANSWERING = Task("answer", "Answer briefly.", max_tokens=7)


def said(request):
    """What was asked, as the weights saw it: role: text lines, and the sampling."""
    turns = " | ".join(f"{m.role}: {m.content}" for m in request.messages)
    s = request.sampling
    return f"{turns} | {s.max_tokens} {s.temperature} {s.top_p} {s.seed} {s.stop}"


@dataclass(frozen=True)
class Counter:
    """Writes numbers one by one, like weights: words as it goes, the record at the end."""

    name: str = "counter"
    pause_s: float = 0.0
    breaks_at: int | None = None
    failure: Exception | None = None
    written: list[int] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)

    def answer(self, requests):
        return [self._one(request) for request in requests]

    def _one(self, request):
        stream = self.stream(request)
        while True:
            try:
                next(stream)
            except StopIteration as end:
                return end.value

    def stream(self, request):
        words = []
        try:
            for number in range(request.sampling.max_tokens):
                if number == self.breaks_at:
                    raise self.failure or RuntimeError("secret detail of the inside")
                self.written.append(number)
                words.append(f"{number} ")
                yield words[-1]
                time.sleep(self.pause_s)
            usage = Usage(5, len(words), 3)
            return Completion(
                "".join(words), "length", usage, asked=request, dropped=("evidence 3: context full",)
            )
        finally:
            self.closed.set()


@dataclass(frozen=True)
class Bare:
    """A plug-in's model whose stream is a plain iterator that ends without a record."""

    name: str = "bare"

    def answer(self, requests):
        return [Completion(said(request), asked=request) for request in requests]

    def stream(self, request):
        yield said(request)


@dataclass(frozen=True)
class Shown:
    """A wrapper that puts one passage before the question."""

    kind = "knowledge"

    def __call__(self, request):
        passage = Passage(
            "p1", "fees.md", "A card costs 5 euro.", "Fees", ("Cards",), start=10, end=30, page=2, score=0.75
        )
        return request.with_evidence((passage,))

    def save(self, folder):
        return {}


class SmallWorkbench:
    """Lists and opens models as `Workbench` does; counts how often each was opened."""

    def __init__(self):
        self.stuck = Counter("stuck", pause_s=0.005)
        self.gate = threading.Event()
        self.opened = []
        self.created = 1_700_000_000
        self.built = {
            "sorter": (Blank(), SORTING),
            "echo": (Scripted(said, "echo"), ANSWERING),
            "bare": (Bare(), None),
            "counter": (Counter(), None),
            "reader": (Wrapped(Counter(), Shown()), ANSWERING),
            "stuck": (self.stuck, None),
            "gated": (Scripted(self._wait, "gated"), None),
            "breaking": (Counter("breaking", breaks_at=2), None),
            "cut off": (Counter("cut off", breaks_at=2, failure=EndpointError("endpoint: gone.")), None),
            "full": (
                Counter("full", breaks_at=0, failure=ContextTooLong("request: 9000 tokens; room for 8000.")),
                None,
            ),
            "defective": (Counter("defective", breaks_at=0), None),
            "liar": (Liar(), None),
            "broken folder": (IntegrityError("broken folder: sha256 differs."), None),
        }

    def _wait(self, request):
        self.gate.wait(10)
        return "through"

    def models(self):
        return [ModelInfo(name, "saved", created=self.created) for name in self.built]

    def open(self, reference, key_env=None):
        self.opened.append(reference)
        time.sleep(0.02)  # long enough for others to ask for the same model meanwhile
        if reference == "hf:maker/model":
            return OpenModel(reference, Scripted(said, "hub"), created=7)
        if reference not in self.built:
            raise NotFound(f"model {reference!r}: no such.")
        model, task = self.built[reference]
        if isinstance(model, Exception):
            raise model
        return OpenModel(reference, model, task, self.created)


@dataclass(frozen=True)
class Liar:
    """A remote model that cannot be bound to a closed set."""

    name: str = "liar"

    def answer(self, requests):
        return [Completion("something else", valid=request.choices is None) for request in requests]

    def stream(self, request):
        yield self.answer([request])[0].text


@dataclass(frozen=True)
class Running:
    """A server that takes requests at `url`."""

    url: str
    app: Any

    @property
    def num_under_way(self):
        return self.app.state.service.workers.num_under_way


@contextmanager
def running(workbench, *, key=None, **settings):
    """A real server on a free port of this machine; stopped in the end."""
    listener = listen("127.0.0.1", 0, key)
    ready = threading.Event()
    server = build_server(
        workbench, listener, key=key, log_level="critical", on_ready=lambda *_: ready.set(), **settings
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert ready.wait(10), "the server did not start"
        yield Running(url_of(listener), server.config.app)
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()
        assert not thread.is_alive(), "the server did not stop"


def wait_until(condition, timeout_s=5.0):
    """Whether the condition came true in time."""
    end = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()
