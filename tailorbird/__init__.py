"""Tailorbird makes a pre-trained language model yours, four ways, and proves which way won."""
