"""`reelhook backup|restore`: everything the service keeps, copied aside and put back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from backend.cli.options import Json
from backend.cli.output import plain, print_json, say, size

if TYPE_CHECKING:
    from backend.backup.restoring import Restored
    from backend.core.people import ApiKey

NAMES_SHOWN = 5


def backup(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder that does not exist yet.")],
    no_media: Annotated[bool, typer.Option("--no-media", help="Leave out the stored files.")] = False,
    json: Json = False,
) -> None:
    """Copy the database, the data key and the stored files into a new folder; the service may run."""
    from backend.backup import taking
    from backend.config.loading import load

    made = taking.take(load(), path, media=not no_media)
    _complain("the service does not have these files whole, and neither has the backup", made.lost)
    _complain("deleted while the backup was made", made.deleted_meanwhile)
    if json:
        print_json({"path": str(path), **made.model_dump(mode="json")})
    else:
        typer.echo(f"{path} has {made.counts['generations']} generations and {_files(made.files, made.bytes)}")


def restore(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="What `reelhook backup` made.")],
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Send what was waiting: only when nothing ran after the backup was made."),
    ] = False,
    without_damaged: Annotated[
        bool,
        typer.Option("--without-damaged", help="Leave out stored files that are damaged in the backup."),
    ] = False,
    json: Json = False,
) -> None:
    """Put a backup back where there is no database; what may have been sent since is looked for, not sent again."""
    from backend.backup import restoring
    from backend.config.loading import load

    done = restoring.restore(load(), path, resume=resume, without_damaged=without_damaged)
    admins = [_admin(key) for key in done.admins]
    _warn(done, admins)
    if json:
        same = ("held", "files", "bytes", "left_out", "schema_version")
        counted: dict[str, Any] = {name: getattr(done, name) for name in same}
        counted["created_at"] = done.manifest.created_at.isoformat()
        print_json({"path": str(path), **counted, "admin_keys": admins})
    else:
        typer.echo(f"restored {done.generations} generations and {_files(done.files, done.bytes)}")


def _warn(done: Restored, admins: list[dict[str, str | None]]) -> None:
    """Tell a person what to know or do after a restore."""
    _complain("left out, because they are damaged in the backup", done.left_out)
    if not done.manifest.media:
        say("the backup has no stored files: put back your own copy of them")
    if done.held:
        say(
            f"{done.held} unfinished requests may have been sent after the backup was made: the service will look for "
            "them at the provider, and what it does not find will fail as submit_unknown"
        )
    for each in admins:
        told = "admin key {id} ({name}, {prefix}..., of {created_at}): revoke it if it is not yours"
        say(plain(told.format(**each)))  # on one line: somebody else may have named it
    say("a backup must be trusted: its keys, its secrets and the addresses that are told come with it")


def _admin(key: ApiKey) -> dict[str, str | None]:
    from backend.core.formats import time

    return {"id": key.id, "name": key.name, "prefix": f"sk_{key.prefix}", "created_at": time(key.created_at)}


def _files(count: int, total: int) -> str:
    return f"{count} files ({size(total)})" if count else "no files"


def _complain(what: str, names: list[str]) -> None:
    if names:
        more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
        say(f"{what}: {', '.join(names[:NAMES_SHOWN])}{more}")
