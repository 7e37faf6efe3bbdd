"""Pictures and films made from a prompt: real files, the same ones for the same request."""
