"""Where the service listens, and how many connections it has room for."""

from __future__ import annotations

import resource
import socket

from backend.core.errors import SettingsError

MOST_CONNECTIONS = 4000
MOST_FILES = 65_536  # more than is ever needed; some systems make a process with millions slow
OWN_FILES = 400  # what the service opens besides: the database, files, connections to providers


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Port 0 takes any free one. Raises SettingsError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # As many connections may come in one moment, as after a restart; beyond that the kernel drops them.
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError, TypeError) as error:  # the last two for a name that is none
        why = (error.strerror or error) if isinstance(error, OSError) else "no name of a machine"
        raise SettingsError(f"cannot listen on {host}:{port}: {why}") from error


def raise_file_limit() -> None:
    """Let this process open as many files as it may: a connection is a file, and shells allow few."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def most_connections() -> int:
    """Return how many connections there may be: fewer than files, or nobody could even be refused."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return min(MOST_CONNECTIONS, max(files - OWN_FILES, files // 2))
