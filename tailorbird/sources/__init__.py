"""Knowledge plug-ins: connectors and live sources, the index over them, and its ways of ranking."""
