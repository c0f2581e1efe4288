"""The figures: each is (result, spec), with one table of numbers behind its screen and its paper version."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as PaperFigure
from plotly.graph_objects import Figure as ScreenFigure

from cache.errors import UserError
from dashboards import captions
from dashboards.comparison import compare
from dashboards.paper import comparison as paper_comparison
from dashboards.paper import features as paper_features
from dashboards.paper import patching as paper_patching
from dashboards.paper import probes as paper_probes
from dashboards.results import load_patching, load_result, patching_names, problem, sae_sites
from dashboards.screen import comparison as screen_comparison
from dashboards.screen import features as screen_features
from dashboards.screen import patching as screen_patching
from dashboards.screen import probes as screen_probes
from dashboards.selection import example, required
from dashboards.specs import (
    FeatureClipSpec,
    FeatureSpec,
    FigureSpec,
    PatchingCompareSpec,
    PatchingNameSpec,
    PatchingPairsSpec,
    PatchingSpec,
    ProbeFoldsSpec,
    ProbesSpec,
    SaeSpec,
)
from dashboards.tables.features import feature_frame, trace_frame, training_frame
from dashboards.tables.patching import cells_frame, changes_frame, patching_frame, scorers
from dashboards.tables.probes import folds_frame, probes_frame
from dashboards.traces import activation_trace
from dashboards.truth import planted_blocks
from workbench.audio import mel_spectrogram
from workbench.studies.study import Study
from workbench.validation import validated


@dataclass(frozen=True)
class Figure:
    """One kind of figure: its spec, its table of numbers, and its versions for screen and paper, drawn from that table.

    `caption` says what the figure shows, `table` how its numbers stand in a paper (as they are, without it). Where
    `screen` is None, the pages show something else in its place.
    """

    title: str
    spec: type[FigureSpec]
    frame: Callable[[Study, Any], pd.DataFrame]
    paper: Callable[[Study, Any, pd.DataFrame], PaperFigure]
    caption: Callable[[Study, Any, pd.DataFrame], str]
    screen: Callable[[Any, pd.DataFrame], ScreenFigure] | None
    table: Callable[[pd.DataFrame], pd.DataFrame] = lambda frame: frame


def _patching(study: Study, spec: PatchingSpec) -> pd.DataFrame:
    result = load_patching(study, spec.result_name)
    planted = planted_blocks(study) if spec.truth else None
    return patching_frame(result, spec.scorer, spec.concept, spec.column, planted)


def _patching_pairs(study: Study, spec: PatchingPairsSpec) -> pd.DataFrame:
    result = load_patching(study, spec.result_name)
    _check("concept", spec.concept, result["concept"].values.tolist())
    _check("arm", spec.arm, result["arm"].values[result["role"].values != "run"].tolist())
    _check("scorer", spec.scorer, ["", *scorers(result)])
    frame = changes_frame(result, spec.concept, spec.arm, spec.scorer)
    if frame.empty:
        raise UserError(
            f"No pair of {spec.concept} was run in this patching result, so there is nothing to show."
        )
    return frame


def _patching_pairs_caption(study: Study, spec: PatchingPairsSpec, frame: pd.DataFrame) -> str:
    result = load_patching(study, spec.result_name)
    cells = cells_frame(result, spec.scorer)
    cell = cells[(cells["concept"] == spec.concept) & (cells["arm"] == spec.arm)].iloc[0]
    return captions.pairs_caption(result, frame, cell)


def _patching_compare(study: Study, spec: PatchingCompareSpec) -> pd.DataFrame:
    compared = compare(study, spec)
    if compared.frame.empty:
        raise UserError(compared.notes[0])
    return compared.frame


def _probes(study: Study, spec: ProbesSpec) -> pd.DataFrame:
    frame = probes_frame(load_result(study, "probes"))
    _check("part", spec.part, list(frame["part"].unique()))
    return frame[frame["part"] == spec.part].reset_index(drop=True)


def _probe_folds(study: Study, spec: ProbeFoldsSpec) -> pd.DataFrame:
    result = load_result(study, "probes")
    for name, value in (("concept", spec.concept), ("site", spec.site), ("step", spec.step)):
        _check(name, value, result[name].values.tolist())
    return folds_frame(result, spec.concept, spec.site, spec.step)


def _sae_training(study: Study, spec: SaeSpec) -> pd.DataFrame:
    return training_frame(load_result(study, spec.result_name))


def _feature(study: Study, spec: FeatureSpec) -> pd.DataFrame:
    result = load_result(study, spec.result_name)
    _check("feature", spec.feature, result["feature"].values.tolist())
    return feature_frame(result, spec.feature)


def _feature_clip(study: Study, spec: FeatureClipSpec) -> pd.DataFrame:
    _check("feature", spec.feature, load_result(study, spec.result_name)["feature"].values.tolist())
    _check("clip", spec.clip, study.clips["clip"].tolist())
    return trace_frame(activation_trace(study, spec.site, spec.feature, spec.clip), spec.feature, spec.clip)


def _feature_clip_paper(study: Study, spec: FeatureClipSpec, frame: pd.DataFrame) -> PaperFigure:
    audio, sample_rate = study.read_audio(study.audio_path(spec.clip).relative_to(study.path).as_posix())
    seconds = audio.shape[1] / sample_rate
    return paper_features.feature_clip(frame, mel_spectrogram(audio, sample_rate), seconds, spec.width)


FIGURES = {
    "patching": Figure(
        "Patching map",
        PatchingSpec,
        _patching,
        lambda _, spec, frame: paper_patching.patching_map(frame, spec.width),
        lambda study, spec, frame: captions.patching_caption(load_patching(study, spec.result_name), frame),
        lambda _, frame: screen_patching.patching_map(frame),
        captions.patching_table,
    ),
    "patching-pairs": Figure(
        "What one patch moves in each pair",
        PatchingPairsSpec,
        _patching_pairs,
        lambda _, spec, frame: paper_patching.changes(frame, spec.width),
        _patching_pairs_caption,
        lambda _, frame: screen_patching.changes(frame),
    ),
    "patching-compare": Figure(
        "Two patching maps",
        PatchingCompareSpec,
        _patching_compare,
        lambda study, spec, _: paper_comparison.comparison(compare(study, spec), spec.width),
        lambda study, spec, _: captions.compare_caption(compare(study, spec)),
        lambda _, frame: screen_comparison.comparison_map(frame),
        captions.compare_table,
    ),
    "probes": Figure(
        "Probe maps",
        ProbesSpec,
        _probes,
        lambda _, spec, frame: paper_probes.probes_map(frame, spec.quantity, spec.width),
        lambda _, spec, frame: captions.probes_caption(frame, spec.quantity),
        lambda spec, frame: screen_probes.probes_map(frame, spec.quantity),
        captions.probes_table,
    ),
    "probe-folds": Figure(
        "Folds of one probe",
        ProbeFoldsSpec,
        _probe_folds,
        lambda _, spec, frame: paper_probes.probe_folds(frame, spec.width),
        lambda _study, _spec, frame: captions.folds_caption(frame),
        lambda _, frame: screen_probes.probe_folds(frame),
    ),
    "sae-training": Figure(
        "Training of a sparse autoencoder",
        SaeSpec,
        _sae_training,
        lambda _, spec, frame: paper_features.sae_training(frame, spec.width),
        lambda _, spec, frame: captions.training_caption(frame, spec.site),
        lambda _, frame: screen_features.sae_training(frame),
    ),
    "feature": Figure(
        "One feature",
        FeatureSpec,
        _feature,
        lambda _, spec, frame: paper_features.feature_panels(frame, spec.width),
        lambda _study, spec, _frame: captions.feature_caption(spec.site, spec.feature),
        lambda _, frame: screen_features.feature_panels(frame),
    ),
    "feature-clip": Figure(
        "One feature in one clip",
        FeatureClipSpec,
        _feature_clip,
        _feature_clip_paper,
        lambda _study, spec, _frame: captions.feature_clip_caption(spec.site, spec.feature, spec.clip),
        None,
    ),
}


def screen_figure(study: Study, figure: str, /, **options: Any) -> ScreenFigure:
    """A figure for the screen; `options` are the fields of its spec.

    Raises:
        UserError: for unknown names or options, missing results, and a figure that is drawn for paper only.
    """
    kind = find_figure(figure)
    if kind.screen is None:
        raise UserError(f"The figure '{figure}' is for paper only: export it.")
    spec = make_spec(study, figure, options)
    return kind.screen(spec, kind.frame(study, spec))


def find_figure(name: str) -> Figure:
    """The figure of that name; raises UserError listing them all."""
    if name not in FIGURES:
        raise UserError(f"Unknown figure '{name}': choose one of {', '.join(FIGURES)}.")
    return FIGURES[name]


def make_spec(study: Study, name: str, options: dict[str, Any]) -> FigureSpec:
    """The spec of figure `name` from `options`; raises UserError saying which option is wrong and what is allowed.

    Without `site` it is the first that has a sparse autoencoder, without `part` the first part that was probed, without
    `name` the first patching result.
    """
    kind = find_figure(name).spec
    given = dict(options)
    if issubclass(kind, SaeSpec) and sae_sites(study):
        site = given.setdefault("site", sae_sites(study)[0])
        _refuse_damaged(study, f"sae-{site}")
        _check("sparse autoencoder for site", site, sae_sites(study))
    if issubclass(kind, PatchingNameSpec):
        known = patching_names(study)
        given["name"] = given.get("name") or (known[0] if known else "blocks")
        _refuse_damaged(study, f"patching-{given['name']}")
        if known:
            _check("patching result", given["name"], known)
    if kind is ProbesSpec and "part" not in given:
        given["part"] = probes_frame(load_result(study, "probes"))["part"].iloc[0]
    _check_names(study, name, given)
    return validated(kind, given, f"Figure '{name}' cannot be made with these options")


def _check_names(study: Study, name: str, given: dict[str, Any]) -> None:
    kind = find_figure(name).spec
    for option in given:
        if option not in kind.model_fields:
            known = ", ".join(kind.model_fields)
            raise UserError(f"Figure '{name}' has no option '{option}': its options are {known}.")
    if missing := [option for option in required(kind) if option not in given]:
        shown = example(study, kind, given)
        told = f", for example `{shown}`" if shown else ""
        raise UserError(f"Figure '{name}' needs {' and '.join(missing)}{told}.")


def _refuse_damaged(study: Study, name: str) -> None:
    fault = problem(study, name)
    if fault is not None:
        raise UserError(fault)


def _check(what: str, value: object, allowed: list[Any]) -> None:
    if value not in allowed:
        shown = ", ".join(map(str, allowed[:12])) + (" …" if len(allowed) > 12 else "")
        raise UserError(f"There is no {what} '{value}' in this study's results: they have {shown}.")
