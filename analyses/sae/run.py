"""A study's sparse autoencoders: train one on the cache, describe its features, and keep both in the study."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from pydantic import BaseModel

from analyses.sae.codes import CODES, Axes, are_whole, keep_codes, new_codes, write_codes
from analyses.sae.distributed import of_first, process_group
from analyses.sae.encoding import encode_clip
from analyses.sae.features import feature_table
from analyses.sae.generated import ClipReader, GeneratedClips, clip_reader, generated_clips
from analyses.sae.metrics import EXPLAINED_VARIANCE
from analyses.sae.names import PREFIX, chosen_names, has_sae, load_sae, sae_folder
from analyses.sae.quality import gate, quality
from analyses.sae.rows import split_by_prompt
from analyses.sae.spec import FOLDER, MADE_WITH
from analyses.sae.stream import ResumableRows
from analyses.sae.train import TrainSpec, train_spec
from analyses.sae.training import Training, check_together
from analyses.sae.training_state import TrainingState
from cache.errors import UserError
from cache.opening import remove_file, remove_folder
from workbench.engine.sites import Site, numbered_site
from workbench.sae.base import SAE
from workbench.sae.folder import CONFIG_FILE, save_folder
from workbench.sae.gate import gate_of, set_gate
from workbench.studies.study import Study

_log = logging.getLogger(__name__)

Each = TypeVar("Each")

KIND = "sae"
SCHEMA_VERSION = 5


GRID = ("pass_name", "expansion", "k", "seed")
"""Options of which several values can be asked for, each with each."""


def asked_trainings(
    study: Study, sites: str | Sequence[str], architecture: str = "topk", **options: Any
) -> list[TrainSpec]:
    """Return the specs for training on a study's sites, whose blocks may be given by number or the model's own name.

    `options` are those of `train_spec`; of each in `GRID` there may be several, in a list: every one is combined with
    every other.

    Raises:
        UserError: if an option is unknown or its value is not allowed.
    """
    named = [
        numbered_site(site, study.block_names) for site in ([sites] if isinstance(sites, str) else sites)
    ]
    if options.get("target_site"):
        options["target_site"] = numbered_site(options["target_site"], study.block_names)
    grid = {name: _several(options.pop(name)) for name in GRID if name in options}
    return [
        train_spec(site, architecture, **dict(zip(grid, values, strict=True)), **options)
        for site, *values in product(named, *grid.values())
    ]


def _several(given: Any) -> list[Any]:
    return list(given) if isinstance(given, list | tuple) else [given]


def run_sae(
    study: Study,
    spec: TrainSpec,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    name: str = "",
) -> xr.Dataset:
    """Train one SAE as `run_saes` does, and return its result."""
    (result,) = run_saes(study, [spec], device, progress, name)
    return result


def run_saes(
    study: Study,
    specs: Sequence[TrainSpec],
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
    name: str = "",
    note: Callable[[str], None] = _log.warning,
    job: tuple[int, int] = (1, 1),
) -> list[xr.Dataset]:
    """Train SAEs in one pass over the activations, save each in `sae/<name>/` and its result as "sae-<name>".

    The activations are cached ones, or, with the source "generation", those of clips that the study's model generates
    meanwhile (`analyses.sae.generated`).

    Without a `name` each is called like its site, or if that one exists `<site>-2`, and so on; with one, several are
    `<name>`, `<name>-2`, and so on. Those that the study has are not trained again. A training that was killed goes on
    from its state, which the study keeps (`analyses.sae.training_state`), to the same weights.

    Held-out prompts (`held_out_fraction`) are not used in training; the `final_` metrics are computed on them
    (formulas: `analyses.sae.metrics`; `final_loss` is the squared error per channel, scaled as in training). The
    feature table (`analyses.sae.features`) covers all clips.

    Started by `torchrun`, several processes share every batch (`analyses.sae.distributed`); only the first one writes.

    Args:
        study: the study.
        specs: their specs, which share `analyses.sae.training.TOGETHER`.
        device: torch device.
        progress: called as `progress(done, total)` with training steps.
        name: the name to keep them by.
        note: called with a sentence on how much will be generated, on how far the inputs' mean is from 0, and if a kept
            state cannot be used.
        job: (k, n) trains only the k-th of n parts of the SAEs, so that several processes can share the work, each
            with SAEs of its own, which are named and trained as in one process.

    Returns:
        The results, in the order of the specs; of a process that is not the first, none.

    Raises:
        UserError: if the study lacks a site or pass, has another SAE of this name, has fewer than two prompts, rows are
            all equal, the specs cannot be trained together, there is no such job, or another process trains one of
            them.
    """
    started = time.monotonic()
    check_together(specs)
    for spec in specs:
        check_spec(study, spec)
    with process_group(device) as ranks, ExitStack() as stack:
        names = of_job(of_first(chosen_names(study, specs, name), ranks), job)
        specs = of_job(specs, job)
        if ranks.is_first:
            for each in names:
                stack.enter_context(study.making(PREFIX + each, can_be_named=True))
        is_missing = [not _is_trained(study, *each) for each in zip(specs, names, strict=True)]
        missing = [spec for spec, lacks in zip(specs, of_first(is_missing, ranks), strict=True) if lacks]
        state = TrainingState(study, specs, note)
        generated = generated_clips(study, specs, device, note) if missing else None
        rows, held_out = training_rows(study, specs[0], device, generated)
        training = Training(specs, rows, study.cache.plan.steps, state, device, ranks, note)
        trained = training.run(missing, progress) if missing else []
        if not ranks.is_first:
            return []
        made = {}
        for spec, sae, curves in trained:
            own = names[specs.index(spec)]
            read = clip_reader(study, generated)
            result = describe(study, own, sae.to(device), curves, held_out, spec.site, spec.pass_name, read)
            made[own] = save_sae(study, own, sae, result, spec, (time.monotonic() - started) / len(trained))
        state.remove()
        return [made[each] if each in made else study.result(PREFIX + each) for each in names]


def check_spec(study: Study, spec: TrainSpec) -> None:
    """Raise UserError for a spec that does not fit the study or itself."""
    if spec.source == "cache":
        for site in spec.sites:
            study.cache.channels(site)
        study.cache.positions("pass", [spec.pass_name])
    is_transcoder = "d_out" in type(spec.objective).model_fields
    if is_transcoder != bool(spec.target_site):
        raise UserError(
            "A transcoder needs a target site, and nothing else has one: use --architecture topk_transcoder with "
            "--target-site."
        )
    if spec.target_site and not Site.parse(spec.site).leads_to(Site.parse(spec.target_site)):
        raise UserError(
            f"A transcoder reconstructs a site that is computed after the one that it reads, along the same tokens; "
            f"{spec.target_site} is not computed from {spec.site}. Give another --target-site."
        )
    if spec.target_site and spec.input_scale != "global":
        raise UserError("The inputs of a transcoder are scaled globally: use --input-scale global.")


def training_rows(
    study: Study, spec: TrainSpec, device: str, generated: GeneratedClips | None = None
) -> tuple[Callable[[str, str], ResumableRows], list[int]]:
    """Return what gives the training rows of a site and pass, cached or generated ones, and the held-out clips."""
    training, held_out = split_by_prompt(study.clips, spec.held_out_fraction, spec.data_seed)

    def rows(site: str, pass_name: str) -> ResumableRows:
        if generated:
            return generated.rows(site, pass_name, spec.batch_size)
        return study.cache.shuffled_rows(
            site, spec.batch_size, spec.data_seed, clips=training, passes=[pass_name], device=device
        )

    return rows, held_out


def describe(
    study: Study,
    name: str,
    sae: SAE,
    curves: xr.Dataset,
    held_out: list[int],
    site: str,
    pass_name: str,
    read: ClipReader,
) -> xr.Dataset:
    """Return the result of an SAE on a study: its curves, its metrics on held-out clips, its features on all clips.

    The final loss is scaled by the curves' attribute `input_scale`. The codes of all clips are written for `save_sae`.
    """
    plan, clips = study.cache.plan, study.clips
    of_clips = partial(read, site, pass_name)
    sigmas = dict(zip(plan.steps, plan.sigmas, strict=True))
    target_site = sae.config.metadata.get("hook_name_out")
    targets = read(target_site, pass_name, held_out) if isinstance(target_site, str) else None
    measured = quality(sae, of_clips(held_out), sigmas, curves.attrs["input_scale"], targets)
    table = _describe_features(study, name, sae, of_clips(clips["clip"].tolist()))
    result = xr.merge([curves, measured, table], combine_attrs="drop")
    return result.assign_attrs(
        kind=KIND,
        schema_version=SCHEMA_VERSION,
        site=site,
        architecture=sae.config.architecture,
        trained_as=sae.config.trained_as,
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
    sae.set_metadata(MADE_WITH, spec.model_dump(mode="json"))
    # The configuration exists only while codes and weights are those of one SAE.
    remove_file(study.path, Path(FOLDER, name, CONFIG_FILE))
    keep_codes(study.path, Path(FOLDER, name))
    save_folder(sae.cpu(), sae_folder(study, name), study.path)
    return study.save_result(PREFIX + name, result.assign_attrs(name=name), spec, seconds)


def of_job(each: Sequence[Each], job: tuple[int, int]) -> Sequence[Each]:
    """Return the entries of job k of n, for SAEs or their names; raise UserError if there is no such job."""
    number, jobs = job
    if not 1 <= number <= jobs <= len(each):
        raise UserError(
            f"A job must be k/n with 1 ≤ k ≤ n ≤ {len(each)}, the number of autoencoders; got {number}/{jobs}."
        )
    return each[len(each) * (number - 1) // jobs : len(each) * number // jobs]


def trained_names(
    study: Study, specs: Sequence[TrainSpec], name: str = "", job: tuple[int, int] = (1, 1)
) -> list[str]:
    """Return the names of the study's SAEs trained with exactly these specs of a job, "" for each that it lacks.

    Raises:
        UserError: if the study has another SAE of the given name, or there is no such job.
    """
    named = list(zip(specs, chosen_names(study, specs, name), strict=True))
    return [each if _is_trained(study, spec, each) else "" for spec, each in of_job(named, job)]


def _is_trained(study: Study, spec: TrainSpec, name: str) -> bool:
    """Whether an SAE is there, whole, with a result of this spec: what is damaged is made again."""
    if not (has_sae(study, name) and study.is_done(PREFIX + name, spec)):
        return False
    with suppress(UserError):
        gate_of(load_sae(study, name))
        return are_whole(study.path, Path(FOLDER, name, CODES), study.clips["clip"].tolist())
    return False
