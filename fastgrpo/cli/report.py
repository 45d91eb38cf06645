"""`fastgrpo report` and `fastgrpo compare`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fastgrpo.errors import InputError


def report(
    runs: Annotated[list[str], typer.Argument(help="Run directories, or those of experiments.", metavar="RUN [RUN ...]")],
    out: Annotated[Path | None, typer.Option(help="The file to write; report.html in the first RUN by default.")] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Show it live at http://localhost instead. Ctrl-C ends it.")] = False,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Of --serve; 0 takes any free one.")] = None,
) -> None:
    """Make one HTML page of runs: curves, where time went, memory, settings, rollouts to search. It needs no network."""
    if serve:
        if out is not None:
            raise InputError("--out goes without --serve: a server writes no file")
        _serve(runs, port)
        return
    if port is not None:
        raise InputError("--port goes with --serve alone")
    from fastgrpo.report.page import write_report

    path, held = write_report(runs, out)
    print(f"{path}: {held}")


def _serve(runs: list[str], port: int | None) -> None:
    from fastgrpo.report.server import PORT, make_server

    with make_server(runs, PORT if port is None else port) as server:
        print(f"http://localhost:{server.server_address[1]} shows {', '.join(runs)}; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def compare(
    first: Annotated[str, typer.Argument(help="A run directory.", metavar="RUN_A")],
    second: Annotated[str, typer.Argument(help="Another.", metavar="RUN_B")],
    as_json: Annotated[bool, typer.Option("--json", help="Print settings and numbers as JSON.")] = False,
) -> None:
    """Say where two runs differ: in their settings, and in what came of them."""
    from fastgrpo.report.compare import compare_runs, tables

    found = compare_runs(first, second)
    if as_json:
        print(json.dumps(found))
        return
    from rich.console import Console

    console = Console()
    for table in tables(found):
        console.print(table)
