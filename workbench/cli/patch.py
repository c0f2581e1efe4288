"""The `workbench patch` command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from analyses.patching.spec import PatchingSpec, Screening, ScreeningMethod
from workbench.cli.console import Device, StudyFolder, console, note, open_study, progress
from workbench.cli.options import offers
from workbench.cli.reports import report_map

_SCREEN = "screen_"


@offers(PatchingSpec)
@offers(Screening, _SCREEN, top="--top", sample="--sample")
def patch(
    study_folder: StudyFolder,
    screen: Annotated[
        ScreeningMethod | None,
        typer.Option(help="Screen all cells cheaply, then run the top cells and a random sample."),
    ] = None,
    direction: Annotated[
        list[str] | None,
        typer.Option(
            help="sufficiency (clean into corrupt) or necessity; by default both for the question blocks, "
            "else sufficiency. Repeatable."
        ),
    ] = None,
    pairs_file: Annotated[
        Path | None, typer.Option(help="CSV file of pairs (see `workbench pairs`) instead of the study's.")
    ] = None,
    arms: Annotated[
        Path | None, typer.Option(help="JSON file of arms to run instead of those of a question.")
    ] = None,
    device: Device = "cpu",
    **asked: Any,
) -> None:
    """Run every arm of a question on every counterfactual pair, and make the map of impacts.

    Runs that the study already has are not repeated, so an interrupted sweep continues.
    """
    from analyses.patching.asking import asked_spec, tensors_beside
    from analyses.patching.run import run_patching, settled
    from dashboards.results import is_usable

    study = open_study(study_folder)
    of_screening = {
        name: asked.pop(_SCREEN + name) for name in Screening.model_fields if _SCREEN + name in asked
    }
    spec = asked_spec(
        study,
        directions=direction or (),
        screening={"method": screen, **of_screening} if screen else None,
        pairs_file=pairs_file,
        arms=arms,
        **asked,
    )
    if study.is_done(spec.result_name, settled(spec)) and is_usable(study, spec.result_name):
        console.print(f"The map {spec.result_name} is done already.")
    else:
        adapter = study.load_model(device)
        with progress("Patching pairs") as report:
            result = run_patching(study, adapter, spec, report, note, tensors=tensors_beside(arms))
        if result.attrs["stopped"]:
            console.print(result.attrs["stopped"])
    report_map(study, spec.name or spec.question)
