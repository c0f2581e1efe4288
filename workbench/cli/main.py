"""The `workbench` command. Slow modules are imported inside the commands, so that `--help` is quick."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.text import Text

from analyses.probes.spec import ProbeSpec
from cache.errors import UserError
from cache.opening import create_file, file_size
from cache.protocol import ITEMSIZE, Dtype
from cache.wording import printable
from dashboards.address import LOCAL
from dashboards.formats import DEFAULT_FORMAT, ExportFormat
from workbench.cli.autoencoders import app as sae_app
from workbench.cli.autoencoders import train as train_sae
from workbench.cli.cache import app as cache_app
from workbench.cli.console import (
    AllowStore,
    Device,
    StudyFolder,
    command_line,
    console,
    note,
    open_study,
    output,
    progress,
)
from workbench.cli.generate import generate
from workbench.cli.imports import app as import_app
from workbench.cli.lab import lab
from workbench.cli.listen import app as listen_app
from workbench.cli.model_options import ModelDtype
from workbench.cli.options import offers
from workbench.cli.pairs import app as pairs_app
from workbench.cli.parsing import CommandLine, Commands, parse_job
from workbench.cli.patch import patch
from workbench.cli.reports import report_probes, report_trace
from workbench.cli.steer import app as steer_app
from workbench.engine.settings import GenerationSettings
from workbench.prompts.defaults import PROMPT_SET
from workbench.studies.request import StudyRequest
from workbench.system_errors import refusal

if TYPE_CHECKING:
    from workbench.models.base import AudioDiffusionModel
    from workbench.studies.study import Study, StudySpec


app = CommandLine(
    cls=Commands,
    help="Mechanistic interpretability of music diffusion models: trace, patch, probe, decompose, view and listen.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.add_typer(cache_app, name="cache", help="Verify, describe, remove, merge and export activation caches.")
app.add_typer(
    import_app,
    name="import",
    help="Import published artefacts: vectors, autoencoders, score tables, localisation.",
)
app.add_typer(listen_app, name="listen", help="Make, serve and analyse listening studies.")
app.add_typer(pairs_app, name="pairs", help="Build, filter and import counterfactual pairs of captions.")
app.add_typer(sae_app, name="sae", help="Train, list, import and export sparse autoencoders.")
app.add_typer(steer_app, name="steer", help="Show, list, import and export steering vectors.")

# The demonstration.
DEMO_MODEL = "organism-shared"
DEMO_SET = "tf3+tf4"
DEMO_SCORERS = ["embedded", "musicnn"]
DEMO_SITE = "tf4.cross_attn"
DEMO_MARKER = "demo-finished"


@app.command()
@offers(StudyRequest, cache_dtype="--dtype", zstd_level="--zstd")
@offers(GenerationSettings, guidance_scale="--guidance")
def trace(
    model: Annotated[
        str, typer.Argument(help="organism-shared, organism-split, a pipeline folder, or a hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Study folder to create, continue or extend.")],
    prompts: Annotated[str, typer.Option(help="Built-in prompt set, or a YAML file.")] = PROMPT_SET,
    option: Annotated[
        list[str] | None,
        typer.Option(help="Option of the model, such as shift=3 (see the model reference). Repeatable."),
    ] = None,
    site_dtype: Annotated[
        list[str] | None,
        typer.Option(help="Storage dtype of one site, such as '*.block=float32'. Repeatable."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(help="URL for the cache, such as s3://bucket/name.zarr, instead of the study folder."),
    ] = None,
    job: Annotated[
        str, typer.Option(help="Run job k of n (such as 2/4) of the trace; jobs can run in parallel.")
    ] = "1/1",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the cost estimate without writing anything.")
    ] = False,
    model_dtype: ModelDtype = "float32",
    device: Device = "cpu",
    **asked: Any,
) -> None:
    """Generate clips, recording activations in a cache and audio as FLAC. Run again to continue."""
    from workbench.models import load_model
    from workbench.prompts.prompt_sets import load_prompt_set
    from workbench.studies.planning import plan_study, words_unknown
    from workbench.studies.selection import parse_options
    from workbench.studies.tracing import trace_study

    prompt_set = load_prompt_set(prompts)
    adapter = load_model(model, device=device, dtype=model_dtype)
    settings = {name: asked.pop(name) for name in GenerationSettings.model_fields if name in asked}
    spec = plan_study(
        adapter,
        prompt_set,
        settings={**settings, "options": parse_options(option or [])},
        site_dtypes=_parse_site_dtypes(site_dtype or []),
        **asked,
    )
    if dry_run:
        _print_price(out, spec, adapter, store, parse_job(job))
        return
    if sentence := words_unknown(adapter, spec):
        note(sentence)
    with progress("Tracing clips") as report:
        study = trace_study(out, spec, adapter, report, store, parse_job(job), note)
    report_trace(study)


app.command()(patch)
app.command()(generate)
app.command()(lab)


@app.command()
@offers(ProbeSpec)
def probe(study_folder: StudyFolder, allow_store: AllowStore = False, **asked: Any) -> None:
    """Train linear probes for each concept at each site and step, with shuffled labels as controls."""
    from analyses.probes.run import asked_probes, run_probes
    from dashboards.results import is_usable

    study = open_study(study_folder, allow_store)
    spec = asked_probes(study, **asked)
    if study.is_done("probes", spec) and is_usable(study, "probes"):
        console.print("Probing is done already.")
    else:
        with progress("Probing sites") as report:
            run_probes(study, spec, report, note)
    report_probes(study)


@app.command()
def dashboard(
    study_folder: Annotated[
        Path, typer.Argument(metavar="STUDY", help="Study folder, or a folder of studies.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = LOCAL.host,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = LOCAL.port,
    url_prefix: Annotated[
        str,
        typer.Option(
            help="Path prefix under which a proxy serves the dashboard, such as /user/me/proxy/8050/."
        ),
    ] = "",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Additional host name under which a proxy is reached. Repeatable."),
    ] = None,
    allow_frames: Annotated[
        bool, typer.Option(help="Allow pages of the same origin, such as JupyterLab, to embed the dashboard.")
    ] = False,
    compare: Annotated[
        Path | None, typer.Option(help="Another study whose patching maps to compare with.")
    ] = None,
    published: Annotated[
        Path | None, typer.Option(help="Table (CSV) of published block impacts to compare with.")
    ] = None,
    sae: Annotated[
        str,
        typer.Option(
            help="Autoencoder to import into the study, as `workbench sae import` does, unless it has it: a folder, or "
            "a hub id (owner/name). The dashboard's address is that of its features."
        ),
    ] = "",
    site: Annotated[
        str, typer.Option(help="Site of --sae, if neither its settings nor its folder's name include it.")
    ] = "",
    device: Device = "cpu",
    allow_store: AllowStore = False,
) -> None:
    """Browse a study, or a folder of studies: patching maps, probes, features, audio; make clips in the lab."""
    from dashboards.address import Address
    from dashboards.app import run, serve
    from dashboards.jobs import Jobs
    from dashboards.studies_app import StudiesDashboard
    from dashboards.studies_folder import is_folder_of_studies

    again = f"Restart it with “{command_line()}”."
    address = Address(host, port, tuple(allow_host or ()), url_prefix, allow_frames, again)
    if site and not sae:
        raise UserError("--site is that of an autoencoder: give its folder with --sae.")
    with closing(Jobs(device)) as jobs:
        if is_folder_of_studies(study_folder):
            if compare is not None or allow_store or sae:
                raise UserError(
                    f"{study_folder} is a folder of studies: --compare, --sae and --allow-store need one study's "
                    "folder. Studies of one folder can be compared with each other without --compare."
                )
            application = StudiesDashboard(study_folder, address, published=published, jobs=jobs)
            run(application, study_folder, address)
            return
        study = open_study(study_folder, allow_store)
        page = _features_page(study, sae, site, device) if sae else "/"
        serve(study_folder, address, compare=compare, published=published, jobs=jobs, page=page)


def _features_page(study: "Study", source: str, site: str, device: str) -> str:
    """Import an autoencoder into a study, unless it has it, and return the address of its features."""
    from analyses.sae.published import import_sae, imported_name
    from dashboards.links import write_query
    from workbench.artefacts.sae_folder import read_sae

    published = read_sae(source, site)
    name = imported_name(study, published)
    if name:
        note(f"{study.path} has this autoencoder already, as {name}.")
    else:
        note(f"Importing {source}, and encoding the study's clips with it ...")
        name = import_sae(study, published, device).attrs["name"]
        note(f"Imported as {name}.")
    return "/features" + write_query({"sae": name})


@app.command()
def export(
    study_folder: StudyFolder,
    figure: Annotated[
        str, typer.Option(help="Figure to export: patching, probes, …; all of them in a page (html).")
    ] = "",
    fmt: Annotated[
        ExportFormat,
        typer.Option("--format", help="File format; html is one page with the figure's recordings, to send."),
    ] = DEFAULT_FORMAT,
    option: Annotated[
        list[str] | None, typer.Option(help="Figure option, such as site=tf4.cross_attn. Repeatable.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; STUDY/figures by default.")] = None,
    allow_store: AllowStore = False,
) -> None:
    """Write a figure for a paper, with its numbers (CSV), provenance (JSON), LaTeX table and caption."""
    from dashboards.export import export_figure
    from dashboards.figures import make_spec

    study = open_study(study_folder, allow_store)
    options: dict[str, Any] = _parse_options(option or [])
    if not figure and (fmt != "html" or options):
        raise UserError(
            "Name the figure (--figure); only a page of the whole study (--format html) has none."
        )
    if fmt == "html":
        from dashboards.standalone import export_page

        if figure:
            make_spec(study, figure, options)
        typer.echo(export_page(study, figure, out, warn=note, **options))
        return
    make_spec(study, figure, options)  # first, so that no option is taken for another parameter of the export
    for file in export_figure(study, figure, fmt, out, warn=note, **options):
        typer.echo(file)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", help="Study folder.")] = Path("studies/demo"),
    serve: Annotated[bool, typer.Option(help="Open the dashboard when the study is finished.")] = True,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the dashboard.")] = LOCAL.port,
) -> None:
    """Run the whole workflow on the embedded model: trace, patch, probe, decompose, and open the dashboard."""
    if not out.is_dir() or file_size(out, DEMO_MARKER) is None:
        console.rule(f"Demonstration study of {DEMO_MODEL} in {out}")
        trace(DEMO_MODEL, out)
        patch(out, sets=[DEMO_SET], nulls=["unrelated"], scorers=DEMO_SCORERS)
        probe(out)
        train_sae(out, site=[DEMO_SITE], k=[16], input_scale="step")
        for figure in ("patching", "probes"):
            export(out, figure)
        create_file(out, DEMO_MARKER).close()
    if serve:
        dashboard(out, port=port)


def main() -> None:
    """Entry point of `workbench`."""
    run(app)


def run(commands: typer.Typer) -> None:
    """Run the command that the arguments name; for a user's mistake, print one sentence and exit with code 2."""
    try:
        commands()
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        sentence = refusal(error)
        if sentence is None:
            raise
        _fail(sentence)


def _fail(sentence: str) -> None:
    console.print(Text.assemble(("Error:", "bold red"), f" {printable(sentence)}"), soft_wrap=True)
    sys.exit(2)


def _print_price(
    out: Path, spec: "StudySpec", model: "AudioDiffusionModel", store: str | None, job: tuple[int, int]
) -> None:
    """Print a table of the whole trace's cost; raise UserError if there is no room, or no such job."""
    from cache.opening import checked_folder
    from cache.storage import open_storage
    from workbench.cli.pricing_table import measuring, price_table
    from workbench.studies.pricing import check_price, price
    from workbench.studies.study import CACHE
    from workbench.studies.tracing import cache_plan, shards_of_job, study_capture

    study_capture(spec, model)
    plan = cache_plan(spec, model)
    shards_of_job(plan, job)
    storage = open_storage(store or checked_folder(out, CACHE))
    # Before it starts: long clips take minutes, or more memory than there is.
    console.print(measuring(spec, plan), soft_wrap=True)
    output.print(price_table(price(spec, plan, model, storage)))
    check_price(plan, storage)


def _parse_site_dtypes(texts: list[str]) -> dict[str, Dtype]:
    dtypes: dict[str, Dtype] = {}
    for text in texts:
        name, _, dtype = text.partition("=")
        if dtype not in ITEMSIZE:
            raise UserError(f"'{text}' is not a site's dtype. Write it like '*.block=float32'.")
        if name in dtypes:
            raise UserError(f"The dtype of '{name}' is given twice (--site-dtype). Give it once.")
        dtypes[name] = cast(Dtype, dtype)
    return dtypes


def _parse_options(texts: list[str]) -> dict[str, str]:
    options: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.isidentifier() and equals and value):
            raise UserError(
                f"'{text}' is not an option of a figure. Write name=value, such as site=tf4.cross_attn."
            )
        if name in options:
            raise UserError(f"The figure's option {name} is given twice. Give it once.")
        options[name] = value
    return options
