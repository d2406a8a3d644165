"""An MCP server of the protocol's first years, written by hand, that starts at once and misbehaves as it is told.

`python old_mcp_server.py HOW [FILE]` speaks over its input and output, and writes its process's number into FILE.
"""

import json
import os
import signal
import sys
import time

CARD = "You can freeze a lost card in the app."


def say(**message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def answer(how, method, parameters):
    if method == "initialize":
        server = {"name": "old", "version": "1"}
        return {"protocolVersion": "2025-03-26", "capabilities": {"tools": {}}, "serverInfo": server}
    if method == "tools/list":
        return {"tools": [{"name": "search", "inputSchema": {"type": "object"}}]}
    if method == "tools/call":
        misbehave(how, parameters)
        return {"content": [{"type": "text", "text": f"{CARD} ({json.dumps(parameters)})"}]}
    return None


def misbehave(how, parameters):
    if how in {"hang", "hang_hard"}:
        time.sleep(600)
    elif how == "die":
        print("the disk is full", file=sys.stderr, flush=True)
        os._exit(3)
    elif how == "line":
        while True:
            sys.stdout.write("x" * 2**16)
    elif how == "lines":
        while True:
            say(method="notifications/message", params={"level": "info", "data": "x" * 2**14})
    elif how == "asks":
        # What a server may ask a client for; whatever is answered, the tool then answers too.
        for number, method in enumerate(("sampling/createMessage", "elicitation/create", "roots/list"), 1000):
            say(
                id=number,
                method=method,
                params={"messages": [], "maxTokens": 9, "message": "?", "requestedSchema": {}},
            )
            print(sys.stdin.readline().strip(), file=sys.stderr, flush=True)


def main(how="well", file=""):
    if file:
        with open(file, "a") as numbers:  # noqa: PTH123
            numbers.write(f"{os.getpid()}\n")
    if how == "hang_hard":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif how == "mute":
        time.sleep(600)
    elif how == "gone":
        sys.exit("there is no licence")
    elif how == "noise":
        print("Starting…", "{", "[1]", '{"jsonrpc": "2.0"}', sep="\n", flush=True)
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message or "method" not in message:
            continue
        result = answer(how, message["method"], message.get("params"))
        if result is None:
            say(id=message["id"], error={"code": -32601, "message": "unknown method"})
        else:
            say(id=message["id"], result=result)
        if (
            how == "once" and message["method"] == "tools/list"
        ):  # which a client asks for after its first call
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
