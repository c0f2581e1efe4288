"""Run a study's clips through the model: activations to the cache, audio to FLAC, shard by shard, resumable."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from cache import CachePlan, CacheWriter
from cache.errors import UserError
from cache.files import check_room
from workbench.audio import write_flac
from workbench.models.protocol import AudioDiffusionModel, Capture, Clip
from workbench.sites import parse_sites
from workbench.study import Study, StudySpec


def trace_study(
    path: Path,
    spec: StudySpec,
    model: AudioDiffusionModel,
    progress: Callable[[int, int], None] | None = None,
) -> Study:
    """Make or continue a study: generate the clips that its cache does not hold yet.

    Activations go to the cache shard by shard; a shard's audio is written before the shard is committed, so that
    every committed clip has its audio. `progress(done, total)` is told of clips. Raises UserError, before anything is
    written, for sites, steps or passes that the model does not have, and for lack of disk room.
    """
    capture = Capture(parse_sites(spec.sites, model.n_blocks), spec.steps, spec.passes)
    model.check_capture(capture, spec.settings)
    for site in capture.sites:
        if site.on_conditioning:
            raise UserError(
                f"{site} has a value for every conditioning token, and the cache keeps latent-time tokens."
            )
    plan = cache_plan(spec, model)
    if not path.exists():
        check_room(path, plan.total_bytes())
    study = Study.create(path, spec, model.describe())
    with CacheWriter(study.cache_path, plan, study.clips) as writer:
        done = plan.n_clips - sum(last + 1 - first for first, last in map(plan.shard_clips, writer.missing()))
        for shard in writer.missing():
            if progress:
                progress(done, plan.n_clips)
            first, last = plan.shard_clips(shard)
            writer.write_shard(shard, _run_clips(study, model, study.clips.iloc[first : last + 1], capture))
            done += last + 1 - first
    if progress:
        progress(done, plan.n_clips)
    return study


def cache_plan(spec: StudySpec, model: AudioDiffusionModel) -> CachePlan:
    """What the study's cache will hold; its price can be read off before anything runs."""
    sigmas = model.sigmas(spec.settings)
    return CachePlan(
        sites={str(site): model.channels(site) for site in parse_sites(spec.sites, model.n_blocks)},
        n_clips=spec.n_prompts * spec.seeds,
        steps=spec.steps,
        sigmas=tuple(sigmas[step] for step in spec.steps),
        passes=spec.passes,
        tokens=model.tokens(spec.settings.duration),
        token_seconds=model.token_seconds,
        dtype=spec.cache_dtype,
        clips_per_shard=spec.clips_per_shard,
        identity={
            "weights_hash": model.weights_hash,
            "settings": spec.settings.model_dump(mode="json"),
            "prompts": spec.prompts.model_dump(mode="json"),
            "seed": spec.seed,
            "lyrics": spec.lyrics,
        },
    )


def _run_clips(
    study: Study, model: AudioDiffusionModel, clips: pd.DataFrame, capture: Capture
) -> dict[str, torch.Tensor]:
    """Generate clips as one batch, write their audio, and give the activations by site name."""
    requests = [Clip(row.prompt, int(row.seed), row.lyrics) for row in clips.itertuples()]
    generation = model.generate(requests, study.spec.settings, capture=capture)
    for clip, samples in zip(clips["clip"], model.decode(generation.latents).cpu().numpy(), strict=True):
        write_flac(study.audio_path(clip), samples, model.sample_rate)
    return {str(site): value.cpu() for site, value in generation.activations.items()}
