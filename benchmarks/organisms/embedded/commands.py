"""Commands that train and evaluate the embedded organisms."""

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.console import Device
from workbench.cli.parsing import CommandLine, Commands
from workbench.seeds import LARGEST_SEED

app = CommandLine(
    cls=Commands,
    help="Tiny ACE-Step models with a planted circuit: train, evaluate, and synthesise their music.",
)

MOST_CLIPS = 1_000_000
MOST_STEPS = 100_000_000
LONGEST_SECONDS = 1200.0  # that a recording of the workbench's can have (`workbench.audio`, slow to import)

Prompts = Annotated[int, typer.Option(min=2, max=100_000, help="Prompts to evaluate on.")]


def _report(folder: Path, prompts: int, device: str) -> None:
    """Evaluate the organism in `folder`, write its card and print the results."""
    import torch

    from benchmarks.organisms.embedded.card import Evaluation, evaluate, write_card

    card = write_card(folder, evaluate(folder, Evaluation(prompts=prompts), torch.device(device)))
    for concept, fraction in card["metrics"]["prompt_following"].items():
        typer.echo(f"{concept}: {fraction:.3f} of {prompts} prompts followed")
    for miss in card["misses"]:
        typer.echo(f"target missed: {miss}")


@app.command()
def train(
    out: Annotated[
        Path, typer.Option(help="Folder for all stages; organisms trained here share the autoencoder.")
    ],
    blocks: Annotated[
        str,
        typer.Option(
            help="Which block reads which concept: '3,4', or '2:instrument,3:drums,4:mood,5:tempo'."
        ),
    ],
    name: Annotated[str, typer.Option(help="Name of the organism and of its folder in --out.")] = "organism",
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the whole training.")] = 0,
    clips: Annotated[int, typer.Option(min=1, max=MOST_CLIPS, help="Training clips of the denoiser.")] = 8000,
    vae_steps: Annotated[
        int | None, typer.Option(min=1, max=MOST_STEPS, help="Training steps of the autoencoder.")
    ] = None,
    dit_steps: Annotated[
        int | None, typer.Option(min=1, max=MOST_STEPS, help="Training steps of the denoiser.")
    ] = None,
    prompts: Prompts = 200,
    device: Device = "cpu",
) -> None:
    """Train an organism from nothing and write its card; a training that was stopped continues where it was.

    About 15 minutes for the autoencoder and 25 for the denoiser on one processor core.
    """
    import logging
    from dataclasses import replace

    import torch

    from benchmarks.organisms.embedded.train import Recipe
    from benchmarks.organisms.embedded.train import train as run
    from benchmarks.organisms.planting import parse_plan

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    recipe = Recipe(seed=seed, clips=clips)
    if vae_steps is not None:
        recipe = replace(recipe, vae=replace(recipe.vae, steps=vae_steps))
    if dit_steps is not None:
        recipe = replace(recipe, dit=replace(recipe.dit, steps=dit_steps))
    folder = run(out, name, parse_plan(blocks), recipe, torch.device(device))
    _report(folder, prompts, device)
    typer.echo(f"organism: {folder}")


@app.command()
def synth(
    out: Annotated[Path, typer.Option(help="Folder for the clips and labels.csv.")],
    clips: Annotated[int, typer.Option(min=1, max=MOST_CLIPS, help="Number of clips.")] = 20,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the data set.")] = 0,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=LONGEST_SECONDS, help="Length of each clip in seconds.")
    ] = 4.0,
) -> None:
    """Write synthesised clips with exact labels: FLAC files and labels.csv."""
    from dataclasses import asdict

    import pandas as pd

    from benchmarks.organisms.synth import SAMPLE_RATE, labelled_clip
    from workbench.audio import write_flac

    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for index in range(clips):
        audio, labels = labelled_clip(seed, index, seconds)
        file = f"{index:05d}.flac"
        write_flac(out / file, audio[None], SAMPLE_RATE)
        rows.append({"file": file, "prompt": labels.prompt, **asdict(labels)})
    pd.DataFrame(rows).to_csv(out / "labels.csv", index=False)
    typer.echo(f"{clips} clips: {out}")


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of an organism.")],
    prompts: Prompts = 200,
    device: Device = "cpu",
) -> None:
    """Measure how well an organism follows its prompts, and write the metrics into its card."""
    _report(folder, prompts, device)


@app.command()
def scorer(
    vae: Annotated[Path, typer.Option(help="Folder of the trained autoencoder.")],
    out: Annotated[
        Path, typer.Option(help="File for the scorer's weights (.npz); its card is written beside it.")
    ],
) -> None:
    """Fit the embedded scorer on synthesised clips, raw and through the autoencoder."""
    from benchmarks.organisms.embedded.fit_scorer import ScorerRecipe, fit_scorer

    for concept, metrics in fit_scorer(vae, out, ScorerRecipe())["held_out"]["reconstructed"].items():
        error = metrics["calibration_error"]
        typer.echo(f"{concept}: accuracy {metrics['accuracy']:.3f}, calibration error {error:.3f}")
