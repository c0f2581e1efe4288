"""Steer by changing the activations of SAE features while the model runs, instead of adding their decoder rows."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Unpack

import numpy as np
import xarray as xr

from analyses.steering.capture import PairOptions, capture_of_pairs
from analyses.steering.closed_steps import check_open, used_saes
from analyses.steering.sae_features import SAEFeatures, ScoreName, saes_by_site
from analyses.steering.schedule import Schedule, scheduled
from analyses.steering.used_saes import UsedSAE
from analyses.steering.vector import PASS_MODES, PassMode, edited_places
from cache.errors import UserError
from cache.protocol import Pass
from workbench.engine.edits import Edit, Window, edit_features
from workbench.engine.operators import FeatureMode
from workbench.models.base import AudioDiffusionModel
from workbench.sae.base import SAE
from workbench.validation import must_be, validated


@dataclass(frozen=True, eq=False, kw_only=True)
class FeatureSteering:
    """The SAE features that respond to the positive value of a concept; made by `feature_steering`.

    Attributes:
        concept: the concept.
        positive: the value that the features respond to.
        negative: the values that they respond to less.
        features: by site, which features (dims pass, step, feature).
        edits: by site, an edit with its autoencoder.
        model: the model that they are valid for (its `describe()`).
        sigmas: the sigma of each step.
        saes: the autoencoders of the sites, with the steps at which they may not be used.
    """

    method: ClassVar[str] = "sae_activations"

    concept: str
    positive: str
    negative: str
    features: Mapping[str, xr.DataArray]
    edits: Mapping[str, Edit]
    model: Mapping[str, Any]
    sigmas: tuple[float, ...]
    saes: tuple[UsedSAE, ...]

    def at(
        self,
        strength: float,
        *,
        mode: FeatureMode = "post_activation",
        passes: PassMode = "cond_only",
        schedule: Schedule = "constant",
        over: Literal["steps", "sigmas"] = "steps",
        start_step: int = 0,
        ignore_gate: bool = False,
    ) -> tuple[Edit, ...]:
        """Return edits of the features' activations at each site and step; none for strength 0.

        Args:
            strength: what it does depends on the mode; see `workbench.engine.edits.edit_features`.
            mode: `post_activation`, `pre_activation` or `inject`.
            passes: which passes are edited, and in which pass the features were chosen (see `PASS_MODES`).
            schedule: how the strength changes over the steps (see `weights`).
            over: whether a named schedule follows the number of the step or its sigma.
            start_step: first step that is steered.
            ignore_gate: use autoencoders also at steps at which they may not be used.

        Raises:
            UserError: for an unknown mode or schedule, a strength that is not finite, a pass without features, a first
                step beyond the last, or a step at which an autoencoder may not be used.
        """
        how = validated(_How, {"mode": mode, "passes": passes}, "Invalid steering")
        edits = tuple(
            edit
            for (first, last), at_steps in scheduled(strength, self.sigmas, schedule, over, start_step)
            for site in self.features
            for acting, own in PASS_MODES[how.passes].items()
            for step in range(first, last + 1)
            for edit in self._edit(site, acting, own, step, at_steps, how.mode)
        )
        if not ignore_gate:
            check_open(self.saes, edited_places(edits), self.sigmas)
        return edits

    def _edit(
        self, site: str, acting: Pass, own: Pass, step: int, strength: float, mode: FeatureMode
    ) -> list[Edit]:
        """Return the edit at a site and step in the pass `acting`, of the features that `own` chose; none without."""
        chosen = self.features[site]
        if own not in chosen["pass"].values:
            raise UserError(
                f"There are no features of the {own} pass. Choose them with passes=('cond', 'null')."
            )
        features = tuple(np.flatnonzero(chosen.sel({"pass": own, "step": step}).values).tolist())
        if not features:
            return []
        base = self.edits[site]
        parameters = replace(base.parameters, features=features, strength=strength, mode=mode)  # type: ignore[call-arg]
        return [replace(base, parameters=parameters, window=Window(steps=(step, step), passes=(acting,)))]


@dataclass(frozen=True)
class _How:
    mode: FeatureMode
    passes: PassMode


def feature_steering(
    model: AudioDiffusionModel,
    concept: str,
    saes: Mapping[str, SAE],
    *,
    k: int,
    score: ScoreName = "tfidf",
    **options: Unpack[PairOptions],
) -> FeatureSteering:
    """Choose features as `sae_features` does, to change their activations while the model runs.

    Unlike a vector's, the effect depends on the activations of each token. Every steered call encodes the sites'
    outputs.

    Raises:
        UserError: as `sae_features`.
    """
    must_be(Mapping, saes, "Autoencoders must be given by site, such as {'tf4.cross_attn': sae}")
    method = SAEFeatures(saes=saes, k=k, score=score, ignore_gate=True)  # `at` says which steps are steered
    captured = capture_of_pairs(model, concept, list(saes), **options)
    given = saes_by_site(saes, model.block_names)
    fit = method.start(captured)
    made_on, sigmas = (model.name, model.weights_hash), tuple(model.sigmas(captured.settings))
    edits = {
        site: replace(edit_features(sae, 0, site, ignore_gate=True), made_on=made_on, made_at=sigmas)
        for site, sae in given.items()
    }
    captured.stream([method], [fit])
    coordinates = {"pass": list(captured.passes), "step": range(len(sigmas))}
    features = {
        site: xr.DataArray(chosen.plus, coordinates, ("pass", "step", "feature"), name=site)
        for site, chosen in fit.chosen().items()
    }
    return FeatureSteering(
        concept=concept,
        positive=captured.positive,
        negative=" or ".join(captured.negatives),
        features=features,
        edits=edits,
        model=model.describe(),
        sigmas=sigmas,
        saes=used_saes(given, sigmas),
    )
