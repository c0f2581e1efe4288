"""Directions as sums of the decoder rows of SAE features that respond to a concept (TADA, arXiv 2602.11910, Eq. 13)."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, Unpack

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field

from analyses.sae.feature_scores import SCORES, Responses, most_specific
from analyses.steering.capture import GroupSums, Method, PairCapture, PairOptions, PairValues, fit
from analyses.steering.closed_steps import check_open, used_saes
from analyses.steering.reliability import REFITS, reliability_of_refits
from analyses.steering.vector import Vector
from cache.errors import UserError
from workbench.engine.sites import Site, numbered_site
from workbench.models.base import AudioDiffusionModel
from workbench.sae.base import SAE
from workbench.sae.transcoder import Transcoder
from workbench.tensor_files import digests
from workbench.validation import must_be

UNIT = "the sum of the decoder rows of the chosen features"
AnySAE = TypeVar("AnySAE", bound=SAE)
ScoreName = Literal["tfidf", "diff", "ratio", "cohens_d", "mean_pos", "logistic"]


class SAEFeatures(Method):
    """The decoder rows of the `k` features of each site, pass and step that are most specific to the positive prompts.

    `saes` are by site; sites without one get no direction. The `score` says how specific a feature is (see
    `analyses.sae.feature_scores`); features with a score of 0 or less are left out. If `contrastive`, the decoder
    rows of the `k` features most specific to the negative prompts are subtracted. An autoencoder must be good enough at
    every step (see `workbench.sae.gate`), unless `ignore_gate`.
    """

    saes: Mapping[str, SAE]
    k: int = Field(ge=1, description="the number of features of each site")
    score: ScoreName = "tfidf"
    contrastive: bool = False
    ignore_gate: bool = False

    @property
    def identity(self) -> dict[str, Any]:
        """Its options, and hashes of the autoencoders."""
        options = self.model_dump(mode="json", exclude={"saes"})
        return {
            "method": "SAEFeatures",
            **options,
            "saes": {site: _hashes(sae) for site, sae in self.saes.items()},
        }

    def start(self, captured: PairCapture) -> "FeatureFit":
        """Start a fit; raise UserError if no site has an autoencoder, or one does not fit or may not be used."""
        given = saes_by_site(self.saes, captured.model.block_names)
        every = captured.capture.sites
        sites = tuple(site for site in every if str(site) in given)
        if not sites:
            raise UserError(
                f"There is no autoencoder for {' or '.join(map(str, every))}, only for {', '.join(given) or 'no site'}."
            )
        sigmas = captured.model.sigmas(captured.settings)
        for site in sites:
            check_sae(given[str(site)], site, captured.model, self.k, len(sigmas))
        if not self.ignore_gate:
            used = used_saes({str(site): given[str(site)] for site in sites}, sigmas)
            check_open(used, [(str(site), step) for site in sites for step in range(len(sigmas))], sigmas)
        of_sites = {str(site): deepcopy(given[str(site)]).to(captured.model.device) for site in sites}
        return FeatureFit(self, of_sites, replace(captured, capture=replace(captured.capture, sites=sites)))


def sae_features(
    model: AudioDiffusionModel,
    concept: str,
    saes: Mapping[str, SAE],
    *,
    k: int,
    score: ScoreName = "tfidf",
    contrastive: bool = False,
    ignore_gate: bool = False,
    **options: Unpack[PairOptions],
) -> Vector:
    """Compute a direction as a sum of decoder rows at each site of `saes` (see `SAEFeatures`); options as for `caa`.

    Every chosen feature has the weight 1. A strength of 1 adds the decoder rows, whatever the activations of the
    features; no autoencoder is needed to steer, and the parts that it cannot reconstruct are kept.

    Raises:
        UserError: as `caa`; or if an autoencoder does not fit its site, has fewer than `k` features, or may not be used
            at a step and `ignore_gate` is not given.
    """
    must_be(Mapping, saes, "Autoencoders must be given by site, such as {'tf4.cross_attn': sae}")
    method = SAEFeatures(saes=saes, k=k, score=score, contrastive=contrastive, ignore_gate=ignore_gate)
    (vector,) = fit(model, concept, list(saes), [method], **options)
    return vector


@dataclass(frozen=True)
class ChosenFeatures:
    """The features of a site that are added and those that are subtracted, by pass and step."""

    plus: Bool[np.ndarray, "pass step feature"]
    minus: Bool[np.ndarray, "pass step feature"]

    def direction(self, sae: SAE) -> Float[np.ndarray, "pass step channel"]:
        """Return the sum of the decoder rows."""
        rows = sae.W_dec.detach().double().cpu().numpy()
        return (self.plus.astype(float) - self.minus) @ rows


class FeatureFit:
    """The fit of `SAEFeatures`."""

    def __init__(self, method: SAEFeatures, saes: Mapping[str, SAE], captured: PairCapture) -> None:
        self._method = method
        self._saes = saes
        self._captured = captured
        # A logistic regression needs every clip, and would take too long for many halvings.
        self._is_logistic = method.score == "logistic"
        n_groups = captured.n_pairs if self._is_logistic else captured.n_groups
        self._sums, self._squares = (
            [GroupSums(captured, n_groups) for _ in ("positive", "negative")] for _ in ("sums", "squares")
        )
        self._n_groups = n_groups
        self._tokens: dict[str, int] = {}

    @property
    def sums(self) -> list[GroupSums]:
        return [*self._sums, *self._squares]

    def add(self, values: PairValues) -> None:
        site = str(values.site)
        if site not in self._saes:
            return
        self._tokens[site] = values.clean.shape[2]
        sae = self._saes[site].at(values.step)
        for outputs, sums, squares in zip(
            (values.clean, values.corrupt), self._sums, self._squares, strict=True
        ):
            acts = activations(sae, outputs)
            sums.add(values, acts.sum(dim=2))
            squares.add(values, acts.square().sum(dim=2))

    def chosen(self, groups: Bool[np.ndarray, " group"] | None = None) -> dict[str, ChosenFeatures]:
        """Return the features that some groups of pairs, by default all, choose at each site."""
        every = np.ones(self._n_groups, dtype=bool) if groups is None else groups
        sizes = np.bincount(np.arange(self._captured.n_pairs) % self._n_groups)
        sums, squares = ([each.arrays for each in both] for both in (self._sums, self._squares))
        found = {}
        for site, tokens in self._tokens.items():
            n = float(sizes[every].sum() * tokens)
            positive, negative = (
                Responses(of_sums[site][every], of_squares[site][every], n)
                for of_sums, of_squares in zip(sums, squares, strict=True)
            )
            found[site] = chosen_features(
                SCORES[self._method.score](positive, negative),
                SCORES[self._method.score](negative, positive) if self._method.contrastive else None,
                self._method.k,
            )
        return found

    def vector(self) -> Vector:
        def directions(groups: Bool[np.ndarray, " group"]) -> dict[str, np.ndarray]:
            return {site: chosen.direction(self._saes[site]) for site, chosen in self.chosen(groups).items()}

        captured = self._captured
        every = np.ones(self._n_groups, dtype=bool)
        draws = 0 if self._is_logistic else REFITS
        reliable = reliability_of_refits(directions, self._n_groups, captured.passes, captured.n_pairs, draws)
        vector = captured.vector("sae_features", UNIT, directions(every), reliable)
        return replace(vector, saes=used_saes(self._saes, vector.sigmas))


def _hashes(sae: SAE) -> dict[str, Any]:
    """Return what identifies an autoencoder: its configuration, and the hashes of its weights."""
    weights = {name: value.cpu().double().numpy() for name, value in sae.state_dict().items()}
    return {"config": sae.config.model_dump(mode="json"), "weights": digests(weights)}


def activations(
    sae: SAE, outputs: Float[torch.Tensor, "*rows channel"]
) -> Float[torch.Tensor, "*rows feature"]:
    """Return the features' activations in float64, without the choice of the largest or of those above thresholds.

    That is relu(pre-activations), from which TADA chooses features; of a gated SAE, what its gates let through.
    """
    with torch.no_grad():
        given = outputs.to(sae.W_enc)
        return (sae.pre_activations(given).relu() if sae.SELECTS else sae.encode(given)).double()


def chosen_features(
    scores: Float[np.ndarray, "pass step feature"],
    negative_scores: Float[np.ndarray, "pass step feature"] | None,
    k: int,
) -> ChosenFeatures:
    """Choose the `k` features with the largest scores, and those to subtract, if there are scores for them."""
    plus = most_specific(scores, k)
    minus = np.zeros_like(plus) if negative_scores is None else most_specific(negative_scores, k)
    return ChosenFeatures(plus, minus)


def saes_by_site(saes: Mapping[str, AnySAE], block_names: Sequence[str]) -> dict[str, AnySAE]:
    """Return the autoencoders by the numbered name of their site; raise UserError for what is not a site."""
    return {str(Site.parse(numbered_site(site, block_names))): sae for site, sae in saes.items()}


def check_sae(sae: SAE, site: Site, model: AudioDiffusionModel, k: int, steps: int) -> None:
    """Raise UserError for an autoencoder that does not fit a site.

    That is one of another width, with fewer than `k` features, that cannot be used at one of the steps of a run, or
    whose features are of another site than their decoder rows (a transcoder).
    """
    if isinstance(sae, Transcoder):
        raise UserError(
            f"The features of a transcoder are not those of one site, and cannot steer {site}. Use an autoencoder of "
            "this site."
        )
    for step in range(steps):
        sae.config.check_step(step)
    channels = model.channels(site)
    if sae.config.d_in != channels:
        raise UserError(
            f"The autoencoder must have {channels} channels, those of {site}; it has {sae.config.d_in}."
        )
    if k > sae.config.d_sae:
        raise UserError(
            f"k must be at most {sae.config.d_sae}, the features of the autoencoder of {site}; got {k}."
        )
