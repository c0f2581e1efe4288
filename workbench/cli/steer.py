"""Commands for steering vectors and their files, packs."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer

from analyses.steering_spec import METHODS, PROMPT_METHODS, SCORES, SteeringSpec
from cache.errors import UserError
from cache.protocol import Pass
from workbench.cli.console import (
    Device,
    StudyFolder,
    note,
    open_study,
    output,
    progress,
)
from workbench.cli.descriptors import fit_descriptor, measure
from workbench.cli.evaluate import evaluate
from workbench.cli.options import offers
from workbench.cli.packs import export_pack, import_pack, list_packs, note_differences, resampled, show
from workbench.cli.parsing import CommandLine
from workbench.cli.reports import report_steering
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

if TYPE_CHECKING:
    from analyses.steering.run import Way
    from analyses.steering.trials import Others
    from workbench.models.base import AudioDiffusionModel
    from workbench.studies.study import Study

app = CommandLine(help="Show, list, import and export steering vectors.", no_args_is_help=True)

Sites = Annotated[
    str,
    typer.Option(
        help="Blocks: tf3+tf4, all, or all-tf3+tf4 (all but these), with .mlp or another part if it is not the "
        "cross-attention; by default those with an impact of at least .1 in the study's map of blocks."
    ),
]
Positive = Annotated[str, typer.Option(help="Value to steer towards; by default the concept's first.")]
Negative = Annotated[str, typer.Option(help="Value to steer away from; by default all others.")]
Packs = Annotated[
    list[str] | None,
    typer.Option(help="Steering vector: its name in the study, or a file. Repeatable, to compare them."),
]
Sliders = Annotated[
    list[str] | None,
    typer.Option(help="Concept slider: its name in the study, or a file. Repeatable."),
]

app.command()(show)
app.command("list")(list_packs)
app.command("import")(import_pack)
app.command("export")(export_pack)
app.command("fit-descriptor")(fit_descriptor)
app.command()(measure)
app.command()(evaluate)


@app.command()
def fit(
    study_folder: StudyFolder,
    concept: Annotated[str, typer.Option(help="Concept.")],
    method: Annotated[Literal[METHODS], typer.Option(help="Method that computes the vector.")] = "caa",  # type: ignore[valid-type]
    sites: Sites = "",
    positive: Positive = "",
    negative: Negative = "",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs from which the vector is computed.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pairs and their noise.")] = 0,
    latents: Annotated[
        Literal["own", "positive", "negative"],
        typer.Option(
            help="At which latents the prompts of a pair are compared: each at those of its own run, as published, "
            "or both at those of the positive or of the negative run."
        ),
    ] = "own",
    pass_name: Annotated[
        list[str] | None,
        typer.Option("--pass", help="Pass that gets directions (cond by default). Repeatable."),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(help="For caa: constant in time, one direction for each token, or tokens of a cycle."),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            min=1, help="For austeer: channels that are moved. For sae-features: features of each site."
        ),
    ] = None,
    score: Annotated[
        Literal[SCORES] | None,  # type: ignore[valid-type]
        typer.Option(help="For sae-features: the score by which features are chosen (tfidf by default)."),
    ] = None,
    contrastive: Annotated[
        bool,
        typer.Option(
            "--contrastive", help="For sae-features: subtract the features of the negative prompts."
        ),
    ] = False,
    ignore_gate: Annotated[
        bool,
        typer.Option(
            "--ignore-gate", help="For sae-features: use autoencoders also at steps that their gate closes."
        ),
    ] = False,
    name: Annotated[str, typer.Option(help="Name of the pack; defaults to the concept.")] = "",
    check_pairs: Annotated[
        int, typer.Option(min=0, help="Other pairs, on which the vector is then judged; 0 leaves this out.")
    ] = 8,
    scorer: Annotated[
        list[str] | None, typer.Option(help="Scorer that judges it (embedded by default). Repeatable.")
    ] = None,
    device: Device = "cpu",
) -> None:
    """Compute a steering vector from counterfactual pairs, keep it in the study's folder packs, and judge it.

    Run again to continue an interrupted computation.
    """
    from analyses.steering.asking import check_name, check_options, fit_vector
    from analyses.steering.fit_state import fit_state
    from analyses.steering.study_files import check_new_pack
    from analyses.steering.study_packs import save_pack

    study = open_study(study_folder)
    check_name(name)
    judges = _checked_judges(scorer or ["embedded"], check_pairs) if check_pairs else ()
    if scorer and not check_pairs:
        raise UserError("--scorer is for judging the vector (--check-pairs). Leave it out.")
    own = {
        "time": int(time) if time and time.isdecimal() else time,
        "k": k,
        "score": score,
        "contrastive": contrastive or None,
        "ignore_gate": ignore_gate or None,
    }
    given = {option: value for option, value in own.items() if value is not None}
    check_options(method, given)
    passes = _passes(pass_name or ["cond"])
    with fit_state(study, "vector", name or concept, note) as state:
        check_new_pack(study.path, name or concept)
        model = study.load_model(device)
        with progress("Generating clips") as report:
            vector = fit_vector(
                study,
                model,
                method,
                concept,
                sites,
                given,
                positive=positive,
                negative=negative,
                pairs=pairs,
                seed=seed,
                latents=latents,
                passes=passes,
                progress=report,
                state=state,
            )
        file = save_pack(study.path, name or concept, vector)
    if check_pairs:
        try:
            _judge(study, model, name or concept, pairs=check_pairs, scorers=judges, ignore_gate=ignore_gate)
        except UserError as error:  # the vector is there
            note(f"The vector is not judged. {error} Judge it with `workbench steer check`.")
    show(file)


@app.command()
@offers(SteeringSpec, only=("pairs", "seeds", "scorers", "seed"))
def check(
    study_folder: StudyFolder,
    pack: Annotated[str, typer.Argument(metavar="NAME", help="Name of a steering vector of the study.")],
    strength: Annotated[
        list[float] | None, typer.Option(help="Strength; -1 and 1 by default. Repeatable.")
    ] = None,
    ignore_gate: IgnoreGate = False,
    device: Device = "cpu",
    **asked: Any,
) -> None:
    """Judge a vector of the study on pairs that it was not computed from, and keep what is found in its pack.

    Does + raise the judge's score, and does the judge tell the real prompts apart at all?
    """
    study = open_study(study_folder)
    show(
        _judge(
            study,
            study.load_model(device),
            pack,
            ignore_gate=ignore_gate,
            **asked,
            **({"strengths": strength} if strength else {}),
        )
    )


@app.command("train-slider")
def train_slider(
    study_folder: StudyFolder,
    concept: Annotated[str, typer.Option(help="Concept.")],
    sites: Sites = "",
    positive: Positive = "",
    negative: Negative = "",
    pairs: Annotated[int, typer.Option(min=1, help="Pairs of prompts to train on.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the pairs, weights and noise.")] = 0,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the LoRA.")] = 4,
    iterations: Annotated[int, typer.Option(min=1, help="Training steps.")] = 500,
    eta: Annotated[float, typer.Option(help="How much more of the concept it learns.")] = 7.0,
    learning_rate: Annotated[float, typer.Option(help="Learning rate of AdamW.")] = 1e-4,
    name: Annotated[str, typer.Option(help="Name of the slider; defaults to the concept.")] = "",
    device: Device = "cpu",
) -> None:
    """Train a concept slider, a LoRA, and keep it in the study's folder sliders. Run again to continue."""
    from analyses.steering.asking import asked_sites, check_name
    from analyses.steering.concept_slider import concept_slider
    from analyses.steering.study_files import slider_file

    study = open_study(study_folder)
    check_name(name)
    model = study.load_model(device)
    file = slider_file(study.path, name or concept)
    with progress("Training the slider") as report:
        slider = concept_slider(
            model,
            concept,
            asked_sites(study, model, concept, sites),
            rank=rank,
            positive=positive,
            negative=negative,
            prompts=study.spec.prompts,
            pairs=pairs,
            seed=seed,
            iterations=iterations,
            eta=eta,
            learning_rate=learning_rate,
            settings=study.spec.settings,
            checkpoints=file.with_suffix(".training"),
            progress=report,
        )
    output.print(f"{slider}: {slider.save(file, study.path)}", soft_wrap=True)


@app.command()
@offers(SteeringSpec, randoms="--random")
def apply(
    study_folder: StudyFolder,
    pack: Packs = None,
    slider: Sliders = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="Steer through the prompt, too, with a --concept, at --sites.",
            metavar=f"<{'|'.join(PROMPT_METHODS)}>",
        ),
    ] = None,
    concept: Annotated[str, typer.Option(help="Concept of the methods.")] = "",
    sites: Sites = "",
    positive: Positive = "",
    negative: Negative = "",
    unit: Unit = "difference",
    passes: Passes = "cond_only",
    schedule: Schedule = "constant",
    over: Over = "steps",
    start_step: StartStep = 0,
    keep_norm: KeepNorm = False,
    operation: Operation = "add",
    resample: Resample = None,
    ignore_gate: IgnoreGate = False,
    device: Device = "cpu",
    **asked: Any,
) -> None:
    """Steer new prompts at several strengths, and measure what it does to every concept.

    Prompts that a vector was computed from are left out. Runs that the study already has are not repeated.
    """
    from analyses.steering.asking import asked_steering, prompt_method
    from analyses.steering.trials import asked_trial, ways_of_trial

    if not (pack or slider or method):
        raise UserError(
            "Give a steering vector (--pack), a concept slider (--slider) or a method that steers through the prompt "
            "(--method)."
        )
    if unknown := [name for name in method or [] if name not in PROMPT_METHODS]:
        raise UserError(f"Unknown method '{unknown[0]}' (--method). Methods: {', '.join(PROMPT_METHODS)}.")
    of_methods = {"--concept": concept, "--sites": sites, "--positive": positive, "--negative": negative}
    of_vectors = {
        "--unit": unit != "difference",
        "--passes": passes != "cond_only",
        "--keep-norm": keep_norm,
        "--operation": operation != "add",
        "--resample": resample is not None,
        "--ignore-gate": ignore_gate,
    }
    if not method:
        _refuse(
            of_methods, "methods that steer through the prompt (--method); vectors and sliders have their own"
        )
    if not pack:
        _refuse(of_vectors, "steering vectors (--pack)")
    if "pci" in (method or []) and (schedule != "constant" or over != "steps" or start_step):
        raise UserError(
            "--schedule, --over and --start-step cannot be combined with --method pci, whose strength is a number of "
            "steps."
        )
    study = open_study(study_folder)
    given = asked_steering(study, pack or [], slider or [])
    concept = concept or next((each.concept for _, each in given), "")
    if not concept:
        raise UserError("Give the concept that the methods steer (--concept).")
    model = study.load_model(device)
    methods = [
        (name, prompt_method(study, model, name, concept, sites, positive, negative))
        for name in dict.fromkeys(method or [])
    ]
    steered = [*_for_study(given, study, model, resample), *methods]
    spec = asked_trial(study, steered, **asked)
    how = {"unit": unit, "passes": passes, "keep_norm": keep_norm, "operation": operation}
    course = {"schedule": schedule, "over": over, "start_step": start_step}
    _try(study, spec, ways_of_trial(steered, spec, note, course, ignore_gate, **how), model)


@app.command()
@offers(SteeringSpec, randoms="--random")
def ladder(
    study_folder: StudyFolder,
    concept: Annotated[str, typer.Option(help="Concept.")],
    sites: Sites = "",
    positive: Positive = "",
    negative: Negative = "",
    fit_pairs: Annotated[int, typer.Option(min=1, help="Pairs from which the vector is computed.")] = 16,
    pack: Packs = None,
    slider: Sliders = None,
    resample: Resample = None,
    ignore_gate: IgnoreGate = False,
    device: Device = "cpu",
    **asked: Any,
) -> None:
    """Show where a concept is lost between patching and steering, on the same prompts.

    From the conditioning patch to the exact output, the difference of the same pair by token and as its mean over time,
    a vector of other pairs, features of the study's autoencoders of the sites, further vectors and sliders, and random
    vectors.
    """
    from analyses.steering.asking import asked_steering
    from analyses.steering.fit_state import fit_state
    from analyses.steering.trials import asked_ladder, rungs_of_ladder

    if not pack:
        _refuse({"--resample": resample is not None}, "steering vectors (--pack)")
    study = open_study(study_folder)
    given = asked_steering(study, pack or [], slider or [])
    spec = asked_ladder(study, concept, positive, negative, fit_pairs, given, **asked)
    model = study.load_model(device)
    others = _for_study(given, study, model, resample)
    with fit_state(study, "ladder", spec.result_name, note) as state:
        with progress("Generating clips") as report:
            rungs = rungs_of_ladder(
                study, model, spec, note, sites, fit_pairs, others, report, state, ignore_gate
            )
        _try(study, spec, rungs, model)


def _for_study(
    given: "Others", study: "Study", model: "AudioDiffusionModel", resample: str | None
) -> "Others":
    """Return vectors and sliders for a study's runs, with the vectors resampled if asked; say how the runs differ."""
    from analyses.steering.vector import Vector

    settings, found = study.spec.settings, []
    for name, each in given:
        if isinstance(each, Vector):
            note_differences(each, name, model.sampling(settings))
            each = each if resample is None else resampled(each, name, model.sigmas(settings))
        found.append((name, each))
    return found


def _refuse(given: dict[str, Any], owner: str) -> None:
    """Raise UserError if an option is given that has no effect."""
    if useless := [option for option, value in given.items() if value]:
        raise UserError(f"{useless[0]} is for {owner}. Leave it out.")


def _try(study: "Study", spec: SteeringSpec, ways: "Sequence[Way]", model: "AudioDiffusionModel") -> None:
    """Run a trial and report it."""
    from analyses.steering.run import run_steering

    with progress("Steering prompts") as report:
        run_steering(study, model, spec, ways, report, note)
    report_steering(study, spec.result_name)


def _checked_judges(scorers: "Sequence[str]", pairs: int) -> tuple[str, ...]:
    """Return the scorers of a check; raise UserError, before anything is computed, if they or the pairs are invalid."""
    from workbench.scorers import scorer_identity
    from workbench.validation import validated

    asked = {"concept": "", "positive": "", "negatives": (), "pairs": pairs, "scorers": scorers}
    spec = validated(SteeringSpec, asked, "Invalid check")
    for name in spec.scorers:
        scorer_identity(name)
    return spec.scorers


def _judge(study: "Study", model: "AudioDiffusionModel", name: str, **options: Any) -> Path:
    """Have a pack of the study judged, and return its file."""
    from analyses.steering.judging import judge_pack

    with progress("Judging the vector") as report:
        return judge_pack(study, model, name, report, note, **options)


def _passes(given: list[str]) -> list[Pass]:
    """Return passes; raise UserError for unknown ones."""
    if unknown := [name for name in given if name not in get_args(Pass)]:
        raise UserError(f"Unknown pass '{unknown[0]}' (--pass). Passes: {', '.join(get_args(Pass))}.")
    return cast(list[Pass], given)
