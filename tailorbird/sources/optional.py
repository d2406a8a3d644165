"""Packages that only some sources and stores need."""

from __future__ import annotations

from importlib.util import find_spec

from tailorbird.errors import Unsupported


def need(module: str, where: str, extra: str, otherwise: str = "") -> None:
    """Refuses to go on without a package.

    Args:
        module: What is imported.
        where: What needs it, with which the error begins.
        extra: By which it is installed.
        otherwise: What else may be done.

    Raises:
        Unsupported: It is not installed.
    """
    if find_spec(module) is None:
        raise Unsupported(
            f"{where}: the package {module} is not installed. "
            f"Install it with: pip install 'tailorbird[{extra}]'{f', or {otherwise}' if otherwise else '.'}"
        )


def need_for_store(module: str, store: str) -> None:
    """`need` of a vector store, which is installed as the extra of its name; there are others.

    Raises:
        Unsupported: The package is not installed.
    """
    need(module, f"vector store {store!r}", store, "choose another: tailor knowledge store NAME auto")
