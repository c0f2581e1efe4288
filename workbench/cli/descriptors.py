"""Commands for steering vectors of descriptors of the audio, such as brightness."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analyses.steering_spec import DESCRIPTOR_METHODS
from workbench.cli.console import Device, StudyFolder, note, open_study, print_table, progress
from workbench.cli.packs import show
from workbench.cli.steering_options import IgnoreGate
from workbench.scorers.descriptors import DESCRIPTORS

if TYPE_CHECKING:
    import xarray as xr

    Descriptor = str
else:
    Descriptor = Literal[tuple(DESCRIPTORS)]

Strengths = Annotated[
    list[float] | None, typer.Option(help="Strength; -4, -2, 2 and 4 by default. Repeatable.")
]


def fit_descriptor(
    study_folder: StudyFolder,
    descriptor: Annotated[Descriptor, typer.Option(help="Descriptor of the audio.")],
    sites: Annotated[
        str,
        typer.Option(
            help="Blocks: tf3+tf4, all, or all-tf3+tf4 (all but these), with .block or another part if it is not the "
            "cross-attention."
        ),
    ],
    method: Annotated[
        Literal[DESCRIPTOR_METHODS],  # type: ignore[valid-type]
        typer.Option(help="Method that computes the vector."),
    ] = "covariance",
    time: Annotated[
        Literal["constant", "token"],
        typer.Option(help="A direction that is constant in time, or one for each token."),
    ] = "constant",
    side: Annotated[
        Literal["all", "above", "below"],
        typer.Option(help="Clips from which it is computed: all, or those on one side of the median."),
    ] = "all",
    clips: Annotated[int, typer.Option(min=3, help="Clips from which it is computed.")] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts, and of the first clip's noise.")] = 0,
    name: Annotated[str, typer.Option(help="Name of the pack; defaults to the descriptor.")] = "",
    device: Device = "cpu",
) -> None:
    """Compute a steering vector from clips that differ in a descriptor, and keep it in the study's folder packs.

    Run again to continue an interrupted computation.
    """
    from analyses.steering.asking import check_name, site_set
    from analyses.steering.descriptor import descriptor as fitted
    from analyses.steering.descriptor_clips import study_clips
    from analyses.steering.fit_state import fit_state
    from analyses.steering.study_files import check_new_pack
    from analyses.steering.study_packs import save_pack

    study = open_study(study_folder)
    check_name(name)
    with fit_state(study, "vector", name or descriptor, note) as state:
        check_new_pack(study.path, name or descriptor)
        model = study.load_model(device)
        with progress("Generating clips") as report:
            vector = fitted(
                model,
                descriptor,
                site_set(sites, model.n_blocks, model.block_names),
                study_clips(study, clips, seed),
                method=method,
                side=side,
                time=time,
                settings=study.spec.settings,
                progress=report,
                state=state,
            )
        file = save_pack(study.path, name or descriptor, vector)
    show(file)


def measure(
    study_folder: StudyFolder,
    pack: Annotated[str, typer.Option(help="Steering vector: its name in the study, or a file.")],
    descriptor: Annotated[
        Descriptor | None, typer.Option(help="Descriptor that is measured; by default the vector's own.")
    ] = None,
    clips: Annotated[int, typer.Option(min=2, help="Clips that are steered, of other prompts.")] = 8,
    strength: Strengths = None,
    randoms: Annotated[
        int, typer.Option("--random", min=0, help="Random vectors of the same norm, as a null.")
    ] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the prompts, noise and random vectors.")] = 0,
    ignore_gate: IgnoreGate = False,
    device: Device = "cpu",
) -> None:
    """Steer clips of other prompts at several strengths, and measure how a descriptor of their audio changes."""
    from analyses.steering.asking import asked_pack
    from analyses.steering.descriptor_clips import study_clips
    from analyses.steering.descriptor_effects import descriptor_effects

    study = open_study(study_folder)
    vector = asked_pack(study, pack)
    others = study_clips(study, clips, seed, {example.prompt for example in vector.examples})
    model = study.load_model(device)
    with progress("Steering clips") as report:
        effects = descriptor_effects(
            model,
            vector,
            others,
            strength or (-4.0, -2.0, 2.0, 4.0),
            descriptor=descriptor,
            randoms=randoms,
            seed=seed,
            progress=report,
            ignore_gate=ignore_gate,
        )
    _print_effects(effects, descriptor or vector.concept)


def _print_effects(effects: "xr.Dataset", descriptor: str) -> None:
    import pandas as pd

    from workbench.scorers.descriptors import four_digits, in_unit, unit_of

    def interval(low: float, high: float) -> str:
        return f"[{four_digits(low)}, {four_digits(high)}]"

    lines = []
    for strength in effects.strength.values:
        dose = {
            name: float(array) for name, array in effects.sel(strength=strength).items() if not array.dims
        }
        line = {
            "strength": f"{strength:g}",
            "mean change": four_digits(dose["effect"]),
            "95 %": interval(dose["effect_lo"], dose["effect_hi"]),
        }
        if "null_lo" in dose:
            line["random vectors"] = interval(dose["null_lo"], dose["null_hi"])
        lines.append(line)
    unsteered = in_unit(descriptor, float(effects.unsteered.mean()))
    unit = f" in {unit_of(descriptor)}" if unit_of(descriptor) else ""
    n_clips = effects.sizes["clip"]
    print_table(
        f"Change of {descriptor}{unit} ({unsteered} in {n_clips} unsteered clips)", pd.DataFrame(lines)
    )
