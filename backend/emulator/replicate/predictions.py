"""A run as Replicate shows it: the prediction object."""

from __future__ import annotations

from typing import Any

from backend.emulator.kit.runs import Run, stamp


def show(run: Run) -> dict[str, Any]:
    """The prediction object: of GET, of lists and of webhooks."""
    shown: dict[str, Any] = {
        "id": run.id,
        "model": run.model,
        "version": "hidden",
        "input": run.input,
        "logs": _logs(run),
        "output": _output(run),
        "data_removed": run.data_removed,
        "error": run.error,
        "source": "api",
        "status": run.status,
        "created_at": stamp(run.created_at),
    }
    return shown | _times(run) | _webhook(run) | {"urls": _urls(run)}


def _logs(run: Run) -> str:
    """Progress as tqdm prints it: `40%|####      | 4/10`."""
    return "".join(f"{tenth * 10:3d}%|{'#' * tenth:10s}| {tenth}/10\n" for tenth in run.tenths)


def _times(run: Run) -> dict[str, Any]:
    times = {"started_at": run.started_at, "completed_at": run.completed_at, "deadline": run.deadline_at}
    shown: dict[str, Any] = {name: stamp(at) for name, at in times.items() if at}
    if run.completed_at:
        ran = run.completed_at - (run.started_at or run.completed_at)
        total = run.completed_at - run.created_at
        shown["metrics"] = {"predict_time": ran.total_seconds(), "total_time": total.total_seconds()}
    return shown


def _webhook(run: Run) -> dict[str, Any]:
    if run.webhook is None:
        return {}
    filtered = {} if run.events is None else {"webhook_events_filter": list(run.events)}
    return {"webhook": run.webhook, **filtered}


def _urls(run: Run) -> dict[str, str]:
    get = f"{run.origin}/v1/predictions/{run.id}"
    return {"web": f"{run.origin}/p/{run.id}", "get": get, "cancel": f"{get}/cancel"}


def _output(run: Run) -> Any:
    """One URL, or what a fault makes of it."""
    faults, urls = run.faults, run.urls
    if urls is None:
        return None
    if "output_other_host" in faults:
        return urls[0]
    if "output_empty" in faults:
        return faults["output_empty"]["value"]
    if "output_data_uri" in faults:
        return urls[0]
    if "output_object" in faults:
        wanted = faults["output_object"]["value"]
        return _filled({"file": "$0", "seed": "4711"} if wanted is None else wanted, urls)
    return urls if {"output_list", "output_many"} & set(faults) else urls[0]


def _filled(shape: Any, urls: list[str]) -> Any:
    """The same JSON with the n-th file's URL wherever it says `$n`."""
    if isinstance(shape, dict):
        return {name: _filled(each, urls) for name, each in shape.items()}
    if isinstance(shape, list):
        return [_filled(each, urls) for each in shape]
    for number, url in enumerate(urls) if isinstance(shape, str) else ():
        if shape.strip() == f"${number}":
            return shape.replace(f"${number}", url)
    return shape
