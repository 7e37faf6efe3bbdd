"""The process that takes rows which are due and works on them."""

from backend.worker.lanes import LEASE_MS
from backend.worker.loop import Worker, attempt

__all__ = ["LEASE_MS", "Worker", "attempt"]
