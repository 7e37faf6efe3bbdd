"""One call of a client: its operation, its body, its answer, and how all of them are documented."""
