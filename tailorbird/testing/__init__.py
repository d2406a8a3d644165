"""The contracts that every plug-in must keep, shipped so that plug-ins elsewhere can run them."""
