"""Your data, read and checked: formats, duplicates, splits, the report, documents, passages."""
