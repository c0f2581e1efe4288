"""Run a study's clips through the model: activations to the cache, audio to FLAC, shard by shard, resumable."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cache import CachePlan, CacheWriter
from cache.errors import CacheBusy, UserError
from cache.growth import can_shrink, shrink
from cache.maintenance import remove_unwritten
from cache.metadata import read_plan
from cache.opening import checked_folder, file_size, remove_file
from cache.pipeline import ShardPipeline
from cache.storage import Storage, absolute_location, open_storage
from cache.wording import counted, quoted
from workbench.audio import not_finite, write_flac
from workbench.engine.runs import Capture, Clip, Sink
from workbench.engine.sites import Site, parse_sites
from workbench.files import remove_partials
from workbench.models import located
from workbench.models.base import AudioDiffusionModel
from workbench.models.checks import check_capture
from workbench.models.token_axis import finest_site, shared_tokens
from workbench.prompts.reading import check_prompts, encoder
from workbench.studies.pricing import check_price
from workbench.studies.study import CACHE, DOCUMENT, Study, StudySpec, cache_identity, clip_table, more_clips
from workbench.validation import must_be

_log = logging.getLogger(__name__)

NAMED_CLIPS = 5  # clips without audio that are named; the others are counted


def trace_study(
    path: Path,
    spec: StudySpec,
    model: AudioDiffusionModel,
    progress: Callable[[int, int], None] | None = None,
    store: str | None = None,
    job: tuple[int, int] = (1, 1),
    note: Callable[[str], None] = _log.warning,
) -> Study:
    """Make, continue or extend a study: generate the clips that its cache lacks.

    An interrupted extension is undone if the spec before it is given. Activations are written shard by shard while the
    next shard is generated; a shard's audio is written before the shard, so that every committed clip has its audio.
    Audio that was lost since is generated again.

    Args:
        path: the study folder.
        spec: the study's spec.
        model: the model.
        progress: called with the clips done and the total.
        store: URL of the cache, if it should not be in the folder.
        job: (k, n) generates only the k-th of n ranges of shards, so that several processes can share the work.
        note: called with a sentence if the audio of committed clips is missing.

    Raises:
        UserError: for sites, steps or passes that the model does not have, or too little disk space; nothing is written
            then.
    """
    must_be(os.PathLike, path, "A study's folder must be a path")
    spec = spec.model_copy(update={"model": located(spec.model)})
    if store is not None:
        must_be((str, os.PathLike), store, "A store must be given by its URL or its folder")
        store = absolute_location(os.fspath(store))
    capture = study_capture(spec, model)
    encode = encoder(model, spec.lyrics, spec.settings)
    storage = open_storage(store or checked_folder(path, CACHE))
    plan = _with_stored_sigmas(cache_plan(spec, model), storage)
    shards = shards_of_job(plan, job)
    if shards == (0, plan.n_shards - 1):
        _go_back(path, spec, plan, storage, store)
    check_price(plan, storage)
    is_new = not (path / "study.json").exists()
    if is_new:
        check_prompts(model.name, clip_table(spec, encode)["prompt"].unique(), encode)
    study = Study.create(path, spec, model.describe(), encode, store)
    clips = study.clips if study.spec == spec else more_clips(study.clips, spec, encode)
    if len(clips) > len(study.clips):
        check_prompts(model.name, clips["prompt"].unique(), encode)
    first, last = plan.shard_clips(shards[0])[0], plan.shard_clips(shards[1])[1]
    total = last + 1 - first
    try:
        with CacheWriter(study.cache_location, plan, clips, shards) as writer:
            if not study.is_there:
                raise UserError(f"Another trace into {path} failed and removed it. Run this one again.")
            if shards == (0, plan.n_shards - 1):  # there is no other writer
                remove_partials(study.path, study.audio_path(0).parent)
            if (
                study.spec != spec
            ):  # after the cache was extended: a study never has more clips than its cache
                study = study.extended(spec, clips)
            try:
                lost = _lost_audio(study, writer, range(shards[0], shards[1] + 1))
                if lost:
                    note(_audio_is_missing([clip for clips_of in lost.values() for clip in clips_of]))
                _run_shards(study, model, writer, capture, total, progress or _no_progress, lost)
            except UserError:
                if is_new:
                    _remove_audio(study, plan, writer.missing())
                raise
    except CacheBusy:  # the study is also that of the other writer, which may not have created its cache yet
        raise
    except UserError as error:
        _remove_if_bare(study, plan, is_new)
        if is_new or not study.is_there:
            raise
        raise UserError(f"{error} {_what_is_left(path)}".strip()) from error
    if progress:
        progress(total, total)
    return study


def _go_back(path: Path, spec: StudySpec, plan: CachePlan, storage: Storage, store: str | None) -> None:
    """Undo an interrupted extension of a study, if `spec` is the spec before it.

    The study is changed first: while its cache has more clips, it counts as half-written. Removed clips can be traced
    again.
    """
    if not can_shrink(storage, plan) or file_size(path, DOCUMENT) is None:
        return
    study = Study.open(path)
    if study.store != store or not study.was(spec):
        return
    clips = study.clips.iloc[: spec.n_clips]
    further = range(plan.n_clips, read_plan(storage).n_clips)

    def shrink_study() -> None:
        if study.spec != spec:
            study.extended(spec, clips)
        for clip in further:
            remove_file(path, study.audio_path(clip).relative_to(path))

    shrink(storage, plan, clips, shrink_study)


def _what_is_left(path: Path) -> str:
    """Return a sentence on a partly traced study, or "" if its cache is complete or does not exist."""
    with suppress(UserError):
        return Study.open(path).unfinished()
    return ""


def _remove_audio(study: Study, plan: CachePlan, shards: Sequence[int]) -> None:
    """Remove the audio of shards that were not committed."""
    for shard in shards:
        for clip in _clips_of(study, plan, shard)["clip"]:
            study.audio_path(clip).unlink(missing_ok=True)
    for folder in (study.path / "audio" / "clips", study.path / "audio"):
        with suppress(OSError):  # missing, or not empty
            folder.rmdir()


def _remove_if_bare(study: Study, plan: CachePlan, is_new: bool) -> None:
    """Remove a study whose trace failed before its first shard, unless another process writes or has written to it."""
    if not study.path.is_dir() or not study.is_bare:
        return
    storage = open_storage(study.cache_location)
    with suppress(UserError):  # another process is writing, or the store cannot be reached
        if storage.is_there() and read_plan(storage) == plan:
            remove_unwritten(storage, study.remove)
        elif is_new:  # its cache was never created
            study.remove()
    with suppress(OSError):  # not empty
        study.path.rmdir()


def _run_shards(
    study: Study,
    model: AudioDiffusionModel,
    writer: CacheWriter,
    capture: Capture,
    total: int,
    progress: Callable[[int, int], None],
    lost: Mapping[int, Sequence[int]],
) -> None:
    """Generate the clips of the writer's missing shards, and the audio of the `lost` clips of the others (by shard).

    `total` is the number of clips of all the writer's shards. Lost clips are generated as one batch with the others of
    their shard, as they were the first time, so that they do not differ by rounding.
    """
    missing = writer.missing()
    shards = sorted([*missing, *lost])
    left = sum(len(_clips_of(study, writer.plan, shard)) for shard in shards)
    with ShardPipeline(writer, model.device) as pipeline:

        def pass_on(site: Site, step: int, values: torch.Tensor) -> None:
            pipeline.add(str(site), step, values)

        for shard in shards:
            progress(total - left, total)
            clips = _clips_of(study, writer.plan, shard)
            if shard in lost:
                _run_clips(study, model, clips, lost[shard])
            else:
                pipeline.begin(shard)
                _run_clips(study, model, clips, clips["clip"].tolist(), capture, pass_on)
                pipeline.end()
            left -= len(clips)


def _lost_audio(study: Study, writer: CacheWriter, shards: Sequence[int]) -> dict[int, list[int]]:
    """Return the clips of committed shards whose audio does not exist, by shard."""
    missing = set(writer.missing())
    lost = {}
    for shard in shards:
        first, last = writer.plan.shard_clips(shard)
        clips = [clip for clip in range(first, last + 1) if not study.has_audio(clip)]
        if clips and shard not in missing:
            lost[shard] = clips
    return lost


def _audio_is_missing(clips: Sequence[int]) -> str:
    named = ", ".join(map(str, clips[:NAMED_CLIPS])) + (", …" if len(clips) > NAMED_CLIPS else "")
    return (
        f"The audio of {counted(len(clips), 'traced clip')} is missing ({named}). It is generated again; the "
        "activations stay."
    )


def _no_progress(done: int, total: int) -> None:
    del done, total


def study_capture(spec: StudySpec, model: AudioDiffusionModel) -> Capture:
    """Return what to capture of each run.

    Raises:
        UserError: for settings, lyrics, sites, steps or passes that the model or the cache does not support.
    """
    capture = Capture(parse_sites(spec.sites, model.n_blocks), spec.steps, spec.passes)
    model.check_settings(spec.settings)
    model.check_lyrics(spec.lyrics)
    check_capture(model, capture, spec.settings)
    for site in capture.sites:
        if site.on_conditioning:
            raise UserError(
                f"{site} has one value per conditioning token, but the cache stores latent-time tokens."
            )
    return capture


def cache_plan(spec: StudySpec, model: AudioDiffusionModel) -> CachePlan:
    """Make the plan of the study's cache.

    Raises:
        UserError: for a dtype of a site that is not captured, or sites with different numbers of tokens, unless the
            mean over all tokens is stored.
    """
    sigmas = model.sigmas(spec.settings)
    kept = parse_sites(spec.sites, model.n_blocks)
    sites = {str(site): model.channels(site) for site in kept}
    finest = finest_site(model, kept, spec.settings.duration)
    tokens = spec.tokens.stored_tokens(model.tokens_at(finest, spec.settings.duration))
    if tokens > 1:
        shared_tokens(model, kept, spec.settings.duration)
    stray = spec.site_dtypes.keys() - sites.keys()
    if stray:
        raise UserError(f"{min(stray)} has a dtype but is not captured. Add it as a site.")
    return CachePlan(
        sites=sites,
        dtypes={site: spec.site_dtypes.get(site, spec.cache_dtype) for site in sites},
        n_clips=spec.n_clips,
        steps=spec.steps,
        sigmas=tuple(sigmas[step] for step in spec.steps),
        passes=spec.passes,
        tokens=tokens,
        token_seconds=model.token_seconds_at(finest) * spec.tokens.size,
        token_reduction=spec.tokens,
        clips_per_shard=spec.clips_per_shard,
        zstd_level=spec.zstd_level,
        identity=cache_identity(spec, model.weights_hash),
    )


def _with_stored_sigmas(plan: CachePlan, storage: Storage) -> CachePlan:
    """Return the plan with the sigmas of an existing cache, if they differ only in the last digits.

    They do if a study is continued on another kind of processor.
    """
    if not storage.is_there():
        return plan
    stored = read_plan(storage).sigmas
    same = len(stored) == len(plan.sigmas) and np.allclose(stored, plan.sigmas, rtol=1e-5, atol=0)
    return plan.model_copy(update={"sigmas": stored}) if same else plan


def shards_of_job(plan: CachePlan, job: tuple[int, int]) -> tuple[int, int]:
    """Return the first and last shard of job k of n; raise UserError if there is no such job."""
    if not (isinstance(job, tuple | list) and [type(number) for number in job] == [int, int]):
        raise UserError(f"A job must be two whole numbers, (k, n) for job k of n; got {job!r}.")
    number, jobs = job
    if not 1 <= number <= jobs <= plan.n_shards:
        raise UserError(
            f"A job must be k/n with 1 ≤ k ≤ n ≤ {plan.n_shards}, the number of shards; got {number}/{jobs}."
        )
    return plan.n_shards * (number - 1) // jobs, plan.n_shards * number // jobs - 1


def _clips_of(study: Study, plan: CachePlan, shard: int) -> pd.DataFrame:
    first, last = plan.shard_clips(shard)
    return study.clips.iloc[first : last + 1]


def _run_clips(
    study: Study,
    model: AudioDiffusionModel,
    clips: pd.DataFrame,
    written: Sequence[int],
    capture: Capture | None = None,
    sink: Sink | None = None,
) -> None:
    """Generate clips as one batch, pass captured activations to the sink, and write the audio of those in `written`."""
    requests = [Clip(row.prompt, int(row.seed), row.lyrics) for row in clips.itertuples()]
    generation = model.generate_batch(requests, study.spec.settings, capture=capture, sink=sink)
    what = [f"Clip {row.clip} ({quoted(row.prompt)})" for row in clips.itertuples()]
    for clip, step in zip(what, generation.broke_at, strict=True):
        if step is not None:
            raise UserError(not_finite(clip, step, study.model["dtype"]))
    audio = model.decode(generation.latents, study.spec.settings.duration).float().cpu().numpy()
    for clip, samples in zip(what, audio, strict=True):
        if not np.isfinite(samples).all():
            raise UserError(not_finite(clip, None, study.model["dtype"]))
    for clip, samples in zip(clips["clip"], audio, strict=True):
        if clip in written:
            write_flac(study.audio_path(clip), samples, model.sample_rate, study.path)
