"""Models in the formats of other servers, each proven by replay before it is put in place."""
