"""Readers of documents, one family of kinds a module: bytes become text that keeps its structure."""
