"""A study's sparse autoencoders: train one on the cache, describe its features, follow a feature through a clip."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from pydantic import BaseModel

from analyses.sae.features import encoded, feature_table
from analyses.sae.metrics import EXPLAINED_VARIANCE
from analyses.sae.names import PREFIX, chosen_name, has_sae, load_sae, sae_folder
from analyses.sae.quality import gate, quality
from analyses.sae.rows import by_clip, split_by_prompt
from analyses.sae.train import TrainSpec, train_sae, train_spec
from cache.errors import UserError
from workbench.engine.sites import numbered_site
from workbench.sae.base import SAE
from workbench.sae.folder import save_folder
from workbench.sae.gate import set_gate
from workbench.studies.study import Study

KIND = "sae"
SCHEMA_VERSION = 5


def asked_training(study: Study, site: str, **options: Any) -> TrainSpec:
    """Return the spec for training on a study's site, whose block may be given by number or by the model's own name.

    `options` are those of `train_spec`.

    Raises:
        UserError: if an option is unknown or its value is not allowed.
    """
    return train_spec(numbered_site(site, study.block_names), **options)


def run_sae(
    study: Study,
    spec: TrainSpec,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    name: str = "",
) -> xr.Dataset:
    """Train an SAE on a site of a study, save it in `sae/<name>/`, and save and return the result "sae-<name>".

    Without a `name` it is called like its site, or if that one exists `<site>-2`, and so on.

    Held-out prompts (`held_out_fraction`) are not used in training; the `final_` metrics are computed on them
    (formulas: `analyses.sae.metrics`; `final_loss` is the squared error per channel, scaled as in training). The
    feature table (`analyses.sae.features`) covers all clips. `progress(done, total)` is called with training steps.

    Raises:
        UserError: if the study lacks the site or pass, has another SAE of this name, has fewer than two prompts, its
            rows are all equal, or another process is training an SAE of this name.
    """
    started = time.monotonic()
    name = chosen_name(study, spec, spec.site, name)
    with study.making(PREFIX + name):
        cache = study.cache
        cache.channels(spec.site)
        cache.positions("pass", [spec.pass_name])
        training, held_out = split_by_prompt(study.clips, spec.held_out_fraction, spec.seed)
        rows = cache.shuffled_rows(
            spec.site, spec.batch_size, spec.seed, clips=training, passes=[spec.pass_name], device=device
        )
        sae, curves = train_sae(rows, spec, device, progress)
        sae.to(device)

        result = describe(study, sae, curves, held_out, spec.site, spec.pass_name)
        return save_sae(study, name, sae, result, spec, time.monotonic() - started)


def describe(
    study: Study, sae: SAE, curves: xr.Dataset, held_out: list[int], site: str, pass_name: str
) -> xr.Dataset:
    """Return the result of an SAE on a study: its curves, its metrics on held-out clips, its features on all clips.

    The final loss is scaled by the curves' attribute `input_scale`.
    """
    cache, clips = study.cache, study.clips
    of_clips = partial(by_clip, cache, site, pass_name)
    sigmas = dict(zip(cache.plan.steps, cache.plan.sigmas, strict=True))
    measured = quality(sae, of_clips(held_out), sigmas, curves.attrs["input_scale"])
    table = feature_table(sae, lambda: of_clips(clips["clip"].tolist()), clips, cache.plan)
    result = xr.merge([curves, measured, table], combine_attrs="drop")
    return result.assign_attrs(
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        site=site,
        architecture=sae.config.architecture,
        **sae.config.settings,
        d_sae=sae.config.d_sae,
        explained_variance_convention=EXPLAINED_VARIANCE,
        held_out_clips=held_out,
        **{"pass": pass_name},
    )


def save_sae(
    study: Study, name: str, sae: SAE, result: xr.Dataset, spec: BaseModel, seconds: float
) -> xr.Dataset:
    """Save an SAE and its result, and return the result; an SAE is never stored beside another SAE's result."""
    study.remove_result(PREFIX + name)
    set_gate(sae, gate(result))
    save_folder(sae.cpu(), sae_folder(study, name), study.path)
    return study.save_result(PREFIX + name, result.assign_attrs(name=name), spec, seconds)


def trained_name(study: Study, spec: TrainSpec, name: str = "") -> str:
    """Return the name of the study's SAE trained with exactly this spec (of the given name, if any), "" without one.

    Raises:
        UserError: if the study has another SAE of the given name.
    """
    found = chosen_name(study, spec, spec.site, name)
    return found if has_sae(study, found) and study.is_done(PREFIX + found, spec) else ""


def feature_trace(study: Study, name: str, feature: int, clip: int) -> xr.DataArray:
    """Compute the activations of one feature over one clip, dims (step, token), coords step, sigma and seconds.

    They are computed from the cached activations of the pass that the SAE was trained on.

    Raises:
        UserError: if the study has no such SAE, or there is no such feature or clip.
    """
    sae = load_sae(study, name)
    if not 0 <= feature < sae.config.d_sae:
        raise UserError(
            f"The sparse autoencoder '{name}' has features 0 to {sae.config.d_sae - 1}; got {feature}."
        )
    cache = study.cache
    site, pass_name = (sae.config.metadata.get(key) for key in ("hook_name", "pass_name"))
    if not (isinstance(site, str) and isinstance(pass_name, str) and cache.channels(site) == sae.config.d_in):
        raise UserError(
            f"The sparse autoencoder '{name}' in {study.path} was not trained on these activations. Train it again."
        )
    acts = next(encoded(sae, by_clip(cache, site, pass_name, [clip])))
    return xr.DataArray(
        acts[..., feature].numpy(),
        dims=("step", "token"),
        coords={
            "step": list(cache.plan.steps),
            "sigma": ("step", list(cache.plan.sigmas)),
            "seconds": ("token", np.arange(cache.plan.tokens) * cache.plan.token_seconds),
        },
        name=f"{name} feature {feature}",
    )
