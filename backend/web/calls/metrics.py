"""What Prometheus is told about requests and work.

Labels come from short, fixed lists: else series would grow without end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from backend.core.generation import ACTIVE
from backend.logs import output
from backend.storage import Usage
from backend.upkeep.readiness import Workload

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


UNTRUSTED = Counter("reelhook_untrusted_forwarded", "Requests forwarded by a peer that TRUSTED_PROXIES does not name")
STREAMS = Gauge("reelhook_streams", "Open event streams")
UNFINISHED = Gauge("reelhook_generations", "Unfinished generations", ("stage",))
LATE = Gauge("reelhook_oldest_due_seconds", "How late the most overdue row is")
PAUSED = Gauge("reelhook_provider_paused", "1 while a provider is left alone", ("provider",))
CHARGED = Gauge("reelhook_possibly_charged", "Failed generations that may have been paid")
ASIDE = Gauge("reelhook_set_aside", "Failed generations that nobody could work on")
UNTOLD = Gauge("reelhook_webhooks_pending", "Webhook deliveries still to be made")
DISABLED = Gauge("reelhook_webhook_endpoints_disabled", "Webhook endpoints that are told nothing more")
SPOOLED = Gauge("reelhook_spool_files", "Temporary files: uploads, fetches and outputs on their way into the storage")
SPOOLED_BYTES = Gauge("reelhook_spool_bytes", "Bytes of the temporary files")


def weigh(load: Workload, providers: Iterable[str], spooled: Usage) -> None:
    """Set the gauges to how much there is to do now."""
    for stage in ACTIVE:
        UNFINISHED.labels(stage).set(load.unfinished.get(stage, 0))
    for name in providers:
        PAUSED.labels(name).set(name in load.paused)
    LATE.set(load.late_s)
    CHARGED.set(load.possibly_charged)
    ASIDE.set(load.set_aside)
    UNTOLD.set(load.untold)
    DISABLED.set(load.disabled_endpoints)
    SPOOLED.set(spooled.files)
    SPOOLED_BYTES.set(spooled.bytes)


class _Dropped(Collector):
    """Lines of the log that found no room. They are counted where they are lost."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "reelhook_log_lines_dropped", "Lines of output that were lost: nobody read them in time", output.dropped()
        )


REGISTRY.register(_Dropped())


def render() -> bytes:
    """Return every metric of this process in the text form of Prometheus."""
    return generate_latest(REGISTRY)
