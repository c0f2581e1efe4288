"""The command that makes patching maps."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from workbench.cli.console import Device, StudyFolder, console, note, open_study, progress
from workbench.cli.reports import report_map
from workbench.seeds import LARGEST_SEED


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
        typer.Option(help="Question of the map: which blocks, when, through what, which tokens, together …"),
    ] = "blocks",
    name: Annotated[str, typer.Option(help="Name of the map; defaults to the question.")] = "",
    concept: Annotated[
        list[str] | None, typer.Option(help="Concept to patch; all of the study's by default.")
    ] = None,
    pairs: Annotated[int, typer.Option(min=1, help="Counterfactual pairs per concept.")] = 12,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds per pair.")] = 1,
    direction: Annotated[
        list[str] | None,
        typer.Option(
            help="sufficiency (clean into corrupt) or necessity; both for blocks, else sufficiency."
        ),
    ] = None,
    ablation: Annotated[
        list[str] | None, typer.Option(help="Also ablate every block: zero, mean or resample.")
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
        Literal["conditioning", "output"],
        typer.Option(help="Patch the conditioning (as in the paper) or outputs."),
    ] = "conditioning",
    part: Annotated[str, typer.Option(help="Part of the block to patch.")] = "cross_attn",
    windows: Annotated[int, typer.Option(min=1, help="Windows of steps, noise levels or seconds.")] = 8,
    segment: Annotated[
        list[str] | None, typer.Option(help="Conditioning tokens: text, swapped, word:violin …")
    ] = None,
    receiver: Annotated[list[str] | None, typer.Option(help="Part at which paths end, such as mlp.")] = None,
    greedy_fraction: Annotated[
        float, typer.Option(min=0, max=1, help="Grow a set of blocks until it restores this fraction (sets).")
    ] = 0.0,
    screen: Annotated[
        Literal["velocity", "attribution"] | None,
        typer.Option(help="Screen all cells cheaply, then run the top cells and a random sample."),
    ] = None,
    screen_pairs: Annotated[int, typer.Option(min=1, help="Pairs used for screening.")] = 4,
    top: Annotated[int, typer.Option(min=1, help="Top cells to run after screening.")] = 8,
    sample: Annotated[int, typer.Option(min=2, help="Additional cells to run, drawn at random.")] = 8,
    stop_top: Annotated[
        int,
        typer.Option(min=0, help="Stop early once this many top cells are clear of all others; 0: never."),
    ] = 0,
    min_pairs: Annotated[int, typer.Option(min=2, help="Minimum pairs before early stopping.")] = 10,
    pairs_file: Annotated[
        Path | None, typer.Option(help="CSV file of pairs (see `workbench pairs`) instead of the study's.")
    ] = None,
    arms: Annotated[
        Path | None, typer.Option(help="JSON file of arms to run instead of those of a question.")
    ] = None,
    scorer: Annotated[list[str] | None, typer.Option(help="embedded, clap or clap-laion.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the pairs.")] = 0,
    device: Device = "cpu",
) -> None:
    """Patch every counterfactual pair under every arm of a question; give the map of impacts.

    Runs that the study holds already are not run again, so that a sweep continues where it was cut off.
    """
    from analyses.patching.asking import asked_spec, tensors_beside
    from analyses.patching.run import run_patching, settled

    study = open_study(study_folder)
    screening = {"method": screen, "pairs": screen_pairs, "top": top, "sample": sample} if screen else None
    spec = asked_spec(
        study,
        question,
        name=name,
        concepts=concept or (),
        pairs=pairs,
        seeds=seeds,
        directions=direction or (),
        ablations=ablation or (),
        nulls=null or (),
        blocks=block or (),
        sets=blocks or (),
        mode=mode,
        part=part,
        windows=windows,
        segments=segment or (),
        receivers=receiver or (),
        greedy_fraction=greedy_fraction,
        screening=screening,
        stop_top=stop_top,
        min_pairs=min_pairs,
        pairs_file=pairs_file,
        arms=arms,
        scorers=scorer or ("embedded",),
        seed=seed,
    )
    if study.is_done(spec.result_name, settled(spec)):
        console.print(f"The map {spec.result_name} is done already.")
    else:
        adapter = study.load_model(device)
        with progress("Patching pairs") as report:
            result = run_patching(study, adapter, spec, report, note, tensors=tensors_beside(arms))
        if result.attrs["stopped"]:
            console.print(result.attrs["stopped"])
    report_map(study, spec.name or spec.question)
