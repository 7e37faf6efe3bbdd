"""What Prometheus is told about requests. Labels come from short, fixed lists only."""

from __future__ import annotations

from prometheus_client import REGISTRY, Counter, Histogram, generate_latest

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))

REQUESTS = Counter("reelhook_http_requests", "Requests answered", ("method", "route", "status"))
SECONDS = Histogram(
    "reelhook_http_request_seconds",
    "Time until a request was answered to the last byte",
    ("method", "route"),
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60),
)


def count(method: str, route: str, status: int, seconds: float) -> None:
    """Count one answered request; `route` is the template, never the path."""
    known = method if method in _METHODS else "OTHER"
    REQUESTS.labels(known, route, str(status)).inc()
    SECONDS.labels(known, route).observe(seconds)


def render() -> bytes:
    """Every metric of this process in Prometheus' text form."""
    return generate_latest(REGISTRY)
