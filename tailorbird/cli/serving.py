"""`tailor serve`: the project's models behind the OpenAI API."""

from __future__ import annotations

import json
import os
import shlex
from typing import Annotated, Any

import typer

from tailorbird.cli.options import AsJson
from tailorbird.cli.output import print_json, say
from tailorbird.cli.project import project_of
from tailorbird.errors import InputError


def serve(
    context: typer.Context,
    *,
    host: Annotated[str, typer.Option(metavar="HOST", help="127.0.0.1: this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65535, help="0 takes a free one.")] = 8000,
    key_env: Annotated[
        str | None,
        typer.Option("--key-env", metavar="NAME", help="The environment variable with the key to ask for."),
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="MODEL", help="Serve this one besides the project's; can be repeated."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve every model of the project until Ctrl-C."""
    key = client_key(key_env)
    workbench = project_of(context).workbench()
    from tailorbird.server.serve import serve as start

    def announce(url: str, models: list[str]) -> None:
        if as_json:
            print_json({"url": url, "base_url": f"{url}/v1", "models": models})
            return
        say(f"Serving on {url}; OpenAI clients take base_url {url}/v1", bold=True)
        say(f"  models  {', '.join(models)}")
        if models:
            say(f"  try     {curl_line(url, models[0], key_env)}")
        say("Ctrl-C stops it.", dim=True)

    start(workbench, host, port, key=key, on_ready=announce, references=also or ())


def client_key(name: str | None) -> str | None:
    """The key that clients must send; None where none was asked for.

    Raises:
        InputError: The named environment variable holds no key.
    """
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise InputError(
            f"--key-env {name}: the environment variable is not set or empty. Set it to the key."
        )
    return key


def curl_line(url: str, model: str, key_env: str | None) -> str:
    """A request that can be pasted into a shell; the key stays in its variable."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    key = f' -H "Authorization: Bearer ${key_env}"' if key_env else ""
    return (
        f"curl {shlex.quote(url)}/v1/chat/completions -H 'Content-Type: application/json'{key} "
        f"-d {shlex.quote(json.dumps(body))}"
    )
