"""The `workbench` command. Everything slow to import is imported inside the commands, so that `--help` is quick."""

import errno
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cache.errors import UserError
from cache.protocol import ITEMSIZE, Dtype
from workbench.cache_cli import app as cache_app
from workbench.models.organism.cli import app as organism_app
from workbench.pairs_cli import app as pairs_app

if TYPE_CHECKING:
    from analyses.patching import PatchingSpec
    from workbench.models.protocol import AudioDiffusionModel
    from workbench.study import Study, StudySpec

app = typer.Typer(
    help="Mechanistic interpretability of music diffusion models: trace, patch, probe, decompose, look and listen.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.add_typer(
    organism_app,
    name="organism",
    help="The embedded models with a planted circuit: train, synthesise, evaluate.",
)
app.add_typer(cache_app, name="cache", help="Activation caches: verify, describe, remove, merge, export.")
app.add_typer(pairs_app, name="pairs", help="Counterfactual pairs from captions: build, filter, import.")
console = Console(stderr=True)

StudyFolder = Annotated[Path, typer.Argument(metavar="STUDY", help="Study folder.")]
Device = Annotated[str, typer.Option(help="Torch device, such as cpu or cuda.")]

# The demonstration.
DEMO_MODEL = "organism-shared"
DEMO_SET = "tf3+tf4"
DEMO_SITE = "tf4.cross_attn"


@app.command()
def trace(
    model: Annotated[
        str, typer.Argument(help="organism-shared, organism-split, a pipeline folder, or a hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Study folder to make or to continue.")],
    prompts: Annotated[str, typer.Option(help="Built-in prompt set, or a YAML file.")] = "organism",
    n_prompts: Annotated[int, typer.Option(min=1, help="Different prompts.")] = 56,
    seeds: Annotated[int, typer.Option(min=1, help="Clips of each prompt, each with its own seed.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="First seed.")] = 0,
    site: Annotated[
        list[str] | None, typer.Option(help="Site to keep; '*.cross_attn' means every block's.")
    ] = None,
    steps: Annotated[
        str, typer.Option(help="Steps to keep: 0,3,7, or '8 stratified' over the sigmas, or 'all'.")
    ] = "all",
    tokens: Annotated[
        str, typer.Option(help="Tokens to keep: 'all', 'every 4', 'mean 4' (of neighbours), 'mean' (of all).")
    ] = "all",
    passes: Annotated[
        Literal["cond", "null", "cond,null"], typer.Option(help="Guidance passes to keep.")
    ] = "cond",
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds of each clip.")] = 4.0,
    num_steps: Annotated[int, typer.Option(min=1, help="Denoising steps.")] = 8,
    guidance: Annotated[float, typer.Option(min=1.0, help="Guidance scale; 1 is off.")] = 3.0,
    shift: Annotated[float, typer.Option(min=0.1, help="Shift of the sigma schedule.")] = 3.0,
    cfg_interval_start: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Guidance acts from here in 1 - sigma.")
    ] = 0.0,
    cfg_interval_end: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Guidance acts up to here.")
    ] = 1.0,
    lyrics: Annotated[str, typer.Option(help="Lyrics of every clip.")] = "",
    dtype: Annotated[
        Literal["float16", "bfloat16", "float32"], typer.Option(help="Of the cache.")
    ] = "float16",
    site_dtype: Annotated[
        list[str] | None, typer.Option(help="Another dtype for a site, such as '*.block=float32'.")
    ] = None,
    zstd: Annotated[int, typer.Option(min=0, max=22, help="Compress the cache at this level; 0 is off.")] = 0,
    store: Annotated[
        str | None,
        typer.Option(help="URL of the cache, such as s3://bucket/name.zarr, instead of the folder."),
    ] = None,
    part: Annotated[
        str, typer.Option(help="Do the k-th of n parts, such as 2/4; parts can run at once.")
    ] = "1/1",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the price and write nothing.")] = False,
    clips_per_shard: Annotated[int, typer.Option(min=1, help="Clips generated and committed together.")] = 16,
    model_dtype: Annotated[
        Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the weights.")
    ] = "float32",
    device: Device = "cpu",
) -> None:
    """Run prompts through the model; write activations to the cache and clips as FLAC. Run again to continue."""
    from workbench.capture import trace_study
    from workbench.models import load_model
    from workbench.models.protocol import GenerationSettings
    from workbench.prompts import load_prompt_set
    from workbench.selection import parse_steps, parse_tokens
    from workbench.sites import parse_sites
    from workbench.study import StudySpec

    prompt_set = load_prompt_set(prompts)
    adapter = load_model(model, device=device, dtype=model_dtype)
    settings = GenerationSettings(
        duration=duration,
        num_steps=num_steps,
        guidance_scale=guidance,
        shift=shift,
        cfg_interval_start=cfg_interval_start,
        cfg_interval_end=cfg_interval_end,
    )
    spec = StudySpec(
        model=model,
        prompts=prompt_set,
        settings=settings,
        n_prompts=n_prompts,
        seeds=seeds,
        seed=seed,
        lyrics=lyrics,
        sites=tuple(str(s) for s in parse_sites(site or ["*.cross_attn", "*.block"], adapter.n_blocks)),
        steps=parse_steps(steps, adapter.sigmas(settings)),
        passes=tuple(passes.split(",")),
        tokens=parse_tokens(tokens, adapter.tokens(duration)),
        cache_dtype=dtype,
        site_dtypes=_parse_site_dtypes(site_dtype or [], adapter.n_blocks),
        zstd_level=zstd,
        clips_per_shard=clips_per_shard,
    )
    if dry_run:
        _print_price(out, spec, adapter, store)
        return
    with _progress("Tracing clips") as report:
        trace_study(out, spec, adapter, report, store, _parse_part(part))


@app.command()
def patch(
    study_folder: StudyFolder,
    question: Annotated[
        Literal[
            "blocks",
            "steps",
            "sigmas",
            "parts",
            "heads",
            "passes",
            "conditioning",
            "seconds",
            "sets",
            "paths",
        ],
        typer.Option(help="What the map asks: which blocks, when, through what, which tokens, together …"),
    ] = "blocks",
    name: Annotated[str, typer.Option(help="Name of the map; its question by default.")] = "",
    concept: Annotated[
        list[str] | None, typer.Option(help="Concept to patch; all of the study's by default.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Counterfactual pairs of each concept.")] = 12,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each pair.")] = 1,
    direction: Annotated[
        list[str] | None,
        typer.Option(
            help="sufficiency (clean into corrupt) or necessity; both for blocks, else sufficiency."
        ),
    ] = None,
    ablation: Annotated[
        list[str] | None, typer.Option(help="Ablate every block, too: zero, mean or resample.")
    ] = None,
    null: Annotated[
        list[str] | None,
        typer.Option(help="Null arms of every block: unrelated, random or control."),
    ] = None,
    block: Annotated[list[str] | None, typer.Option(help="Block to patch; all by default.")] = None,
    blocks: Annotated[
        list[str] | None, typer.Option("--set", help="Blocks patched together, such as tf3+tf4.")
    ] = None,
    mode: Annotated[
        Literal["conditioning", "output"], typer.Option(help="The paper's, or outputs.")
    ] = "conditioning",
    part: Annotated[str, typer.Option(help="Part of the block to patch.")] = "cross_attn",
    windows: Annotated[int, typer.Option(min=1, help="Windows of steps, noise levels or seconds.")] = 8,
    segment: Annotated[
        list[str] | None, typer.Option(help="Conditioning tokens: text, swapped, word:violin …")
    ] = None,
    receiver: Annotated[list[str] | None, typer.Option(help="Part that paths lead to.")] = None,
    greedy_share: Annotated[
        float, typer.Option(min=0, max=1, help="Find the smallest set that brings back this share (sets).")
    ] = 0.0,
    screen: Annotated[
        Literal["velocity", "attribution"] | None,
        typer.Option(help="Screen all cells cheaply, and run the top ones and a random sample."),
    ] = None,
    screen_pairs: Annotated[int, typer.Option(min=1, help="Pairs to screen with.")] = 4,
    top: Annotated[int, typer.Option(min=1, help="Top cells of the screening to run.")] = 8,
    sample: Annotated[int, typer.Option(min=2, help="Other cells to run, drawn at random.")] = 8,
    stop_top: Annotated[
        int, typer.Option(min=0, help="Stop when this many top cells lie above all others; 0: never.")
    ] = 0,
    min_pairs: Annotated[int, typer.Option(min=2, help="Pairs before it may stop.")] = 6,
    pairs_file: Annotated[
        Path | None, typer.Option(help="CSV file of pairs (see `workbench pairs`) instead of the study's.")
    ] = None,
    arms: Annotated[
        Path | None, typer.Option(help="JSON file of arms to run instead of a question's.")
    ] = None,
    scorer: Annotated[list[str] | None, typer.Option(help="embedded, clap or clap-laion.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Draws the pairs.")] = 0,
    device: Device = "cpu",
) -> None:
    """Patch every counterfactual pair under every arm of a question; give the map of impacts.

    Runs that the study holds already are not run again, so that a sweep continues where it was cut off.
    """
    from analyses.arms import arms_from_file
    from analyses.patching import run_patching

    study = _open(study_folder)
    custom = "" if arms is None else json.dumps([arm.to_json() for arm in arms_from_file(_read(arms))])
    screening = {"method": screen, "pairs": screen_pairs, "top": top, "sample": sample} if screen else None
    spec = _patching_spec(
        question="custom" if custom else question,
        name=name,
        concepts=concept or (),
        pairs=pairs,
        seeds=seeds,
        directions=direction or _directions(question, screen is not None),
        ablations=ablation or (),
        nulls=null or (),
        blocks=[_parse_block(text) for text in block or ()],
        sets=[_parse_blocks(text) for text in blocks or ()],
        mode=mode,
        part=part,
        windows=windows,
        segments=segment or (),
        receivers=receiver or (),
        greedy_share=greedy_share,
        screening=screening,
        stop_top=stop_top,
        min_pairs=min_pairs,
        pairs_file="" if pairs_file is None else str(pairs_file),
        custom_arms=custom,
        scorers=scorer or ("embedded",),
        seed=seed,
    )
    if study.is_done(spec.result_name, spec):
        console.print(f"The map {spec.result_name} is done already.")
        return
    adapter = _study_model(study, device)
    with _progress("Patching pairs") as report:
        result = run_patching(study, adapter, spec, report)
    if result.attrs["stopped"]:
        console.print(result.attrs["stopped"])


@app.command()
def probe(
    study_folder: StudyFolder,
    concept: Annotated[list[str] | None, typer.Option(help="Concept to probe; all by default.")] = None,
    site: Annotated[list[str] | None, typer.Option(help="Site to probe; all cached ones by default.")] = None,
    folds: Annotated[int, typer.Option(min=2, help="Cross-validation folds.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Draws folds and control labels.")] = 0,
) -> None:
    """Linear probes of each concept at each site and step, against shuffled labels."""
    from analyses.probes import ProbeSpec, run_probes

    study = _open(study_folder)
    spec = ProbeSpec(concepts=tuple(concept or ()), sites=tuple(site or ()), folds=folds, seed=seed)
    if study.is_done("probes", spec):
        console.print("Probing is done already.")
        return
    with _progress("Probing sites") as report:
        run_probes(study, spec, report)


@app.command()
def sae(
    study_folder: StudyFolder,
    site: Annotated[str, typer.Option(help="Cached site to decompose.")],
    expansion: Annotated[int, typer.Option(min=1, help="Features per channel of the site.")] = 4,
    k: Annotated[int, typer.Option(min=1, help="Active features per token.")] = 8,
    train_steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Initialisation and data order.")] = 0,
) -> None:
    """Train a TopK sparse autoencoder on a site's cached activations and describe its features."""
    from analyses.sae import TrainSpec, run_sae

    study = _open(study_folder)
    spec = TrainSpec(site=site, expansion=expansion, k=k, train_steps=train_steps, seed=seed)
    if study.is_done(f"sae-{site}", spec):
        console.print("The autoencoder is trained already.")
        return
    with _progress("Training the autoencoder") as report:
        run_sae(study, spec, progress=report)


@app.command()
def dashboard(
    study_folder: StudyFolder,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8050,
    compare: Annotated[
        Path | None, typer.Option(help="Another study, whose patching maps stand beside this one's.")
    ] = None,
    published: Annotated[
        Path | None, typer.Option(help="Table (CSV) of published block impacts to compare with.")
    ] = None,
) -> None:
    """Browse a study: patching maps, probes, features, audio."""
    from dashboards.app import serve
    from dashboards.others import Others

    _open(study_folder)
    serve(study_folder, host, port, Others(compare, published))


@app.command()
def export(
    study_folder: StudyFolder,
    figure: Annotated[str, typer.Option(help="Figure to export: patching, probes, …")],
    fmt: Annotated[Literal["pdf", "svg", "png"], typer.Option("--format", help="File format.")] = "pdf",
    option: Annotated[
        list[str] | None, typer.Option(help="What the figure shows, such as site=tf4.cross_attn.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; STUDY/figures by default.")] = None,
) -> None:
    """Write a figure for a paper, with its numbers (CSV), provenance (JSON), LaTeX table and caption."""
    from dashboards.export import export_figure

    options = dict(_parse_option(text) for text in option or ())
    for file in export_figure(_open(study_folder), figure, fmt, out, **options):
        typer.echo(file)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Study folder.")] = Path("studies/demo"),
    serve: Annotated[bool, typer.Option(help="Open the dashboard when the study is finished.")] = True,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the dashboard.")] = 8050,
) -> None:
    """The main job on the embedded model: trace, patch, probe, decompose, and open the dashboard."""
    marker = out / "demo-finished"
    if not marker.exists():
        console.rule(f"Demonstration study of {DEMO_MODEL} in {out}")
        trace(DEMO_MODEL, out)
        patch(out, blocks=[DEMO_SET], null=["unrelated"])
        probe(out)
        sae(out, DEMO_SITE)
        for figure in ("patching", "probes"):
            export(out, figure, "pdf")
        marker.touch()
    if serve:
        dashboard(out, port=port)


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


def main() -> None:
    """Entry point: a mistake of the user's gets one sentence and exit code 2, without a traceback."""
    try:
        app()
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        _fail(
            f"{error.filename or 'The study'} cannot be written ({os.strerror(error.errno)}): "
            "make room or mend the disk, and run the command again."
        )


def _fail(sentence: str) -> None:
    console.print(f"[bold red]Error:[/] {sentence}", highlight=False, soft_wrap=True)
    sys.exit(2)


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that says what runs, how far it is and how long it still takes; give it (done, total)."""
    columns = (TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=console) as bars:
        bar = bars.add_task(title, total=None, visible=False)
        yield lambda done, total: bars.update(bar, completed=done, total=total, visible=True)


def _open(folder: Path) -> "Study":
    from workbench.study import Study

    return Study.open(folder)


def _study_model(study: "Study", device: str) -> "AudioDiffusionModel":
    """The study's model; refuses other weights than the study was made with."""
    from workbench.models import load_model

    adapter = load_model(study.spec.model, device=device, dtype=study.model["dtype"])
    if adapter.weights_hash != study.model["weights_hash"]:
        raise UserError(
            f"The weights of {study.spec.model} have changed since {study.path} was traced: "
            "trace it anew into another folder."
        )
    return adapter


def _print_price(out: Path, spec: "StudySpec", model: "AudioDiffusionModel", store: str | None) -> None:
    """What the trace will cost, as a table; raises UserError when there is no room."""
    from cache.storage import open_storage
    from workbench.capture import cache_plan, study_capture
    from workbench.pricing import check_price, price
    from workbench.pricing_table import price_table

    study_capture(spec, model)
    plan = cache_plan(spec, model)
    storage = open_storage(store or out / "activations.zarr")
    Console().print(price_table(price(spec, plan, model, storage)))
    check_price(plan, storage)


def _parse_site_dtypes(texts: list[str], n_blocks: int) -> dict[str, Dtype]:
    from workbench.sites import parse_sites

    dtypes: dict[str, Dtype] = {}
    for text in texts:
        name, _, dtype = text.partition("=")
        if dtype not in ITEMSIZE:
            raise UserError(f"'{text}' is not a site's dtype: write it like '*.block=float32'.")
        dtypes.update({str(site): cast(Dtype, dtype) for site in parse_sites([name], n_blocks)})
    return dtypes


def _parse_part(text: str) -> tuple[int, int]:
    number, slash, parts = text.partition("/")
    if not (number.isdigit() and slash and parts.isdigit()):
        raise UserError(f"'{text}' is not a part: write it like 2/4.")
    return int(number), int(parts)


def _parse_option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name.isidentifier() and equals and value):
        raise UserError(
            f"'{text}' is not an option of a figure: write name=value, such as site=tf4.cross_attn."
        )
    return name, value


def _directions(question: str, screened: bool) -> tuple[str, ...]:
    both = question == "blocks" and not screened
    return ("sufficiency", "necessity") if both else ("sufficiency",)


def _patching_spec(**values: Any) -> "PatchingSpec":
    """The spec of these options; raises UserError naming the one that is wrong."""
    from pydantic import ValidationError

    from analyses.patching import PatchingSpec

    try:
        return PatchingSpec.model_validate(values)
    except ValidationError as error:
        problem = error.errors()[0]
        option = ".".join(str(part) for part in problem["loc"])
        raise UserError(f"The option {option} of a map is wrong: {problem['msg'].lower()}.") from error


def _read(file: Path) -> str:
    if not file.is_file():
        raise UserError(f"There is no file {file}.")
    return file.read_text(encoding="utf-8")


def _parse_block(text: str) -> int:
    if not (text.startswith("tf") and text[2:].isdigit()):
        raise UserError(f"'{text}' is not a block: write it like tf3.")
    return int(text[2:])


def _parse_blocks(text: str) -> tuple[int, ...]:
    names = text.split("+")
    if not all(name.startswith("tf") and name[2:].isdigit() for name in names):
        raise UserError(f"'{text}' is not a set of blocks: write it like tf3+tf4.")
    return tuple(int(name[2:]) for name in names)
