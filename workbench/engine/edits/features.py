"""Edits with a sparse autoencoder of sites' outputs: of its features, or with its reconstruction."""

from collections.abc import Sequence
from typing import Any, Unpack

from cache.errors import UserError
from workbench.engine.edits.edit import Edit, Source, as_run, listed, make_edit
from workbench.engine.edits.window import WindowOptions
from workbench.engine.operators import FeatureMode
from workbench.engine.tensors import HashedTensor
from workbench.sae.base import SAE
from workbench.sae.gate import check_steps
from workbench.sae.topk import TopKSAE
from workbench.validation import must_be


def edit_features(
    sae: SAE,
    features: int | Sequence[int],
    sites: str | Sequence[str],
    strength: float = 1.0,
    *,
    mode: FeatureMode = "post_topk",
    ignore_gate: bool = False,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Edit features of a TopK SAE at every token of the sites' outputs, and keep the SAE's reconstruction error.

    With features z and z' before and after the edit, z' W_dec − z W_dec is added to the output. With a strength s:

    - `post_topk` multiplies the activations of the features by 1 + s; it changes only those that are active.
    - `pre_topk` multiplies them before the k largest are chosen, by 1 + s but not below 0: features may become active,
      and others then do not.
    - `inject` sets the activations to s, also of features that are not active.

    Strength 0 always leaves the run as it is; -1 turns features off, except with `inject`.

    The SAE must be good enough at the steps of the window, those of the study that it was measured on (see
    `workbench.sae.gate`), or `ignore_gate` be given.

    Raises:
        UserError: if the autoencoder is of another kind or lacks a feature, the strength is not finite, or the
            autoencoder may not be used at a step.
    """
    changed: dict[str, Any] = {"features": listed(features), "strength": strength, "mode": mode}
    edit = make_edit("edit_features", sites, [], window, **_autoencoder(sae), **changed)
    if not ignore_gate:
        check_steps(sae, edit.window.includes)
    return edit


def patch_reconstruction(
    sae: SAE, sites: str | Sequence[str], source: Source, **window: Unpack[WindowOptions]
) -> Edit:
    """Patch the sites' outputs with the reconstruction of the source's by a TopK SAE.

    What a patch of the output restores and this one does not is lost by the SAE.

    Raises:
        UserError: if the autoencoder is of another kind.
    """
    return make_edit("patch_reconstruction", sites, as_run(source), window, **_autoencoder(sae))


def _autoencoder(sae: Any) -> dict[str, Any]:
    """Return the parameters of edits with an SAE; raise UserError unless it is a TopK one for all steps alike."""
    must_be(TopKSAE, sae, "An autoencoder must be a TopK one, such as that of study.train_sae or read_sae")
    if sae.config.scaled_steps:
        raise UserError(
            "The autoencoder's inputs were scaled per step: make an edit of `sae.at(step)` for each step."
        )
    return {**{name: HashedTensor.of(value) for name, value in sae.state_dict().items()}, "k": sae.config.k}
