"""The service as tools of a language model, by the Model Context Protocol (the extra `mcp`).

`access` says where the service is and with which key, `answers` what the tools tell, `tools` are the tools,
`serving` gives them to a client: over standard input and output, or as one HTTP request and its answer.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

HINT = "the extra `mcp` is not installed: pip install 'reelhook[mcp]'"


def is_installed() -> bool:
    """Whether the protocol's library is installed in a version we know. Nothing of it is imported for that."""
    try:
        return find_spec("mcp") is not None and version("mcp").startswith("2.")
    except PackageNotFoundError:
        return False
