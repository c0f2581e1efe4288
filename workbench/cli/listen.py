"""Commands for listening studies."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyses.listening.spec import ExclusionRules, ListeningSpec
from cache.errors import UserError
from cache.wording import counted
from dashboards.address import LOCAL
from workbench.cli.console import note, open_study, output, print_table
from workbench.cli.options import offers
from workbench.cli.parsing import CommandLine
from workbench.listening.request import CONSENT, LONGEST_TEXT, ListeningRequest

if TYPE_CHECKING:
    from workbench.listening.material import Material

app = CommandLine(help="Make, serve and analyse listening studies.", no_args_is_help=True)

PORT = 8060
ListeningFolder = Annotated[Path, typer.Argument(metavar="LISTENING", help="Folder of a listening study.")]


@app.command()
@offers(ListeningRequest)
def make(
    out: Annotated[Path, typer.Option("--out", help="Folder of the listening study, which is created.")],
    study_folder: Annotated[
        Path | None, typer.Argument(metavar="STUDY", help="Study folder with a steering result.")
    ] = None,
    result: Annotated[str, typer.Option(help="Steering result; by default the study's only one.")] = "",
    table: Annotated[
        Path | None,
        typer.Option(
            help="Table (CSV) of audio files instead of a study, with the columns stimulus and condition, item or "
            "reference (mushra: reference), and text unless the questions do without {text}."
        ),
    ] = None,
    consent: Annotated[
        Path | None, typer.Option(help="Text file with the consent text that listeners agree to.")
    ] = None,
    **asked: Any,
) -> None:
    """Draw clips into a listening study: equally loud, under blind names, in balanced orders."""
    from workbench.listening.making import make_listening_study
    from workbench.text_files import read_text
    from workbench.validation import validated

    text = CONSENT if consent is None else read_text(consent, 4 * LONGEST_TEXT).strip()
    request = validated(ListeningRequest, {**asked, "consent": text}, "Invalid listening study")
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists already. Give a new folder (--out).")
    config = make_listening_study(out, _material(study_folder, result, table, request), request, note)
    trials = sum(trial.kind == "trial" for trial in config.trials)
    output.print(
        f"{out} has {trials} trials of {len(config.items)} items and {len(config.conditions)} conditions: "
        f"{', '.join(config.conditions)}.",
        soft_wrap=True,
    )
    output.print(f"Next:\n  workbench listen serve {out}", soft_wrap=True)


@app.command()
def serve(
    folder: ListeningFolder,
    listeners: Annotated[
        int,
        typer.Option(
            min=0,
            max=10_000,
            help="Number of listeners, each with a link of their own, written to links.csv; 0 lets anyone on this "
            "machine start without a link.",
        ),
    ] = 0,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = LOCAL.host,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = PORT,
    url_prefix: Annotated[
        str, typer.Option(help="Path prefix under which a proxy serves the page, such as /listen/.")
    ] = "",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Additional host name under which a proxy is reached. Repeatable."),
    ] = None,
) -> None:
    """Run a listening study as a web page, for browsers on phones, too; answers are stored as they are given."""
    from dashboards.address import Address
    from dashboards.listening.app import serve as serve_page

    serve_page(folder, Address(host, port, tuple(allow_host or ()), url_prefix), listeners)


@app.command()
@offers(ListeningSpec)
def analyse(folder: ListeningFolder, **asked: Any) -> None:
    """Compute what listeners preferred or rated, with intervals over listeners, without those whom a rule excludes."""
    from analyses.listening.run import RESULT
    from analyses.listening.run import analyse as analysed
    from dashboards.listening.report import excluded_table, main_table, sentences, write_tables
    from workbench.validation import validated

    result = analysed(folder, validated(ListeningSpec, asked, "Invalid analysis"))
    output.print(f"Result: {folder / RESULT}", soft_wrap=True)
    if len(excluded := excluded_table(result)):
        print_table("Excluded listeners", excluded)
    print_table(str(result.attrs["title"]), main_table(result))
    for sentence in sentences(result):
        output.print(sentence, soft_wrap=True)
    for file in write_tables(folder, result):
        output.print(f"Table: {file}", soft_wrap=True)


@app.command("import")
def import_webmushra(
    configuration: Annotated[
        Path, typer.Argument(metavar="CONFIGURATION", help="Configuration of webMUSHRA (YAML).")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the listening study, which is created.")],
    audio: Annotated[
        Path | None,
        typer.Option(
            help="Folder that its files are relative to, webMUSHRA's own; by default that of configs/."
        ),
    ] = None,
    answers: Annotated[
        Path | None, typer.Option(help="Result file of webMUSHRA (CSV), whose answers are imported, too.")
    ] = None,
) -> None:
    """Make a listening study from a configuration of webMUSHRA, with its answers."""
    from workbench.listening.exchange import import_study

    count = import_study(configuration, out, audio, answers, note)
    output.print(f"{out} has the answers of {counted(count, 'listener')}.", soft_wrap=True)
    output.print(f"Next:\n  workbench listen {'analyse' if count else 'serve'} {out}", soft_wrap=True)


@app.command()
@offers(ExclusionRules)
def export(
    folder: ListeningFolder,
    out: Annotated[Path, typer.Option("--out", help="Folder to write to, such as that of webMUSHRA.")],
    **asked: Any,
) -> None:
    """Write a listening study for webMUSHRA: configuration, audio, and answers, with excluded listeners marked."""
    from analyses.listening.exclusions import exclusions
    from workbench.listening.exchange import export_study
    from workbench.validation import validated

    rules = validated(ExclusionRules, asked, "Invalid rules")
    for file in export_study(folder, out, partial(exclusions, rules=rules), note):
        output.print(str(file), soft_wrap=True)


def _material(
    study_folder: Path | None, result: str, table: Path | None, request: ListeningRequest
) -> "Material":
    """Return the clips of a steering result or of a table."""
    from workbench.listening.material import KIND, from_result, from_table

    if (study_folder is None) == (table is None):
        raise UserError("Give either a study folder or a table of audio files (--table).")
    if table is not None:
        if result or request.ways or request.strengths:
            raise UserError("--result, --way and --strength are for a study. Leave them out.")
        return from_table(table, request)
    assert study_folder is not None
    study = open_study(study_folder)
    names = [name for name in study.result_names() if study.result_attributes(name)["kind"] == KIND]
    if not names:
        raise UserError(f"{study_folder} has no result of steering. Make one with `workbench steer apply`.")
    if not result and len(names) > 1:
        raise UserError(
            f"{study_folder} has several results of steering. Choose one (--result): {', '.join(names)}."
        )
    return from_result(study, result or names[0], request)
