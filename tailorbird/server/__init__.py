"""The HTTP API, compatible with OpenAI's chat completions."""

from tailorbird.server.serve import serve as serve
