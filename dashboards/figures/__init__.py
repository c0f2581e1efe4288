"""The figures, one module each, with spec, table of numbers, drawings for screen and paper, and caption."""

from shlex import quote
from typing import Any

from plotly.graph_objects import Figure as ScreenFigure

from cache.errors import UserError
from dashboards.figures import (
    alignment_preservation,
    dose_response,
    feature,
    feature_clip,
    ladder,
    leakage,
    method_ranking,
    patching_comparison,
    patching_map,
    patching_pairs,
    probe_descriptors,
    probe_folds,
    probe_maps,
    sae_quality,
    sae_training,
    steering_effects,
    vector_reliability,
)
from dashboards.figures.base import Figure
from dashboards.figures.specs import FigureSpec
from workbench.studies.study import Study
from workbench.validation import must_be, validated

FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        patching_map.FIGURE,
        patching_pairs.FIGURE,
        patching_comparison.FIGURE,
        probe_maps.FIGURE,
        probe_folds.FIGURE,
        probe_descriptors.FIGURE,
        sae_training.FIGURE,
        sae_quality.FIGURE,
        feature.FIGURE,
        feature_clip.FIGURE,
        dose_response.FIGURE,
        ladder.FIGURE,
        steering_effects.FIGURE,
        vector_reliability.FIGURE,
        alignment_preservation.FIGURE,
        method_ranking.FIGURE,
        leakage.FIGURE,
    )
}


def find_figure(name: str) -> Figure:
    """The figure with a given name.

    Raises:
        UserError: there is none; the message lists all figures.
    """
    must_be(str, name, f"A figure must be given by its name ({', '.join(FIGURES)})")
    if name not in FIGURES:
        raise UserError(f"Unknown figure '{name}': choose one of {', '.join(FIGURES)}.")
    return FIGURES[name]


def make_spec(study: Study, name: str, options: dict[str, Any]) -> FigureSpec:
    """Make the spec of figure `name` from its options.

    Raises:
        UserError: an option is wrong or missing; the message says which, and what is allowed.
    """
    kind = find_figure(name).spec
    given = kind.complete(study, options)
    for option in given:
        if option not in kind.model_fields:
            known = ", ".join(kind.model_fields)
            raise UserError(f"Figure '{name}' has no option '{option}': its options are {known}.")
    if missing := [option for option in kind.required() if option not in given]:
        example = kind.example(study, given)
        shown = " ".join(
            f"--option {quote(f'{option}={example[option]}')}" for option in missing if option in example
        )
        hint = f", for example `{shown}`" if shown else ""
        raise UserError(f"Figure '{name}' needs {' and '.join(missing)}{hint}.")
    return validated(kind, given, f"Figure '{name}' cannot be made with these options")


def screen_figure(study: Study, figure: str, /, **options: Any) -> ScreenFigure:
    """Draw a figure for the screen; `options` are the fields of its spec.

    Raises:
        UserError: unknown names or options, or missing results.
    """
    kind = find_figure(figure)
    spec = make_spec(study, figure, options)
    return kind.screen(study, spec, kind.table(study, spec))
