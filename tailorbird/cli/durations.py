"""Durations as people write them: `90s`, `15m`, `2h`, `1h30m`."""

from __future__ import annotations

import re

from tailorbird.errors import InputError

_WHOLE = re.compile(
    r"(?:(?P<h>\d+(?:\.\d+)?)h)?\s*(?:(?P<m>\d+(?:\.\d+)?)m)?\s*(?:(?P<s>\d+(?:\.\d+)?)s)?", re.ASCII
)
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}


def parse_duration(text: str, option: str) -> float:
    """The duration in seconds.

    >>> parse_duration("1h30m", "--budget")
    5400.0

    Args:
        text: Hours, minutes and seconds in this order, each with its unit; at least one of them.
        option: Where the text was given, for the message.

    Raises:
        InputError: The text is no duration, or it is zero.
    """
    found = _WHOLE.fullmatch(text.strip().lower())
    if found is None or not any(found.groups()):
        unit = " Say which unit is meant." if re.fullmatch(r"\s*\d+(\.\d+)?\s*", text) else ""
        raise InputError(
            f"{option}: {text!r} is no duration. Expected one such as 90s, 15m, 2h or 1h30m.{unit}"
        )
    total = sum(float(number) * _SECONDS[unit] for unit, number in found.groupdict().items() if number)
    if total <= 0:
        raise InputError(f"{option}: {text!r} is no time at all. Give a longer one, or leave the option out.")
    return total


def clock_time(seconds: float) -> str:
    """A running time, as short as it can be read.

    >>> [clock_time(s) for s in (7.4, 75, 4000)]
    ['7 s', '1 min 15 s', '1 h 06 min']
    """
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
