"""Settings that name environment variables instead of holding what is secret, since settings are kept."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

from tailorbird.errors import EndpointError, NotFound, RecipeError

_VARIABLE = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Z_][A-Z0-9_]*)(?!\w))")
"""`$NAME` in upper case, since OData's `$top` and `$filter` are none, or `${name}`."""
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
_PARAMETER = re.compile(r"[?&;]([^=&;#]+)=([^&#]*)")
_SECRET_NAME = re.compile(
    r"(?:x[-_.])?(?:(?:api|access|auth|app|client|subscription|secret|private|session)[-_.]?)*"
    r"(?:key|token|secret|passwd|password|passphrase|pwd|sig|signature)",
    re.IGNORECASE,
)


def is_variable(text: str) -> bool:
    """Whether a text is the name of one environment variable, as `$NAME` or `${NAME}`, and nothing else.

    >>> is_variable("$SHOP_KEY"), is_variable("${shop}"), is_variable("$SHOP_KEY-1"), is_variable("$1real")
    (True, True, False, False)
    """
    return _VARIABLE.fullmatch(text) is not None


def check_headers(kind: str, headers: Mapping[str, Any]) -> None:
    """Refuses headers that can't be sent, or hold their value instead of naming the variable that does.

    Raises:
        RecipeError: a header names none, or holds a control character.
    """
    for name, value in headers.items():
        if not isinstance(value, str) or not _VARIABLE.search(value):
            raise RecipeError(
                f"{kind}: the header {name!r} names no environment variable. Settings are kept with the model, so name "
                f'the variable that holds the value: {name} = "$SHOP_KEY" or "Bearer $SHOP_KEY".'
            )
        if not _HEADER_NAME.fullmatch(name) or _CONTROL.search(value.strip()):
            raise RecipeError(
                f"{kind}: the header {name!r} can't be sent: expected a name of letters, digits and dashes, and a "
                "value without control characters. Correct it."
            )


def check_address(kind: str, setting: str, url: str) -> None:
    """Refuses an address with a key in its query.

    Raises:
        RecipeError: it holds one; the error does not.
    """
    for name, value in _PARAMETER.findall(url):
        if _SECRET_NAME.fullmatch(name) and value and not is_variable(value) and "{" not in value:
            raise RecipeError(
                f"{kind}: the {setting} holds a key at {name!r}, which would be kept with the model. Name the "
                f"environment variable that holds it: {name}=$SHOP_KEY"
            )


def is_secret_name(name: str) -> bool:
    """Whether what stands under a name is secret by it.

    >>> is_secret_name("api_key"), is_secret_name("PWD"), is_secret_name("passfile"), is_secret_name("sslkey")
    (True, True, False, False)
    """
    return _SECRET_NAME.fullmatch(name) is not None


def check_values(kind: str, setting: str, value: Any) -> None:
    """Refuses a key among what is sent, by the names of a body's or a call's parts.

    A part that is only called `key` may be anything.

    Raises:
        RecipeError: it holds one; the error does not.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            secret = _SECRET_NAME.fullmatch(str(name)) and str(name).lower() != "key"
            if (
                secret
                and isinstance(inner, str)
                and inner
                and not _VARIABLE.search(inner)
                and "{" not in inner
            ):
                raise RecipeError(
                    f"{kind}: the {setting} holds a key at {name!r}, which would be kept with the model. Name the "
                    f'environment variable that holds it: {name} = "$SHOP_KEY"'
                )
            check_values(kind, setting, inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_values(kind, setting, inner)


def filled_in(text: str, where: str, encode: Callable[[str], str] = str) -> str:
    """A setting with the values of the environment variables that it names, as `$NAME` or `${NAME}`.

    `encode` makes a value fit for its place.

    Raises:
        NotFound: there is no such variable.
        EndpointError: its value can't be sent.
    """

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        held = os.environ.get(name, "").strip()
        if not held:
            raise NotFound(
                f"{where}: the environment variable {name!r} is not set. Set it to the key, and ask again."
            )
        if _CONTROL.search(held):
            raise EndpointError(
                f"{where}: the environment variable {name!r} holds a control character. Correct it."
            )
        return encode(held)

    return _VARIABLE.sub(value, text)


def filled_headers(headers: Mapping[str, str], where: str) -> dict[str, str]:
    """Headers as they are sent, without white space at their ends.

    Raises:
        NotFound, EndpointError: as `filled_in`.
    """
    return {name: filled_in(value.strip(), f"{where}: header {name}") for name, value in headers.items()}


def filled_values(value: Any, where: str) -> Any:
    """What a body or a call's arguments hold, with every text filled in.

    Raises:
        NotFound, EndpointError: as `filled_in`.
    """
    if isinstance(value, str):
        return filled_in(value, where)
    if isinstance(value, Mapping):
        return {key: filled_values(inner, where) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [filled_values(inner, where) for inner in value]
    return value
