"""`reelhook serve|worker|emulator|demo|migrate|doctor`: what an operator runs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from backend.cli.options import DEFAULT_URL, Json, listening
from backend.cli.output import print_json, print_table, say

Host = Annotated[str, typer.Option(help="The address to listen on.", callback=listening)]


def serve(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    no_worker: Annotated[bool, typer.Option("--no-worker", help="Leave the work to `reelhook worker`.")] = False,
    dev: Annotated[bool, typer.Option("--dev", help="No API key needed; only on this machine.")] = False,
    tunnel: Annotated[Literal["ngrok"] | None, typer.Option(help="Open a public address for webhooks.")] = None,
) -> None:
    """Run the service: the API, the webhooks and the worker."""
    _never_wait_for_readers()
    from backend import app
    from backend.config.loading import load

    changes: dict[str, object] = {"auth_mode": "dev"} if dev else {}
    if tunnel:
        from backend.cli.tunnel import open_ngrok

        changes["ngrok_url"] = open_ngrok(port)
        say(f"public address: {changes['ngrok_url']}")
    settings = load().model_copy(update=changes)
    run(lambda: app.serve(settings, host, port, with_worker=not no_worker))


def worker(
    kind: Annotated[Literal["image", "video", "all"], typer.Option(help="What it works on.")] = "all",
) -> None:
    """Run a worker of its own, next to `serve --no-worker`."""
    _never_wait_for_readers()
    from backend import app
    from backend.config.loading import load

    settings = load()
    run(lambda: app.work(settings, ("image", "video") if kind == "all" else (kind,)))


def emulator(
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8900,
    faults: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A TOML or JSON file of things to do wrong."),
    ] = None,
) -> None:
    """Run the providers locally: their API, with real images and videos and no bill."""
    _never_wait_for_readers()
    from backend import emulator

    emulator.serve(host, port, faults=faults)


def demo(
    open: Annotated[bool, typer.Option("--open", help="Open the folder of results at the end.")] = False,
) -> None:
    """Make an image and two videos with the local emulator, over real HTTP, in ./demo/."""
    from backend.cli.demo import run

    if not run(Path("demo"), open_folder=open):
        raise typer.Exit(1)


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether something would be done; then exit 1.")
    ] = False,
) -> None:
    """Bring the database to the current schema, or make it."""
    from backend.config.loading import load
    from backend.db.file import bring
    from backend.db.sqlite import sqlite_path

    path = sqlite_path(load().database_url)
    report = bring(path, check=check)
    if report.backup:
        say(f"the old database was copied to {report.backup}")
    if not report.ran:
        typer.echo(f"{path} is at the current schema ({report.after})")
    elif check:
        typer.echo(f"{path} is at {report.before} of {report.after}; would run {', '.join(report.ran)}")
        raise typer.Exit(1)
    else:
        typer.echo(f"{path} went from {report.before} to {report.after} by {', '.join(report.ran)}")


Running = Annotated[str, typer.Option("--url", envvar="REELHOOK_URL", help="Where the service runs, if it does.")]


def doctor(json: Json = False, url: Running = DEFAULT_URL) -> None:
    """Check and explain every setting; exit status 1 when something would fail."""
    from backend.cli import doctor as checks

    found = checks.examine(url)
    if json:
        print_json({"ok": checks.passes(found), "checks": [each.as_dict() for each in found]})
    else:
        rows = [(check.name, check.value, check.state.value, check.advice) for check in found]
        print_table(("setting", "value", "state", "meaning, or what to do"), rows)
    checks.leave(0 if checks.passes(found) else 1)


def _never_wait_for_readers() -> None:
    """Whatever this process prints from now on, a pipe that nobody reads does not stop it."""
    from backend.logs import output

    output.take_over()


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a server on uvloop until it is told to stop; its logs go to standard error as JSON."""
    import uvloop

    from backend import logs

    logs.configure()
    with suppress(KeyboardInterrupt):
        uvloop.run(main())
