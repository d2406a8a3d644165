"""The HTTP API, compatible with OpenAI's chat completions."""
