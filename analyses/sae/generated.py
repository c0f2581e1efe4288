"""Training rows straight from the model: activations are captured while it generates clips, and none are stored."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from analyses.sae.rows import by_clip, split_by_prompt
from analyses.sae.spec import TrainSettings
from cache.errors import UserError
from cache.rounding import TORCH
from cache.tokens import reduce_tokens
from workbench.engine.runs import Clip
from workbench.engine.sites import Site
from workbench.models.base import AudioDiffusionModel
from workbench.seeds import LARGEST_SEED
from workbench.studies.study import Study
from workbench.studies.tracing import cache_plan, study_capture

GROUP_ROWS = 65_536
"""At least this many rows of a site and pass, if the clips have so many, are generated and then shuffled together.

It does not depend on what is trained together, so that each SAE gets the rows that it gets alone.
"""
BUFFER_BYTES = 8 * 2**30
"""Most memory for activations: of two groups while training, and of the study's clips when features are described."""


class SitePass(NamedTuple):
    """What is captured together."""

    site: str
    pass_name: str


Acts = Mapping[SitePass, Float[Tensor, "clip step token channel"]]
"""Activations of clips, as a cache would store them."""


class GeneratedClips:
    """Groups of training clips without end, and their activations at all sites and passes that are trained together.

    The first pass over the training clips has the study's own clips, so that the rows are those of its cache. Each
    further one has the same prompts with new noise. Only the last group is kept: all that train on it share it.

    Args:
        study: the study whose clips, steps, tokens and number formats are used; its cache need not have the sites.
        model: its model.
        specs: all SAEs that are trained together.

    Raises:
        UserError: for sites or passes that the model does not have, another number of tokens than the study's, or too
            many activations.
    """

    def __init__(self, study: Study, model: AudioDiffusionModel, specs: Sequence[TrainSettings]) -> None:
        first = specs[0]
        sites = tuple(dict.fromkeys(site for spec in specs for site in spec.sites))
        asked = study.spec.model_copy(
            update={
                "sites": sites,
                "passes": tuple(dict.fromkeys(spec.pass_name for spec in specs)),
                "site_dtypes": {
                    site: dtype for site, dtype in study.spec.site_dtypes.items() if site in sites
                },
            }
        )
        self._capture = study_capture(asked, model)
        self.plan = cache_plan(asked, model)
        if self.plan.tokens != study.cache.plan.tokens:
            raise UserError(
                f"{', '.join(sites)} have {self.plan.tokens} tokens a clip, but those of the study "
                f"{study.cache.plan.tokens}. Trace a study of these sites."
            )
        self._study, self._model = study, model
        self._rows = {row.clip: row for row in study.clips.itertuples()}
        self._training, _ = split_by_prompt(study.clips, first.held_out_fraction, first.data_seed)
        self._seed = first.data_seed
        self.clip_rows = len(self.plan.steps) * self.plan.tokens
        clips = -(-max(GROUP_ROWS, first.batch_size) // self.clip_rows)
        self.groups = max(1, len(self._training) // clips)  # in a pass over the training clips
        self._last: tuple[int, Acts] | None = None
        self._described: dict[int, Acts] = {}
        self._most_clips = BUFFER_BYTES // _bytes(self._empty(1))
        if 2 * max(map(self.size, range(self.groups))) > self._most_clips:
            raise UserError(
                f"Groups of {self.size(0)} clips at {len(sites)} sites need more than {BUFFER_BYTES / 2**30:g} GiB of "
                "memory. Train fewer sites together, or use a smaller batch size."
            )

    @property
    def training_clips(self) -> int:
        """Number of the study's clips that are trained on, which is that of each pass over them."""
        return len(self._training)

    def size(self, group: int) -> int:
        """Return the number of clips of a group."""
        return len(range(len(self._training))[group % self.groups :: self.groups])

    def needed(self, train_steps: int, batch_size: int) -> int:
        """Return the number of clips to generate for a training."""
        batches = [max(1, self.size(group) * self.clip_rows // batch_size) for group in range(self.groups)]
        passes, left = divmod(train_steps, sum(batches))
        clips = passes * len(self._training)
        for group, count in enumerate(batches):
            if left > 0:
                clips, left = clips + self.size(group), left - count
        return clips

    def group(self, number: int) -> Acts:
        """Return the activations of a group of training clips."""
        if self._last is None or self._last[0] != number:
            self._last = None  # frees its memory
            self._last = number, self._generate(self._group_clips(number))
        return self._last[1]

    def by_clip(
        self, site: str, pass_name: str, clips: Sequence[int]
    ) -> Iterator[Float[np.ndarray, "step token channel"]]:
        """Iterate over activations of the study's own clips, which are generated once if memory allows."""
        self._last = None
        size = self.plan.clips_per_shard
        for start in range(0, len(clips), size):
            some = clips[start : start + size]
            lacking = [clip for clip in some if clip not in self._described]
            made = self._generate([self._clip(clip) for clip in lacking]) if lacking else {}
            new = {
                clip: {key: values[place] for key, values in made.items()}
                for place, clip in enumerate(lacking)
            }
            acts = {**self._described, **new}
            if len(acts) <= self._most_clips:
                self._described = acts
            for clip in some:
                yield acts[clip][SitePass(site, pass_name)].float().numpy()

    def rows(self, site: str, pass_name: str, batch_size: int) -> "GeneratedRows":
        """Return the training rows of a site and pass."""
        return GeneratedRows(self, SitePass(site, pass_name), batch_size, self._seed)

    def _group_clips(self, number: int) -> list[Clip]:
        of_pass, group = divmod(number, self.groups)
        order = _rng(self._seed, 0, of_pass).permutation(self._training)
        return [self._clip(int(clip), of_pass) for clip in np.sort(order[group :: self.groups])]

    def _clip(self, clip: int, of_pass: int = 0) -> Clip:
        """Return a clip of the study; in later passes with a seed that no clip has had."""
        row = self._rows[clip]
        seed = (int(row.seed) + of_pass * len(self._rows)) % (LARGEST_SEED + 1)
        return Clip(str(row.prompt), seed, str(row.lyrics))

    def _empty(self, clips: int) -> Acts:
        plan = self.plan
        return {
            SitePass(site, pass_name): torch.empty(
                (clips, len(plan.steps), plan.tokens, channels), dtype=TORCH[plan.dtypes[site]]
            )
            for site, channels in plan.sites.items()
            for pass_name in plan.passes
        }

    def _generate(self, clips: Sequence[Clip]) -> Acts:
        """Generate clips in batches as large as those of the study, and return their activations."""
        acts, size = self._empty(len(clips)), self.plan.clips_per_shard
        for start in range(0, len(clips), size):
            part = {key: values[start : start + size] for key, values in acts.items()}
            self._model.generate_batch(
                clips[start : start + size],
                self._study.spec.settings,
                capture=self._capture,
                sink=self._sink(part),
            )
        return acts

    def _sink(self, part: Acts) -> Callable[[Site, int, Tensor], None]:
        def keep(site: Site, step: int, values: Tensor) -> None:
            kept = reduce_tokens(values.detach(), self.plan.token_reduction)
            for place, pass_name in enumerate(self.plan.passes):
                target = part[SitePass(str(site), pass_name)][:, self.plan.steps.index(step)]
                target.copy_(kept[:, place])
                if not bool(torch.isfinite(target).all()):
                    raise UserError(
                        f"Activations of {site} at step {step} are not finite, or too large for the study's "
                        f"{self.plan.dtypes[str(site)]}. Trace a study with --cache-dtype float32."
                    )

        return keep


class GeneratedRows:
    """The rows of a site and pass, a group of clips after the other; iterating yields those of one group.

    The rows of each group are shuffled by the seed and the number of the group, alike at every site.

    Attributes:
        batch_size: rows per batch; the last one of a group may be smaller.
        n_rows: rows of a pass over all training clips.
        channels: length of a row.
        dtype: number format of the batches.
    """

    def __init__(self, clips: GeneratedClips, of: SitePass, batch_size: int, seed: int) -> None:
        self._clips, self._of, self._seed = clips, of, seed
        self.batch_size = batch_size
        self.n_rows = clips.training_clips * clips.clip_rows
        self.channels = clips.plan.sites[of.site]
        self.dtype = TORCH[clips.plan.dtypes[of.site]]
        self._group = 0
        self._row = 0

    def __iter__(self) -> Iterator[Float[Tensor, "row channel"]]:
        """Yield batches (row, channel) from the current row to the end of the group."""
        return (batch for batch, _ in self.with_steps())

    def with_steps(self) -> Iterator[tuple[Float[Tensor, "row channel"], Int64[Tensor, " row"]]]:
        """Yield batches as iteration does, with the position of each row's step among the study's steps."""
        acts = self._clips.group(self._group)[self._of]
        order = torch.from_numpy(_rng(self._seed, 1, self._group).permutation(acts.shape[:3].numel()))
        rows = acts.flatten(0, 2)
        for first in range(self._row, len(rows), self.batch_size):
            index = order[first : first + self.batch_size]
            self._row = first + len(index)
            if self._row == len(rows):
                self._group, self._row = self._group + 1, 0
            yield rows[index], index // acts.shape[2] % acts.shape[1]

    def state_dict(self) -> dict[str, Any]:
        """Return the place in the rows as plain JSON; the group is generated again to continue."""
        return {"group": self._group, "row": self._row, "groups": self._clips.groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Make the next iteration continue from a `state_dict`; raise ValueError if it is of other groups."""
        group, row = int(state["group"]), int(state["row"])
        is_there = group >= 0 and 0 <= row < self._clips.size(group) * self._clips.clip_rows
        if state["groups"] != self._clips.groups or not is_there:
            raise ValueError("the state is of other groups of clips")
        self._group, self._row = group, row


ClipReader = Callable[[str, str, Sequence[int]], Iterator[Float[np.ndarray, "step token channel"]]]
"""Iterates over the activations of the study's clips with these numbers, at a site and pass."""


def generated_clips(
    study: Study, specs: Sequence[TrainSettings], device: str, note: Callable[[str], None]
) -> GeneratedClips | None:
    """Load the model of SAEs whose source is generation, and say how many clips it will generate; None for others."""
    first = specs[0]
    if first.source == "cache":
        return None
    clips = GeneratedClips(study, study.load_model(device), specs)
    all_cached = all(is_cached(study, site, spec.pass_name) for spec in specs for site in spec.sites)
    described = (
        "" if all_cached else f", and the {len(study.clips)} clips of the study to describe the features"
    )
    note(
        f"{clips.needed(first.train_steps, first.batch_size)} clips are generated for {first.train_steps} training "
        f"steps of {first.batch_size} activation vectors{described}."
    )
    return clips


def is_cached(study: Study, site: str, pass_name: str) -> bool:
    """Whether a study's cache has a site and pass."""
    return site in study.cache.plan.sites and pass_name in study.cache.plan.passes


def reader_at(
    study: Study, model: AudioDiffusionModel, site: str, pass_name: str, note: Callable[[str], None]
) -> ClipReader:
    """Return what reads the study's clips at a site and pass: from its cache, or, which it says, from the model."""
    if is_cached(study, site, pass_name):
        return clip_reader(study, None)
    note(f"The study's cache has no {site} ({pass_name} pass): clips of the study are generated again.")
    return clip_reader(study, GeneratedClips(study, model, [TrainSettings(site=site, pass_name=pass_name)]))


def clip_reader(study: Study, generated: GeneratedClips | None) -> ClipReader:
    """Return what reads the study's clips: from its cache, or generates them if that lacks a site or pass."""

    def read(
        site: str, pass_name: str, clips: Sequence[int]
    ) -> Iterator[Float[np.ndarray, "step token channel"]]:
        if generated is None or is_cached(study, site, pass_name):
            return by_clip(study.cache, site, pass_name, clips)
        return generated.by_clip(site, pass_name, clips)

    return read


def _bytes(acts: Acts) -> int:
    return sum(values.nbytes for values in acts.values())


def _rng(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
