"""A study's sparse autoencoders: train one on the cache, describe its features, and keep both in the study."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from pydantic import BaseModel

from analyses.sae.codes import Axes, encode_clip, keep_codes, new_codes, write_codes
from analyses.sae.features import feature_table
from analyses.sae.metrics import EXPLAINED_VARIANCE
from analyses.sae.names import FOLDER, PREFIX, chosen_name, has_sae, sae_folder
from analyses.sae.quality import gate, quality
from analyses.sae.rows import by_clip, split_by_prompt
from analyses.sae.train import TrainSpec, train_sae, train_spec
from cache.opening import remove_file, remove_folder
from workbench.engine.sites import numbered_site
from workbench.sae.base import SAE
from workbench.sae.folder import CONFIG_FILE, save_folder
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

        result = describe(study, name, sae, curves, held_out, spec.site, spec.pass_name)
        return save_sae(study, name, sae, result, spec, time.monotonic() - started)


def describe(
    study: Study, name: str, sae: SAE, curves: xr.Dataset, held_out: list[int], site: str, pass_name: str
) -> xr.Dataset:
    """Return the result of an SAE on a study: its curves, its metrics on held-out clips, its features on all clips.

    The final loss is scaled by the curves' attribute `input_scale`. The codes of all clips are written for `save_sae`.
    """
    cache, clips = study.cache, study.clips
    of_clips = partial(by_clip, cache, site, pass_name)
    sigmas = dict(zip(cache.plan.steps, cache.plan.sigmas, strict=True))
    measured = quality(sae, of_clips(held_out), sigmas, curves.attrs["input_scale"])
    table = _describe_features(study, name, sae, of_clips(clips["clip"].tolist()))
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


def _describe_features(study: Study, name: str, sae: SAE, clip_acts: Iterator[np.ndarray]) -> xr.Dataset:
    """Encode every clip once, write its codes, and return the table of features that is computed from them."""
    axes, clips = Axes.of_plan(study.cache.plan), study.clips
    folder = new_codes(Path(FOLDER, name))
    remove_folder(study.path, folder)  # of a process that was killed
    encoded = (encode_clip(sae, acts, axes.steps) for acts in clip_acts)
    codes = write_codes(study.path, folder, clips["clip"].tolist(), encoded, axes)
    return feature_table(codes, axes, sae.W_dec.numpy(force=True), clips)


def save_sae(
    study: Study, name: str, sae: SAE, result: xr.Dataset, spec: BaseModel, seconds: float
) -> xr.Dataset:
    """Save an SAE and its result, and return the result; an SAE is never stored beside another SAE's result."""
    study.remove_result(PREFIX + name)
    set_gate(sae, gate(result))
    # The configuration exists only while codes and weights are those of one SAE.
    remove_file(study.path, Path(FOLDER, name, CONFIG_FILE))
    keep_codes(study.path, Path(FOLDER, name))
    save_folder(sae.cpu(), sae_folder(study, name), study.path)
    return study.save_result(PREFIX + name, result.assign_attrs(name=name), spec, seconds)


def trained_name(study: Study, spec: TrainSpec, name: str = "") -> str:
    """Return the name of the study's SAE trained with exactly this spec (of the given name, if any), "" without one.

    Raises:
        UserError: if the study has another SAE of the given name.
    """
    found = chosen_name(study, spec, spec.site, name)
    return found if has_sae(study, found) and study.is_done(PREFIX + found, spec) else ""
