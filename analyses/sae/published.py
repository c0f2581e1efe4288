"""Convert published sparse autoencoders, and describe their features on a study as if trained there."""

import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from pydantic import BaseModel, ConfigDict

from analyses.sae.export import check_new
from analyses.sae.generated import clip_reader
from analyses.sae.names import PREFIX, chosen_name, load_sae, sae_names
from analyses.sae.rows import by_clip
from analyses.sae.run import SCHEMA_VERSION, describe, save_sae
from analyses.sae.scaling import measure
from analyses.sae.train import CURVES
from cache.errors import UserError
from workbench.artefacts.sae_folder import PublishedSAE
from workbench.provenance import content_hash
from workbench.sae.folder import save_folder
from workbench.sae.identity import weights_hash
from workbench.sae.transcoder import Transcoder
from workbench.studies.study import Study


class PublishedSAESpec(BaseModel):
    """A published autoencoder, and the site and pass to run it on.

    `sha256` is the hash of its weights file, and `settings` that of its configuration, which says what they mean.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    site: str
    pass_name: str = "cond"
    source: str
    sha256: str
    settings: str

    @classmethod
    def of(cls, published: PublishedSAE) -> "PublishedSAESpec":
        """Return that of an autoencoder that was read."""
        return cls(
            site=published.site,
            pass_name=published.pass_name,
            source=published.origin.source,
            sha256=published.origin.sha256,
            settings=content_hash(dict(published.origin.settings)),
        )


def convert_sae(published: PublishedSAE, folder: Path) -> Path:
    """Write a published autoencoder as the workbench's folder (`cfg.json`, `sae_weights.safetensors`).

    Raises:
        UserError: if the folder already contains something.
    """
    check_new(folder)
    save_folder(published.sae, folder)
    return folder


def import_sae(study: Study, published: PublishedSAE, device: str = "cpu", name: str = "") -> xr.Dataset:
    """Store a published autoencoder in `sae/<name>/` of a study; save and return the result "sae-<name>".

    Without a `name` it is called like its site, or if that one exists `<site>-2`, and so on.

    The result is like that of `run_sae`, without training curves. The autoencoder was not trained on the study's clips,
    so the `final_` metrics are computed on all of them; `final_loss` is scaled as if it had been trained on this study.

    Raises:
        UserError: if the study lacks the site or pass, or the width of its activations is not the
            autoencoder's, or it has another SAE of this name, or the autoencoder is a transcoder.
    """
    started = time.monotonic()
    site, pass_name, sae, origin = published.site, published.pass_name, published.sae, published.origin
    spec = PublishedSAESpec.of(published)
    if isinstance(sae, Transcoder):
        raise UserError(
            f"{origin.source} is a transcoder, which reconstructs another site than {site}: it cannot be added to a "
            "study. Convert it with `workbench sae import SOURCE --out FOLDER`."
        )
    name = chosen_name(study, spec, site, name)
    with study.making(PREFIX + name, can_be_named=True):
        cache = study.cache
        channels = cache.channels(site)
        cache.positions("pass", [pass_name])
        if sae.config.d_in != channels:
            raise UserError(
                f"The autoencoder of {origin.source} has {sae.config.d_in} channels, but {site} of {study.path} has "
                f"{channels}. It belongs to another model."
            )
        clips = study.clips["clip"].tolist()
        acts = by_clip(cache, site, pass_name, clips)
        of_all = torch.zeros(0, dtype=torch.int64)
        scale = measure(((torch.from_numpy(each).flatten(0, 1), of_all) for each in acts), "global", ())
        # A single NaN point because figures expect a curve.
        untrained = xr.Dataset(
            {
                **{name: ("train_step", [np.nan]) for name in CURVES},
                "mean_to_spread": ("scaled", scale.ratio),
            },
            {"train_step": [0], "scaled": [-1]},
            {"input_scale": scale.factor.double().numpy()},
        )
        result = describe(
            study, name, sae.to(device), untrained, clips, site, pass_name, clip_reader(study, None)
        )
        result = result.assign_attrs(published=origin.source)
        return save_sae(study, name, sae, result, spec, time.monotonic() - started)


def imported_name(study: Study, published: PublishedSAE) -> str:
    """Return the name of the study's autoencoder with these weights, on the same site and pass; "" if it has none.

    One whose features were described before the study was extended does not count.
    """
    wanted = weights_hash(published.sae)
    for name in sae_names(study, published.site):
        with suppress(UserError):
            made = study.result_attributes(PREFIX + name)
            is_current = study.made(made) and made["schema_version"] == SCHEMA_VERSION
            if (
                is_current
                and made["pass"] == published.pass_name
                and weights_hash(load_sae(study, name)) == wanted
            ):
                return name
    return ""
