"""The `workbench generate` command: one clip, steered or not."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cache.errors import UserError
from workbench.cli.console import Device, output
from workbench.cli.model_options import Duration, Guidance, ModelDtype, ModelOptions, NumSteps
from workbench.cli.packs import note_differences, resampled
from workbench.cli.steering_options import (
    IgnoreGate,
    KeepNorm,
    Operation,
    Over,
    Passes,
    Resample,
    Schedule,
    StartStep,
    Unit,
)
from workbench.engine.settings import GenerationSettings

if TYPE_CHECKING:
    from analyses.steering.vector import Vector
    from workbench.engine.edits import Edit
    from workbench.engine.runs import Clip
    from workbench.models.base import AudioDiffusionModel


def generate(
    model: Annotated[
        str, typer.Argument(help="organism-shared, organism-split, a pipeline folder, or a hub id.")
    ],
    prompt: Annotated[str, typer.Option(help="Prompt.")],
    out: Annotated[Path, typer.Option("--out", help="Audio file to write: .flac, .wav, .ogg or .mp3.")],
    lyrics: Annotated[str, typer.Option(help="Lyrics.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the initial noise.")] = 0,
    pack: Annotated[
        list[Path] | None, typer.Option(help="File of a steering vector. Repeatable; the vectors add up.")
    ] = None,
    strength: Annotated[
        list[float] | None, typer.Option(help="Strength of each vector, in the same order; 1 by default.")
    ] = None,
    unit: Unit = "difference",
    passes: Passes = "cond_only",
    schedule: Schedule = "constant",
    over: Over = "steps",
    start_step: StartStep = 0,
    keep_norm: KeepNorm = False,
    operation: Operation = "add",
    resample: Resample = None,
    ignore_gate: IgnoreGate = False,
    edit: Annotated[
        list[str] | None,
        typer.Option(help="Edit as JSON, as the lab writes it (see the how-to on the lab). Repeatable."),
    ] = None,
    study: Annotated[
        Path | None, typer.Option(help="Study whose vectors, sliders and autoencoders the edits name.")
    ] = None,
    duration: Duration = None,
    num_steps: NumSteps = None,
    guidance: Guidance = None,
    option: ModelOptions = None,
    model_dtype: ModelDtype = "float32",
    device: Device = "cpu",
) -> None:
    """Generate one clip, steered by vectors or edited if any are given, and write its audio.

    Settings that are not given are those of the first vector or, without one, the model's defaults.
    """
    from analyses.steering.vector import load_vector
    from workbench.engine.runs import Clip
    from workbench.models import load_model
    from workbench.studies.selection import parse_options

    how: dict[str, Any] = {
        "unit": unit, "passes": passes, "schedule": schedule, "over": over, "start_step": start_step,
        "keep_norm": keep_norm, "operation": operation, "ignore_gate": ignore_gate,
    }  # fmt: skip
    if not pack:
        _refuse_without_vectors({**how, "resample": resample})
    vectors = [load_vector(file) for file in pack or []]
    strengths = _strengths(strength or [], vectors)
    asked = {"duration": duration, "num_steps": num_steps, "guidance_scale": guidance}
    settings = _settings(vectors, asked, parse_options(option or []))
    adapter = load_model(model, device=device, dtype=model_dtype)
    for vector in vectors:
        note_differences(vector, vector.concept, adapter.sampling(settings))
    if resample:
        sigmas = adapter.sigmas(settings)
        vectors = [resampled(vector, vector.concept, sigmas) for vector in vectors]
    clip = Clip(prompt, seed, lyrics)
    edits = [
        *(vector.at(value, **how) for vector, value in zip(vectors, strengths, strict=True)),
        _asked_edits(edit or [], clip, settings, study, adapter),
    ]
    made = adapter.generate(clip, settings, edits=edits)
    output.print(f"Wrote {made.save(out)} ({settings.duration:g} s).", soft_wrap=True)


def _asked_edits(
    texts: list[str],
    clip: "Clip",
    settings: GenerationSettings,
    study: Path | None,
    model: "AudioDiffusionModel",
) -> "tuple[Edit, ...]":
    """Return the edits that are written as JSON."""
    from analyses.lab.edits import Place, edits_of
    from analyses.lab.facts import facts_of
    from analyses.lab.request import edit_of

    if not texts:
        return ()
    place = Place(clip, settings, study, model.block_names, facts_of(model, settings))
    return edits_of(tuple(map(edit_of, texts)), place)


def _refuse_without_vectors(given: dict[str, Any]) -> None:
    """Raise UserError for an option of vectors that is not its default."""
    defaults = {
        "unit": "difference", "passes": "cond_only", "schedule": "constant", "over": "steps", "operation": "add",
    }  # fmt: skip
    for name, value in given.items():
        if value and value != defaults.get(name):
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option} is for steering vectors (--pack). Leave it out.")


def _strengths(given: list[float], vectors: "list[Vector]") -> list[float]:
    """Return a strength for each vector; raise UserError for another number of them."""
    if given and len(given) != len(vectors):
        raise UserError(
            f"Give one strength for each steering vector (--pack, --strength): there are {len(vectors)} vectors and "
            f"{len(given)} strengths."
        )
    return given or [1.0] * len(vectors)


def _settings(vectors: "list[Vector]", asked: dict[str, Any], options: dict[str, Any]) -> GenerationSettings:
    """Return the settings that were asked for, and otherwise those of the first vector, if there is one."""
    base = vectors[0].settings if vectors else GenerationSettings()
    given = {name: value for name, value in asked.items() if value is not None}
    return GenerationSettings(**{**base.model_dump(), **given, "options": {**base.options, **options}})
