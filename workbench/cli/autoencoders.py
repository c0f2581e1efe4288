"""Commands for sparse autoencoders."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from analyses.evaluation.spec import EffectsSpec, EvaluationSpec
from analyses.sae.spec import MOST_FEATURES, TrainSettings
from cache.errors import UserError
from workbench.cli.console import (
    AllowStore,
    Device,
    StudyFolder,
    console,
    note,
    open_study,
    output,
    print_table,
    progress,
)
from workbench.cli.feature_notes import app as notes_app
from workbench.cli.imports import sae as import_autoencoder
from workbench.cli.options import offers, offers_any
from workbench.cli.parsing import CommandLine, parse_job
from workbench.cli.reports import report_effects, report_evaluation, report_sae
from workbench.sae.settings import ARCHITECTURES, SETTINGS

app = CommandLine(help="Train, list, import and export sparse autoencoders.", no_args_is_help=True)
app.command("import")(import_autoencoder)
app.add_typer(notes_app, name="notes", help="Export and import labels, notes and stars of features.")

GRID = ("site", "pass_name", "expansion", "seed")
"""Settings of which several can be given, besides k: all are trained in one pass."""


@app.command()
@offers(TrainSettings, only=[name for name in TrainSettings.model_fields if name not in GRID])
@offers_any(*SETTINGS, without=["k"])
def train(
    study_folder: StudyFolder,
    site: Annotated[
        list[str],
        typer.Option(
            help="Site to decompose; a cached one, unless the source is generation. Repeatable, to train several in "
            "one pass."
        ),
    ],
    architecture: Annotated[Literal[ARCHITECTURES], typer.Option(help="Architecture.")] = "topk",  # type: ignore[valid-type]
    pass_name: Annotated[
        list[str] | None, typer.Option("--pass", help="Guidance pass to decompose (cond). Repeatable.")
    ] = None,
    expansion: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            max=MOST_FEATURES,
            help="Expansion factor: features per channel of the site (4). Repeatable.",
        ),
    ] = None,
    k: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Active features per token, of TopK and its variants (8). Repeatable."),
    ] = None,
    seed: Annotated[
        list[int] | None, typer.Option(min=0, help="Seed of the initialisation (0). Repeatable.")
    ] = None,
    name: Annotated[
        str,
        typer.Option(
            help="Name to keep it by; by default that of its site. Others of the same name get <name>-2, and so on."
        ),
    ] = "",
    job: Annotated[
        str,
        typer.Option(
            help="Train part k of n (such as 2/4) of the autoencoders; parts can be trained in parallel."
        ),
    ] = "1/1",
    device: Device = "cpu",
    allow_store: AllowStore = False,
    **asked: Any,
) -> None:
    """Train sparse autoencoders on activations and describe their features. Run again to continue."""
    from analyses.sae.distributed import is_first
    from analyses.sae.names import PREFIX
    from analyses.sae.run import asked_trainings, run_saes, trained_names
    from dashboards.results import remove_unusable

    study = open_study(study_folder, allow_store)
    several = {"pass_name": pass_name, "expansion": expansion, "k": k, "seed": seed}
    given = {option: value for option, value in {**several, **asked}.items() if value not in (None, [])}
    specs, part = asked_trainings(study, site, architecture, **given), parse_job(job)
    if is_first():
        remove_unusable(study, [PREFIX + each for each in trained_names(study, specs, name, part) if each])
        if all(trained_names(study, specs, name, part)):
            console.print("Trained already.")
    with progress("Training") as report:
        names = [made.attrs["name"] for made in run_saes(study, specs, device, report, name, note, part)]
    for each in names:
        report_sae(study, each)


@app.command()
@offers(EvaluationSpec)
def evaluate(
    study_folder: StudyFolder,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of an autoencoder of the study.")],
    device: Device = "cpu",
    allow_store: AllowStore = False,
    **asked: Any,
) -> None:
    """Measure what the model loses with an autoencoder in the place of its site, and close the steps where it fails.

    The loss recovered at each step, the concept scores kept in whole generations, and features shared with others.
    """
    from analyses.evaluation.sae import asked_evaluation, evaluate_sae

    study = open_study(study_folder, allow_store)
    spec = asked_evaluation(study, name, **asked)
    with progress("Evaluating the autoencoder") as report:
        evaluate_sae(study, study.load_model(device), spec, report, note)
    report_evaluation(study, name)


@app.command()
@offers(EffectsSpec)
def effects(
    study_folder: StudyFolder,
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Name of an autoencoder of the study; of several, features are changed at all their sites at once.",
        ),
    ],
    device: Device = "cpu",
    allow_store: AllowStore = False,
    **asked: Any,
) -> None:
    """Turn features of each concept value off, and double them: what does that do to every concept?

    Runs that the study already has are not repeated.
    """
    from analyses.evaluation.feature_effects import asked_effects, run_effects

    study = open_study(study_folder, allow_store)
    spec = asked_effects(study, names, **asked)
    with progress("Changing features") as report:
        run_effects(study, study.load_model(device), spec, report, note)
    report_effects(study, spec.result_name)


@app.command("list")
def list_autoencoders(study_folder: StudyFolder, allow_store: AllowStore = False) -> None:
    """List the sparse autoencoders of a study."""
    import pandas as pd

    from analyses.sae.names import PREFIX, sae_names
    from dashboards.results import load_result
    from dashboards.summaries import sae_line

    study = open_study(study_folder, allow_store)
    lines = []
    for name in sae_names(study):
        try:
            lines.append({"name": name, **sae_line(load_result(study, PREFIX + name))})
        except UserError as error:
            note(str(error))
    if lines:
        print_table(f"Sparse autoencoders of {study_folder}", pd.DataFrame(lines))
    else:
        output.print(f"{study_folder} has no sparse autoencoders.", soft_wrap=True)


@app.command()
def export(
    study_folder: StudyFolder,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the autoencoder (`workbench sae list`).")
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder to write it to.")],
    form: Annotated[
        Literal["saelens", "sparsify"], typer.Option("--format", help="Library whose folder to write.")
    ] = "saelens",
    step: Annotated[
        int | None,
        typer.Option(min=0, help="The step whose autoencoder to write, if inputs were scaled per step."),
    ] = None,
    allow_store: AllowStore = False,
) -> None:
    """Write an autoencoder of a study as a folder of SAELens or sparsify."""
    from analyses.sae.export import export_sae

    written = export_sae(open_study(study_folder, allow_store), name, form, out, step)
    output.print(f"Wrote {name} for {form} to {written}.", soft_wrap=True)


@app.command()
def features(
    study_folder: StudyFolder,
    name: Annotated[str, typer.Argument(help="Name of the autoencoder.", show_default=False)],
    top: Annotated[int, typer.Option(min=1, help="Number of features to show.")] = 20,
    allow_store: AllowStore = False,
) -> None:
    """Show the features that distinguish concept values best, with their labels and scores."""
    from analyses.sae.names import PREFIX, check_has
    from dashboards.results import load_result
    from dashboards.summaries import sae_features_table

    study = open_study(study_folder, allow_store)
    check_has(study, name)
    result = load_result(study, PREFIX + name)
    table = sae_features_table(result, top)
    print_table(f"{len(table)} of the {result.sizes['feature']} features of {name}", table)
