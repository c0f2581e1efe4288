"""Commands for the files of steering vectors, packs: show, list, import and export."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from cache.errors import UserError
from workbench.cli.console import Device, StudyFolder, note, open_study, output, print_rows, print_table
from workbench.cli.steering_options import IgnoreGate

if TYPE_CHECKING:
    from analyses.steering.vector import Vector
    from workbench.engine.settings import GenerationSettings
    from workbench.models.base import AudioDiffusionModel
    from workbench.models.sampling import Sampling
    from workbench.studies.study import Study

Kept = TypeVar("Kept")
Pack = Annotated[Path, typer.Argument(metavar="PACK", help="File of a steering vector.")]
SUFFIX = ".safetensors"


def show(
    pack: Annotated[
        Path, typer.Argument(metavar="PACK", help="File of a steering vector or concept slider.")
    ],
) -> None:
    """Describe a steering vector: concept, sites, norms, model, sampling, pairs, reliability, judges; or a slider."""
    from analyses.steering.files import OtherKind, UnknownKind
    from analyses.steering.pack_summary import pack_facts, pack_sites
    from analyses.steering.slider import load_slider
    from analyses.steering.slider_summary import slider_facts
    from analyses.steering.vector import load_vector

    try:
        vector = load_vector(pack)
    except UnknownKind as error:
        raise UserError(
            f"{pack} is not a vector or slider, or is damaged. Give the file of a vector or slider."
        ) from error
    except OtherKind as error:
        if error.kind != "concept_slider":
            raise
        print_rows(slider_facts(load_slider(pack)))
        return
    print_rows(pack_facts(vector))
    print_table(
        "Sites (means over the steps; cosines compare directions of disjoint pairs)", pack_sites(vector)
    )


def list_packs(study_folder: StudyFolder) -> None:
    """List the steering vectors and concept sliders of a study, in its folders packs and sliders."""
    from analyses.steering.pack_summary import pack_line
    from analyses.steering.slider_summary import slider_line
    from analyses.steering.study_packs import load_packs
    from analyses.steering.study_sliders import load_sliders

    study = open_study(study_folder).path
    packs, sliders = load_packs(study), load_sliders(study)
    _list(f"Steering vectors of {study_folder}", packs, pack_line)
    _list(f"Concept sliders of {study_folder}", sliders, slider_line)
    if not (packs or sliders):
        output.print(f"{study_folder} has no steering vectors and no concept sliders.", soft_wrap=True)
    for each in (*packs.values(), *sliders.values()):
        if isinstance(each, UserError):
            note(str(each))


def _list(
    title: str, kept: Mapping[str, Kept | UserError], line: Callable[[str, Kept], dict[str, str]]
) -> None:
    """Print a table of those that can be read."""
    import pandas as pd

    if lines := [line(name, each) for name, each in kept.items() if not isinstance(each, UserError)]:
        print_table(title, pd.DataFrame(lines))


def import_pack(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="DEMON's pack (a .safetensors file), or a folder or hub id (owner/name) with published CAA vectors "
            "or AUSteer scores.",
        ),
    ],
    study: Annotated[Path | None, typer.Option(help="Study to add it to, as packs/NAME.safetensors.")] = None,
    name: Annotated[str, typer.Option(help="Its name in the study; defaults to the concept.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="File to write to, instead of a study.")] = None,
    model: Annotated[
        str, typer.Option(help="With --out, the model that the vector belongs to, as in `workbench trace`.")
    ] = "",
    concept: Annotated[str, typer.Option(help="Concept, if published vectors do not name their own.")] = "",
    site: Annotated[
        list[str] | None, typer.Option(help="One of the published sites; all by default. Repeatable.")
    ] = None,
    k: Annotated[
        int | None, typer.Option(min=1, help="For AUSteer scores: channels to keep, at all sites together.")
    ] = None,
    num_steps: Annotated[
        int | None,
        typer.Option(min=1, help="For DEMON's packs: denoising steps; by default the study's, or 8."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(help="For DEMON's packs: option of the model, such as shift=3. Repeatable."),
    ] = None,
    device: Device = "cpu",
) -> None:
    """Convert DEMON's packs and published vectors into steering vectors of a model."""
    from analyses.steering.asking import check_name
    from analyses.steering.demon import vector_from_demon
    from analyses.steering.published import vector_from_published
    from analyses.steering.study_packs import save_pack
    from workbench.studies.selection import parse_options

    check_name(name)
    is_demon = source.endswith(SUFFIX)
    of_demon = {"--num-steps": num_steps, "--option": option}
    of_published = {"--concept": concept, "--site": site, "--k": k}
    _refuse(of_published if is_demon else of_demon, "DEMON's packs" if is_demon else "Published vectors")
    target, base = _target_and_base(study, out, model, name, device)
    if is_demon:
        options = {"num_steps": num_steps, "options": parse_options(option or [])}
        vector = vector_from_demon(source, base, _settings(target, options))
    else:
        vector = vector_from_published(source, base, concept=concept, sites=site or (), k=k)
    if isinstance(target, Path):
        show(vector.save(target))
    else:
        show(save_pack(target.path, name or vector.concept, vector))


def export_pack(
    pack: Pack,
    out: Annotated[Path, typer.Option("--out", help="File to write to.")],
    to: Annotated[Literal["demon"], typer.Option(help="Format: DEMON's packs.")],  # noqa: ARG001 - so far the only one
    name: Annotated[
        str, typer.Option(help="Name of its knob, steer_NAME; made of the concept by default.")
    ] = "",
    ignore_gate: IgnoreGate = False,
) -> None:
    """Write a steering vector in the format of another program."""
    from analyses.steering.demon import write_demon
    from analyses.steering.vector import load_vector

    vector = load_vector(pack)
    vector = vector.ignoring_gate() if ignore_gate else vector
    output.print(f"Written to {write_demon(vector, out, name)}.", soft_wrap=True)


def _target_and_base(
    study: Path | None, out: Path | None, model: str, name: str, device: str
) -> "tuple[Path | Study, AudioDiffusionModel]":
    """Return the file or the study to write to, and the vector's model."""
    if (out is None) == (study is None):
        raise UserError("Give either --study, or --out with --model, not both or neither.")
    if study is not None:
        if model:
            raise UserError("The model is the study's. Leave out --model.")
        opened = open_study(study)
        return opened, opened.load_model(device)
    if name or not model:
        raise UserError("With --out, give the model (--model), and no name (--name), which is for studies.")
    from workbench.models import load_model

    return Path(str(out)), load_model(model, device=device)


def _settings(target: "Path | Study", options: dict[str, Any]) -> "GenerationSettings":
    """Return the default settings, or those of a study, with the options that are given."""
    from workbench.engine.settings import GenerationSettings

    settings = GenerationSettings() if isinstance(target, Path) else target.spec.settings
    given = {name: value for name, value in options.items() if value}
    return GenerationSettings(**{**settings.model_dump(), **given})


def _refuse(options: dict[str, Any], kind: str) -> None:
    """Raise UserError for an option that does not belong to a kind of source."""
    for name, value in options.items():
        if value:
            raise UserError(f"{kind} have no option {name}. Leave it out.")


def resampled(vector: "Vector", name: str, sigmas: Sequence[float]) -> "Vector":
    """Return a vector for runs with these sigmas, by the nearest sigma, and say so."""
    changed = vector.resampled(sigmas)
    note(f"The vector {name} is resampled {changed.provenance['resampled']}.")
    return changed


def note_differences(vector: "Vector", name: str, sampling: "Sampling") -> None:
    """Say in what a run differs from those that a vector was computed from."""
    if differences := vector.sampling.differences(sampling):
        made = " and ".join(f"{each} {own}" for each, (own, _) in differences.items())
        run = " and ".join(str(its) for _, its in differences.values())
        note(f"The vector {name} was made with {made}; this run has {run}.")
