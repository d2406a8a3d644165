"""The textbook: tensors and tokens only. Nothing here knows what a text or a chat is."""
