"""Everything that Tailorbird raises on purpose.

    TailorbirdError
    ├── InputError (ValueError)            something the user gave cannot be used
    │   ├── DataError                      a line of a data file, or a data set as a whole
    │   ├── DocumentError                  a document that cannot be read
    │   │   └── KindError                  it is of a kind that is not read
    │   ├── RecipeError                    a recipe, an arm name, a setting
    │   │   └── TrainingDiverged           a learning rate with which nothing is learnt
    │   └── RequestError                   a request to a model
    │       └── ContextTooLong             does not fit the model's context, even without evidence
    ├── NotFound (LookupError)             a model, a file, an arm that is not there
    ├── Unsupported (TypeError)            the model cannot do this (training a remote model)
    ├── OutOfMemory (MemoryError)          it would need more memory than there is
    ├── IntegrityError (RuntimeError)      stored bytes are not the bytes that were written
    ├── ReplayMismatch (RuntimeError)      an exported model answers otherwise than the one it was made from
    ├── ProcessLost (ConnectionError)      another process of the same training ended
    └── EndpointError (ConnectionError)    a remote endpoint failed or answered nonsense

A message says what is wrong, where, what was got, what was expected and what to do next.
Shells print it without a traceback; any other exception that reaches a shell is a defect.
"""

from __future__ import annotations


class TailorbirdError(Exception):
    """Base of all errors a user may see."""


class InputError(TailorbirdError, ValueError):
    """Something the user gave cannot be used as it is."""


class DataError(InputError):
    """A line of a data file, or a data set as a whole, cannot be used."""


class DocumentError(InputError):
    """A document cannot be read."""


class KindError(DocumentError):
    """A document is of a kind that is not read."""


class RecipeError(InputError):
    """A recipe, an arm name or a setting makes no sense."""


class TrainingDiverged(RecipeError):
    """The loss or its gradient is no longer a finite number."""


class RequestError(InputError):
    """A request to a model cannot be answered as it stands."""


class ContextTooLong(RequestError):
    """The request does not fit the model's context, even with all evidence dropped."""


class NotFound(TailorbirdError, LookupError):
    """What was named does not exist."""


class Unsupported(TailorbirdError, TypeError):
    """The model or part cannot do what was asked of it."""


class OutOfMemory(TailorbirdError, MemoryError):
    """What was asked for would need more memory than this machine, or its device, has left."""


class IntegrityError(TailorbirdError, RuntimeError):
    """Stored bytes differ from what was written."""


class ReplayMismatch(TailorbirdError, RuntimeError):
    """An exported model answers otherwise than the one it was made from."""


class ProcessLost(TailorbirdError, ConnectionError):
    """Another process that trained the same model ended, or can't be reached."""


class EndpointError(TailorbirdError, ConnectionError):
    """A remote endpoint failed, refused or answered something unusable. `status` is its HTTP status or 0."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status
