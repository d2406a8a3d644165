"""Things that answer: local weights, endpoints, fitted floors, and what may wrap them."""
