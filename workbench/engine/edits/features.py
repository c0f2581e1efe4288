"""Edits with a sparse autoencoder of sites' outputs: of its features, or with its reconstruction."""

from collections.abc import Sequence
from typing import Unpack

from workbench.engine.autoencoders import HashedSAE
from workbench.engine.edits.edit import Edit, Source, as_run, listed, make_edit
from workbench.engine.edits.window import WindowOptions
from workbench.engine.operators import FeatureMode
from workbench.sae.base import SAE
from workbench.sae.gate import check_steps


def edit_features(
    sae: SAE,
    features: int | Sequence[int],
    sites: str | Sequence[str],
    strength: float = 1.0,
    *,
    mode: FeatureMode = "post_activation",
    ignore_gate: bool = False,
    **window: Unpack[WindowOptions],
) -> Edit:
    """Edit features of an SAE at every token of the sites' outputs, and keep the SAE's reconstruction error.

    With features z and z' before and after the edit, z' W_dec − z W_dec is added to the output. With a strength s:

    - `post_activation` multiplies the activations of the features by 1 + s; it changes only those that are active.
    - `pre_activation` multiplies the pre-activations, by 1 + s but not below 0, before the k largest, or those above
      their thresholds, are chosen: features may become active, and with TopK others then do not.
    - `inject` sets the activations to s, also of features that are not active.

    Strength 0 always leaves the run as it is; -1 turns features off, except with `inject`.

    An SAE whose inputs were scaled per step is used at each step as `sae.at(step)`. A transcoder's features are those
    of the site that it reads in the same call, and the sites are those that it reconstructs.

    The SAE must be good enough at the steps of the window, those of the study that it was measured on (see
    `workbench.sae.gate`), or `ignore_gate` be given.

    Raises:
        UserError: if the autoencoder lacks a feature, or its kind the mode; the strength is not finite; or the
            autoencoder may not be used at a step.
    """
    edit = make_edit(
        "edit_features",
        sites,
        [],
        window,
        sae=HashedSAE.of(sae),
        features=listed(features),
        strength=strength,
        mode=mode,
    )
    if not ignore_gate:
        check_steps(sae, edit.window.includes)
    return edit


def patch_reconstruction(
    sae: SAE, sites: str | Sequence[str], source: Source, **window: Unpack[WindowOptions]
) -> Edit:
    """Patch the sites' outputs with the reconstruction of the source's by an SAE.

    What a patch of the output restores and this one does not is lost by the SAE. A transcoder reconstructs them from
    the source's output at the site that it reads.

    Raises:
        UserError: if it is not an SAE, or a transcoder that does not say which site it reads.
    """
    return make_edit("patch_reconstruction", sites, as_run(source), window, sae=HashedSAE.of(sae))
