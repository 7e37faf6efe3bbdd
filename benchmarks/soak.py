"""An hour's worth of mixed requests with faults at the provider and kill -9 at the service, then an audit.

    scripts/soak [--images 600] [--videos 300] [--kills 20] [--seed 1]

Uses the auditor and the gateway of the tests. A submit that a kill cut off before it reached the provider
stays unclear until the provider's own deadline has passed: so the end may take a quarter of an hour.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from auditor import audit
from emulating import TINY, emulating
from gateway import Gateway, gateway

PROVIDER = replace(TINY, image_s=0.3, video_s=1.5)
FAULTS: list[dict[str, Any]] = [
    {"kind": "webhook_lost", "match": {"every": 7}},
    {"kind": "webhook_duplicate", "count": 3, "match": {"every": 5}},
    {"kind": "webhook_late", "delay_s": 3.0, "match": {"every": 11}},
    {"kind": "webhook_out_of_order", "match": {"every": 13}},
    {"kind": "webhook_bad_signature", "match": {"every": 17}},
    {"kind": "webhook_before_answer", "match": {"every": 19}},
    {"kind": "create_429", "retry_after": 1, "match": {"every": 41}},
    {"kind": "create_422", "match": {"every": 83}},
    {"kind": "create_500_after", "match": {"every": 47}},
    {"kind": "reset_after", "match": {"every": 43}},
    {"kind": "create_bad_json", "match": {"every": 61}},
    {"kind": "create_hang", "delay_s": 3.0, "match": {"every": 53}},
    {"kind": "failed", "match": {"every": 37}},
    {"kind": "canceled", "match": {"every": 97}},
    {"kind": "unknown_status", "match": {"every": 29}},
    {"kind": "get_500", "match": {"every": 9}},
    {"kind": "output_truncated", "match": {"every": 31}},
    {"kind": "output_404", "match": {"every": 59}},
    {"kind": "output_slow", "bytes_per_s": 100_000, "match": {"every": 23}},
]


def main(wanted: argparse.Namespace) -> None:
    """Ask, kill, wait, audit, and say what became of it all."""
    chance = random.Random(wanted.seed)
    with tempfile.TemporaryDirectory(prefix="reelhook-soak-") as place, emulating(PROVIDER) as provider:
        provider.spoil(*FAULTS)
        with gateway(Path(place), provider) as service:
            stop, began = threading.Event(), time.monotonic()
            killer = threading.Thread(target=kill_often, args=(service, wanted.kills, chance, stop))
            killer.start()
            ask_all(service, wanted, chance)
            print(f"asked for {len(service.accepted)} in {time.monotonic() - began:.0f} s")
            stop.set()
            killer.join()
            rows = wait_for_the_end(service)
            audit(Path(place), provider.ledger, service.accepted)
            show(rows, provider.ledger, wanted.kills, time.monotonic() - began)


def ask_all(service: Gateway, wanted: argparse.Namespace, chance: random.Random) -> None:
    """Requests in random order from a few threads, each sent again under its key until it is answered."""
    kinds = ["image"] * wanted.images + ["video"] * wanted.videos
    chance.shuffle(kinds)
    lock = threading.Lock()

    def work() -> None:
        with httpx.Client(base_url=service.origin, timeout=30, trust_env=False) as client:
            while True:
                with lock:
                    if not kinds:
                        return
                    number, kind = len(kinds), kinds.pop()
                for id in ask_until_answered(client, service.campaign_id, kind, number):
                    service.accepted.append(id)
                time.sleep(wanted.pace)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def ask_until_answered(client: httpx.Client, campaign_id: str, kind: str, number: int) -> list[str]:
    """The ids of what was accepted; asking again under the same key never makes more."""
    body: dict[str, Any] = {"campaign_id": campaign_id, "prompt": f"a fox in the snow, number {number}"}
    if number % 10 == 0:
        body["copies"] = 2
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            answer = client.post(f"/api/v2/generate/{kind}", json=body, headers={"Idempotency-Key": f"soak-{number}"})
        except httpx.TransportError:
            time.sleep(0.1)
            continue
        if answer.status_code == 202:
            made = answer.json()
            return [one["id"] for one in made.get("items", [made])]
        assert answer.status_code == 503, answer.text
        time.sleep(0.5)
    raise TimeoutError("the service never came back")


def kill_often(service: Gateway, kills: int, chance: random.Random, stop: threading.Event) -> None:
    """kill -9 at random moments, until so many were done; the last ones after everything was asked."""
    for _ in range(kills):
        stop.wait(chance.uniform(0.5, 6)) if not stop.is_set() else time.sleep(chance.uniform(0.2, 2))
        service.restart()


def wait_for_the_end(service: Gateway, within_s: float = 1800) -> Counter[tuple[str, str | None]]:
    """Until no generation is unfinished; how many ended how."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        with closing(sqlite3.connect(f"file:{service.folder}/reelhook.db?mode=ro", uri=True)) as database:
            found = database.execute("SELECT status, error_code, COUNT(*) FROM generations GROUP BY 1, 2").fetchall()
        rows = Counter({(status, code): count for status, code, count in found})
        if not any(finished not in ("completed", "failed", "canceled") for finished, _ in rows):
            return rows
        time.sleep(2)
    raise TimeoutError(rows)


def show(rows: Counter[tuple[str, str | None]], ledger: dict[str, Any], kills: int, seconds: float) -> None:
    """The figures of the run; the audit has passed already."""
    created = sum(create["created"] for create in ledger["creates"])
    print(f"{rows.total()} generations, {kills} kills, {seconds:.0f} s; {created} predictions were created")
    for (status, code), count in sorted(rows.items(), key=str):
        print(f"  {status:10} {code or '':20} {count}")
    print("audit passed: nothing lost, nothing created twice, every file whole")


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--images", type=int, default=600)
parser.add_argument("--videos", type=int, default=300)
parser.add_argument("--kills", type=int, default=20)
parser.add_argument("--pace", type=float, default=0.2, help="seconds each of four clients waits between requests")
parser.add_argument("--seed", type=int, default=1)
os.environ.setdefault("PYTHONWARNINGS", "ignore")
sys.exit(main(parser.parse_args()))
