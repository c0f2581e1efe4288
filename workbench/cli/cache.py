"""Commands for activation caches."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

from cache.errors import UserError
from cache.formats import ExportDtype, Format
from cache.opening import checked_folder
from workbench.cli.console import AllowStore, console, open_study, output
from workbench.cli.parsing import CommandLine
from workbench.system_errors import refusal

if TYPE_CHECKING:
    from cache.maintenance import CacheInfo

app = CommandLine(help="Verify, repair, describe, remove, merge and export activation caches.")

Store = Annotated[
    str,
    typer.Argument(metavar="STORE", help="Folder or URL (s3://bucket/x.zarr) of a cache, or a study folder."),
]

_HASH_DIGITS = 12


@app.command()
def verify(
    store: Store,
    allow_store: AllowStore = False,
    repair: Annotated[
        bool, typer.Option("--repair", help="Remove damaged shards, so that they can be captured again.")
    ] = False,
) -> None:
    """Read every shard and compare it with its checksum; exit code 1 for damage that was not repaired."""
    from cache import maintenance

    location = _location(store, allow_store)
    with _explained(), _bar("Verifying") as progress:
        damage = (maintenance.repair if repair else maintenance.verify)(location, progress)
    for found in damage:
        typer.echo(found)
    if not damage:
        typer.echo(f"{location} is intact.")
    elif repair:
        _say_what_is_missing(location)
    else:
        typer.echo(
            f"{location} is damaged. Run `workbench cache verify --repair` on it to remove the damaged parts."
        )
        raise typer.Exit(1)


@app.command()
def info(
    store: Store,
    allow_store: AllowStore = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Describe a cache: contents, size, completeness and rounding error."""
    import json
    from dataclasses import asdict

    from cache.maintenance import describe

    with _explained():
        described = describe(_location(store, allow_store))
    if as_json:
        typer.echo(json.dumps(asdict(described), indent=2))
        return
    for table in _info_tables(described):
        output.print(table)


@app.command("ls")
def list_caches(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="Folder or URL in which to look.")],
) -> None:
    """List the caches in a folder and its subfolders."""
    from cache.maintenance import find

    with _explained():
        caches = find(folder)
    if not caches:
        typer.echo(f"There is no cache in {folder}.")
        return
    for found in caches:
        shards, plan, sites = "unreadable", "", ""
        if found.info is not None:
            shards = f"{found.info.committed}/{found.info.shards} shards"
            plan, sites = found.info.plan_hash[:_HASH_DIGITS], f"{len(found.info.sites)} sites"
        typer.echo(
            f"{decimal(found.bytes):>10}  {shards:>16}  {plan:{_HASH_DIGITS}}  {sites:>9}  {found.location}"
        )
    for found in caches:
        if found.problem:
            typer.echo(found.problem, err=True)


@app.command()
def rm(
    store: Store,
    allow_store: AllowStore = False,
    shard: Annotated[
        list[int] | None, typer.Option(help="Remove only this shard, to be captured again. Repeatable.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation prompt.")] = False,
) -> None:
    """Remove a cache, or single shards of it."""
    from cache import maintenance

    location = _location(store, allow_store)
    with _explained():
        if shard:
            what = f"shards {', '.join(map(str, shard))} of {location}"
        else:
            what = f"{location} ({decimal(maintenance.removable_bytes(location))})"
        if not yes:
            typer.confirm(f"Remove {what}?", abort=True)
        if shard:
            maintenance.remove_shards(location, shard)
        else:
            maintenance.remove(location)
    typer.echo(f"Removed {what}.")


@app.command()
def merge(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE...", help="Caches with the same plan: folders, URLs or studies."),
    ],
    out: Annotated[str, typer.Option(help="Cache to create or continue: folder, URL or study.")],
    allow_store: AllowStore = False,
) -> None:
    """Copy the shards of caches with the same plan into one cache. Run again to continue."""
    from cache.maintenance import describe
    from cache.merge import merge as merge_caches

    target = _location(out, allow_store)
    with _explained(), _bar("Merging") as progress:
        merge_caches([_location(source, allow_store) for source in sources], target, progress)
        merged = describe(target)
    typer.echo(f"{target} has {merged.committed} of {merged.shards} shards.")


@app.command()
def export(
    store: Store,
    out: Annotated[Path, typer.Option(help="Folder to create.")],
    allow_store: AllowStore = False,
    form: Annotated[
        Format,
        typer.Option("--format", help="safetensors: labelled rows. npy: one array per site."),
    ] = "safetensors",
    site: Annotated[
        list[str] | None, typer.Option(help="Site to export; all sites by default. Repeatable.")
    ] = None,
    dtype: Annotated[
        ExportDtype,
        typer.Option(help="Number format; npy has no bfloat16, so it becomes float32."),
    ] = "stored",
) -> None:
    """Export activations for other programs, such as SAELens."""
    from cache.export import export as export_cache

    with _explained(), _bar("Exporting") as progress:
        export_cache(_location(store, allow_store), out, form, site, dtype, progress)
    typer.echo(out)


def _location(text: str, allow_store: bool = False) -> Path | str:
    """Return the location of a cache: a URL, a folder, or the cache of a study."""
    if "://" in text:
        return text
    if (Path(text) / "study.json").is_file():
        return open_study(Path(text), allow_store).cache_location
    path = Path(text)
    if (path.parent / "study.json").is_file() and path.name not in ("", ".."):
        return checked_folder(path.parent, path.name)  # an untrusted study may have a link there
    return path


def _say_what_is_missing(location: Path | str) -> None:
    from cache.maintenance import describe
    from cache.protocol import CLIPS
    from cache.storage import open_storage

    repaired = describe(location)
    complete = f"{repaired.committed} of {repaired.shards} shards are intact"
    if repaired.committed == repaired.shards and open_storage(location).size(CLIPS) is not None:
        typer.echo(f"Repaired: {complete}; nothing needs to be captured again.")
    else:
        typer.echo(
            f"Repaired: {complete}. Run `workbench trace` again with the same options to write the missing shards."
        )


def _info_tables(described: "CacheInfo") -> Iterator[Table]:
    """Yield tables of the cache, its steps and its sites."""
    reduction = described.token_reduction
    reduced = "" if reduction["kind"] == "none" else f", {reduction['kind']} of {reduction['size']}"
    compression = f"zstd level {described.zstd_level}" if described.zstd_level else "none"
    facts = Table("", Column("", overflow="fold"), box=None, show_header=False)
    for name, value in {
        "cache": described.location,
        "protocol version": described.version,
        "plan": described.plan_hash,
        "size": decimal(described.bytes),
        "shards": f"{described.committed} of {described.shards}, {described.clips_per_shard} clips each",
        "clips": described.n_clips,
        "passes": ", ".join(described.passes),
        "tokens": f"{described.tokens}, one every {described.token_seconds:.3g} s{reduced}",
        "compression": compression,
        "steps (sigma)": ", ".join(
            f"{step} ({sigma:.3g})" for step, sigma in zip(described.steps, described.sigmas, strict=True)
        ),
    }.items():
        facts.add_row(name, str(value))
    yield facts
    names = ("site", "channels", "format", "size", "of planned", "largest", "max error", "rms error")
    headers = [name for name in names if described.zstd_level or name != "of planned"]
    sites = Table(*(Column(name, no_wrap=True) for name in headers), box=None)
    for name, site in described.sites.items():
        ratio = (
            [f"{site.bytes / site.planned_bytes:.0%}" if site.bytes else "–"] if described.zstd_level else []
        )
        statistics = (site.largest, site.max_error, site.rms_error)
        cells = ["–" if value is None else f"{value:.3g}" for value in statistics]
        sites.add_row(name, str(site.channels), site.dtype, decimal(site.bytes), *ratio, *cells)
    yield sites


@contextmanager
def _bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar of bytes; call the yielded function with (done, total)."""
    columns = (TextColumn("{task.description:<12}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bars:
        bar = bars.add_task(title, total=None, visible=False)
        yield lambda done, total: bars.update(bar, completed=done, total=total, visible=True)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of the operating system into one sentence."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        where = f"{error.filename}: " if error.filename else ""
        raise UserError(refusal(error) or f"{where}{reason}. Fix this and run the command again.") from error
