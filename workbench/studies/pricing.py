"""Estimate the cost of a trace before it runs: bytes, calls, seconds, rounding error; and suggest how to shrink it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from rich.filesize import decimal

from cache import CachePlan
from cache.errors import UserError
from cache.growth import extends
from cache.manifest import Manifest
from cache.metadata import read_plan
from cache.plan import TokenReduction
from cache.room import MARGIN_BYTES
from cache.rounding import TORCH, Rounding
from cache.storage import Storage
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel
from workbench.studies.selection import stratified_steps
from workbench.studies.study import StudySpec, clip_table

TRIAL_CALLS = 2


@dataclass(frozen=True)
class TrialRun:
    """Measurements of two denoiser calls on one batch.

    Attributes:
        batch_seconds: expected seconds of a batch (one shard's clips, with decoding).
        call_seconds: seconds of one call, with both passes if guidance is on.
        rounding: `Rounding.summary` of the values, by site and dtype.
    """

    batch_seconds: float
    call_seconds: float
    rounding: dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Price:
    """The cost of a plan: clips, denoiser calls and bytes of the missing shards.

    `free_bytes` is None if there is no limit; `seconds` does not include waiting for a disk slower than the model.
    """

    plan: CachePlan
    clips: int
    calls: int
    total_bytes: int
    free_bytes: int | None
    seconds: float
    trial: TrialRun


def price(spec: StudySpec, plan: CachePlan, model: AudioDiffusionModel, storage: Storage) -> Price:
    """Estimate the cost of the missing shards of a plan; runs two denoiser calls and writes nothing."""
    missing = missing_shards(plan, storage)
    clips = sum(last + 1 - first for first, last in map(plan.shard_clips, missing))
    trial = run_trial(spec, plan, model)
    return Price(
        plan=plan,
        clips=clips,
        calls=len(missing) * spec.settings.num_steps,
        total_bytes=sum(plan.bytes_of(missing).values()),
        free_bytes=storage.free_bytes(),
        seconds=trial.batch_seconds * clips / min(plan.clips_per_shard, plan.n_clips),
        trial=trial,
    )


def missing_shards(plan: CachePlan, storage: Storage) -> list[int]:
    """Return the shards that a storage lacks: all, if it is empty or has a plan that this one does not extend."""
    stored = read_plan(storage) if storage.is_there() else None
    if stored is None or not (stored == plan or extends(plan, stored)):
        return list(range(plan.n_shards))
    there = Manifest(storage, plan).entries
    return [shard for shard in range(plan.n_shards) if shard not in there]


def run_trial(spec: StudySpec, plan: CachePlan, model: AudioDiffusionModel) -> TrialRun:
    """Warm up with one call, then run a batch of the study's clips for two calls and decode one clip.

    The estimate for a batch is the time these took apart from the calls, plus the time of the second call for each call
    of the real run (scaled by its fraction of passes where guidance is off).
    """
    rows = clip_table(spec, str).iloc[: min(plan.clips_per_shard, plan.n_clips)]
    clips = [Clip(row.prompt, int(row.seed), row.lyrics) for row in rows.itertuples()]
    settings = model.guided_throughout(spec.settings).model_copy(update={"num_steps": TRIAL_CALLS})
    sites = tuple(Site.parse(site) for site in plan.sites)
    # One-time costs of a process must not be multiplied by the number of batches.
    warming = model.generate_batch(clips[:1], settings.model_copy(update={"num_steps": 1}))
    model.decode(warming.latents, settings.duration)
    watch = _Watch()
    started = time.perf_counter()
    generation = model.generate_batch(
        clips, settings, capture=Capture(sites, tuple(range(TRIAL_CALLS)), spec.passes), sink=watch.see
    )
    generated = time.perf_counter() - started
    started = time.perf_counter()
    model.decode(generation.latents[:1], settings.duration).cpu()
    decoded = time.perf_counter() - started
    call = watch.call_seconds()
    return TrialRun(
        batch_seconds=max(generated - watch.lost - TRIAL_CALLS * call, 0.0)
        + call * _full_calls(model, spec.settings)
        + decoded * len(clips),
        call_seconds=call,
        rounding={
            str(site): {dtype: rounding.summary() for dtype, rounding in by_dtype.items()}
            for site, by_dtype in watch.roundings.items()
        },
    )


@dataclass
class _Watch:
    """A sink that records when each call's first values arrive, and their rounding error."""

    began: dict[int, float] = field(default_factory=dict)
    roundings: dict[Site, dict[str, Rounding]] = field(default_factory=dict)
    lost: float = 0.0
    lost_at: dict[int, float] = field(default_factory=dict)

    def see(self, site: Site, step: int, values: torch.Tensor) -> None:
        """Record the values of a site at a step."""
        now = time.perf_counter()
        if step not in self.began:
            self.began[step], self.lost_at[step] = now, self.lost
        by_dtype = self.roundings.setdefault(site, {dtype: Rounding() for dtype in TORCH})
        for dtype, rounding in by_dtype.items():
            rounding.add(values, values.to(TORCH[dtype]))
        if values.device.type == "cuda":
            torch.cuda.synchronize(values.device)
        self.lost += time.perf_counter() - now

    def call_seconds(self) -> float:
        """Return the time from the first values of the first call to those of the second, without that of `see`."""
        first, second = sorted(self.began)
        return self.began[second] - self.began[first] - (self.lost_at[second] - self.lost_at[first])


def _full_calls(model: AudioDiffusionModel, settings: GenerationSettings) -> float:
    """Return the equivalent number of calls with all passes; a call with fewer passes counts as a fraction."""
    return sum(len(passes) for passes in model.step_passes(settings)) / len(model.passes(settings))


def check_price(plan: CachePlan, storage: Storage) -> None:
    """Raise UserError if there is no room for a plan, with the three least harmful ways to shrink it."""
    needed = sum(plan.bytes_of(missing_shards(plan, storage)).values()) + MARGIN_BYTES
    free = storage.free_bytes()
    if free is None or needed <= free:
        return
    ways = "; ".join(f"{way} ({decimal(size)})" for way, size in ways_to_shrink(plan, free - MARGIN_BYTES))
    raise UserError(
        f"{storage.location} needs {decimal(needed)}, but its disk has only {decimal(free)} free. Free some space, "
        f"choose another disk, or shrink the plan. Options that fit: {ways or 'only fewer clips'}."
    )


def ways_to_shrink(plan: CachePlan, room: int) -> list[tuple[str, int]]:
    """Return ways to fit the plan with fewer steps, tokens or sites, and their bytes; the largest first."""
    ways = [
        _largest_that_fits(room, _with_steps, plan, range(len(plan.steps) - 1, 0, -1)),
        _largest_that_fits(room, _with_stride, plan, range(2, plan.tokens + 1)),
        _largest_that_fits(room, _with_sites, plan, range(len(plan.sites) - 1, 0, -1)),
    ]
    return sorted((way for way in ways if way), key=lambda way: -way[1])


def _largest_that_fits(
    room: int, shrink: Callable[[CachePlan, int], tuple[str, CachePlan]], plan: CachePlan, counts: range
) -> tuple[str, int] | None:
    """Return the first of some counts, ordered from the largest plan to the smallest, for which the plan fits."""
    for count in counts:
        way, smaller = shrink(plan, count)
        if smaller.total_bytes() <= room:
            return way, smaller.total_bytes()
    return None


def _with_steps(plan: CachePlan, n: int) -> tuple[str, CachePlan]:
    kept = stratified_steps(plan.sigmas, n)
    changes = {
        "steps": tuple(plan.steps[i] for i in kept),
        "sigmas": tuple(plan.sigmas[i] for i in kept),
    }
    if plan.steps == tuple(range(len(plan.steps))):
        return f'--steps "{n} stratified"', plan.model_copy(update=changes)
    return f"--steps {','.join(map(str, changes['steps']))}", plan.model_copy(update=changes)


def _with_stride(plan: CachePlan, n: int) -> tuple[str, CachePlan]:
    kind = "mean" if plan.token_reduction.kind == "mean" else "stride"
    size = plan.token_reduction.size * n
    reduction = TokenReduction(kind=kind, size=size)
    smaller = plan.model_copy(update={"tokens": -(-plan.tokens // n), "token_reduction": reduction})
    if kind == "mean":
        return f'--tokens "mean {size}"', smaller
    return f'--tokens "every {size}" or --tokens "mean {size}"', smaller


def _with_sites(plan: CachePlan, n: int) -> tuple[str, CachePlan]:
    names = list(plan.sites)
    kept = [names[i * len(names) // n] for i in range(n)]
    smaller = plan.model_copy(
        update={
            "sites": {site: plan.sites[site] for site in kept},
            "dtypes": {site: plan.dtypes[site] for site in kept},
        }
    )
    if n <= 4:
        return " ".join(f"--site {site}" for site in kept), smaller
    return f"{n} of the {len(names)} sites with --site", smaller
