"""Packages that only some connectors need."""

from __future__ import annotations

from importlib.util import find_spec

from tailorbird.errors import Unsupported


def need(module: str, kind: str, extra: str) -> None:
    """Refuses to go on without a package.

    Args:
        module: What is imported.
        kind: The connector that needs it.
        extra: By which it is installed.

    Raises:
        Unsupported: It is not installed.
    """
    if find_spec(module) is None:
        raise Unsupported(
            f"{kind}: the package {module} is not installed. "
            f"Install it with: pip install 'tailorbird[{extra}]'."
        )
