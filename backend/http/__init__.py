"""The only way out of the process, guarded HTTP, and how requests come in.

Read `client` first. `names` looks up hosts, `addresses` says who may be reached, `lines` keeps connections, `sockets`
are the connections themselves with their deadlines. `requests` are written to go over them, `exchanges` sends one and
reads its answer, `answers` makes a whole answer of it. `hops` follows a download's redirects, and `downloads` turns
what arrives into files. `serving` is the protocol that uvicorn runs, `framing` says
where a request begins and ends.
"""

from __future__ import annotations

from backend.http.addresses import Network, check_target, check_url, is_allowed
from backend.http.answers import HttpAnswer
from backend.http.client import Http
from backend.http.downloads import Fetched, unzip

__all__ = ["Fetched", "Http", "HttpAnswer", "Network", "check_target", "check_url", "is_allowed", "unzip"]
