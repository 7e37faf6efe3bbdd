"""All commands under their names, in the order `--help` shows them."""

from __future__ import annotations

from typing import Annotated

import typer

from backend import __version__
from backend.cli import audit, backups, generate, generations, keys, operate, tools

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reelhook {__version__}")
        raise typer.Exit


@app.callback()
def reelhook(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Generate images and videos with AI providers: nothing accepted is lost, nothing is paid twice."""


for command in (
    operate.serve,
    operate.worker,
    operate.emulator,
    operate.demo,
    operate.migrate,
    operate.doctor,
    backups.backup,
    backups.restore,
):
    app.command()(command)
app.add_typer(keys.app, name="keys")
app.add_typer(generate.app, name="generate")
app.command("list")(generations.list_)
app.command()(generations.show)
app.command()(generations.watch)
app.command()(generations.retry)
app.command()(generations.cancel)
app.command()(audit.audit)
app.command()(tools.mcp)
