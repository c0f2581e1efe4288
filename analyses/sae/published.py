"""Published sparse autoencoders as the workbench's own: converted, and run on a study as if trained there."""

import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict

from analyses.sae.features import feature_table
from analyses.sae.metrics import EXPLAINED_VARIANCE
from analyses.sae.rows import by_clip
from analyses.sae.run import KIND, SCHEMA_VERSION, final_figures, save_sae
from analyses.sae.topk import TopKConfig, TopKSAE
from analyses.sae.train import measure_scale
from cache.errors import UserError
from workbench.artefacts import PublishedSae
from workbench.studies.study import Study

CURVES = ("loss", "explained_variance", "l0", "dead_share")


class PublishedSaeSpec(BaseModel):
    """Which published autoencoder looks at which pass of which site; `sha256` is of its weights' file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    pass_name: str = "cond"
    source: str
    sha256: str


def to_topk(published: PublishedSae, pass_name: str = "cond") -> TopKSAE:
    """The same autoencoder as the workbench's TopK SAE, which keeps the k largest features of each row."""
    features, channels = published.decoder_weight.shape
    origin = {
        "hook_name": published.site,
        "pass_name": pass_name,
        "source": published.origin.source,
        "source_sha256": published.origin.sha256,
        "source_config": dict(published.origin.settings),
    }
    sae = TopKSAE(TopKConfig(d_in=channels, d_sae=features, k=published.k, metadata=origin))
    weights = {
        "W_enc": published.encoder_weight.T,
        "b_enc": published.encoder_bias,
        "W_dec": published.decoder_weight,
        "b_dec": published.decoder_bias,
    }
    sae.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    return sae


def convert_sae(published: PublishedSae, folder: Path) -> Path:
    """Write a published autoencoder as the workbench's folder (`cfg.json`, `sae_weights.safetensors`).

    Raises UserError when the folder holds something else already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists already: give a new or an empty folder.")
    to_topk(published).save(folder)
    return folder


def import_sae(
    study: Study, published: PublishedSae, pass_name: str = "cond", device: str = "cpu"
) -> xr.Dataset:
    """Put a published autoencoder at `sae/<site>/` of a study, and save and give the result "sae-<site>" with it.

    The result is that of `run_sae`, without training curves. The autoencoder has seen none of the study's clips, so
    the `final_` figures are of all of them; `final_loss` is in the scale that training here would have.

    Raises:
        UserError: the study lacks the site or pass, or its activations have another width than the autoencoder.
    """
    started = time.monotonic()
    site = published.site
    with study.making(f"sae-{site}"):
        cache = study.cache
        channels = cache.channels(site)
        cache.positions("pass", [pass_name])
        sae = to_topk(published, pass_name)
        if sae.config.d_in != channels:
            raise UserError(
                f"The autoencoder of {published.origin.source} reads {sae.config.d_in} channels, and {site} of "
                f"{study.path} has {channels}: it is of another model."
            )
        clips = study.clips["clip"].tolist()
        of_clips = partial(by_clip, cache, site, pass_name)
        scale = measure_scale(torch.from_numpy(acts).flatten(0, 1) for acts in of_clips(clips))
        sae.to(device)
        final = final_figures(sae, of_clips(clips), scale.factor)
        table = feature_table(sae, lambda: of_clips(clips), study.clips, cache.plan)
        # One point that says nothing: figures expect a curve.
        untrained = xr.Dataset({name: ("train_step", [np.nan]) for name in CURVES}, {"train_step": [0]})
        result = xr.merge([untrained, final, table], combine_attrs="drop")
        result.attrs = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "site": site,
            "pass": pass_name,
            "k": sae.config.k,
            "d_sae": sae.config.d_sae,
            "explained_variance_convention": EXPLAINED_VARIANCE,
            "held_out_clips": clips,
            "published": published.origin.source,
        }
        spec = PublishedSaeSpec(
            site=site, pass_name=pass_name, source=published.origin.source, sha256=published.origin.sha256
        )
        save_sae(study, sae, result, spec, time.monotonic() - started)
        return study.result(f"sae-{site}")
