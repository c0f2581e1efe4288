"""Token-embedding steering: a direction at the tokens of the concept's word (TokEmb; TADA, arXiv 2602.11910)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float

from analyses.steering.pairs import ends, pairs_towards
from analyses.steering.prompt_method import EVERYWHERE, POSITIVE, cross_attentions
from analyses.steering.schedule import Over, Schedule, scheduled
from cache.errors import UserError
from workbench.artefacts.token_embedding import read_token_embedding
from workbench.engine.edits import Edit, Source, add_to_conditioning
from workbench.engine.runs import Capture, Clip
from workbench.engine.segments import WORD, segment_positions
from workbench.engine.settings import GenerationSettings, settings_or_default
from workbench.engine.sites import Site
from workbench.engine.tensors import HashedTensor
from workbench.engine.visit import read_positions
from workbench.models.base import AudioDiffusionModel
from workbench.prompts.prompt_sets import PromptSet, asked_prompt_set
from workbench.seeds import Seed
from workbench.validation import must_be, validated

PAIRS_PER_BATCH = 8
PARTS: dict[str, Literal["keys", "values"]] = {"k": "keys", "v": "values"}
MODEL = "A steering method is made with a model, such as wb.load('organism-shared')"


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenEmbedding:
    """Directions of keys and values at the tokens of a word, from a concept's `negative` values to its `positive` one.

    `directions` has one for each site of keys or values, such as tf3.cross_attn.k. They belong to the model `made_on`,
    its name and weights hash. `word` is the word of the steered prompt whose tokens are changed; "" for the words that
    differ from the positive prompt. `sigmas` are those of the steps.
    """

    method: ClassVar[str] = "token embedding"

    concept: str
    positive: str
    negative: str
    directions: Mapping[str, HashedTensor]
    word: str
    made_on: tuple[str, str]
    sigmas: tuple[float, ...]

    def at(
        self,
        strength: float,
        *,
        positive: Source = POSITIVE,
        word: str = "",
        schedule: Schedule = "constant",
        over: Over = "steps",
        start_step: int = 0,
    ) -> tuple[Edit, ...]:
        """Return edits that add strength times the directions at the word's tokens, in the cond pass; none for 0.

        Args:
            strength: the factor; negative towards the negative values.
            positive: the clip with the positive value, by default a name that is bound later. It is only read to find
                the words that differ from it, so it is not needed with a word.
            word: the word of the steered prompt at whose tokens they are added, wherever it occurs; by default that of
                the fit.
            schedule: how the strength changes over the steps, by name or as a weight per step (see `weights`).
            over: whether a named schedule follows the number of the step or its sigma.
            start_step: first step that is steered.

        Raises:
            UserError: for an unknown schedule, a strength that is not finite, or a first step beyond the last.
        """
        must_be(str, word, "The word must be one of the steered prompt, such as 'song'")
        chosen = word or self.word
        edits = [
            add_to_conditioning(
                direction,
                site.rpartition(".")[0],
                PARTS[site.rpartition(".")[2]],
                weight,
                source=None if chosen else positive,
                segments=(f"{WORD}{chosen}" if chosen else "swapped",),
                steps=window,
                passes=("cond",),
            )
            for window, weight in scheduled(strength, self.sigmas, schedule, over, start_step)
            for site, direction in self.directions.items()
        ]
        return tuple(replace(edit, made_on=self.made_on, made_at=self.sigmas) for edit in edits)


def token_embedding(
    model: AudioDiffusionModel,
    concept: str,
    sites: str | Sequence[str] = EVERYWHERE,
    *,
    word: str = "",
    positive: str = "",
    negative: str = "",
    prompts: str | PromptSet = "organism",
    held_out: Collection[str] = (),
    pairs: int = 16,
    seed: int = 0,
    settings: GenerationSettings | None = None,
) -> TokenEmbedding:
    """Compute the mean difference, within pairs, of the keys and values of the concept's word (TokEmb; TADA).

    TADA takes the difference of the text encoder's states. Keys and values before their norm or rotation are affine in
    these in ACE-Step v1 and 1.5, and in the blocks of AudioLDM 2 that read them, so that both are the same; in Stable
    Audio Open they are not, and the difference is that of keys and values. Blocks that do not read the prompt's words,
    as some of AudioLDM 2, are left out.

    Args:
        model: the model to steer.
        concept: a concept of the prompt set.
        sites: the cross-attentions that are steered.
        word: a word of all prompts, such as "song", whose state depends on the concept through its context; by default
            the words in which the prompts of a pair differ, which must have equally many tokens.
        positive: the value that the directions point towards, by default the concept's first.
        negative: the value that they point away from, by default all others.
        prompts: the prompt set.
        held_out: prompts that are in none of the pairs.
        pairs: number of pairs.
        seed: with which the pairs are drawn.
        settings: the steps of the runs to steer; the directions do not depend on them.

    Raises:
        UserError: if the concept, a value, a site or the prompt set is unknown, there are fewer pairs, prompts do not
            have the word, words of a pair are at different tokens, or no site reads them.
    """
    must_be(AudioDiffusionModel, model, MODEL)
    must_be(str, word, "The word must be one of all prompts, such as 'song'")
    settings = settings_or_default(settings)
    drawn = validated(_Drawn, {"pairs": pairs, "seed": seed}, "Invalid token embedding")
    prompt_set = asked_prompt_set(prompts)
    towards, away = ends(prompt_set, concept, positive, negative)
    chosen = pairs_towards(prompt_set, concept, towards, away, drawn.pairs, drawn.seed, held_out=held_out)
    clips = [Clip(prompt.text, 0) for pair in chosen for prompt in (pair.clean, pair.corrupt)]
    at = _word_tokens(model, clips, word, settings)
    reading = [
        site for site in _key_value_sites(model, sites) if read_positions(at[0], model.reads(site.block))
    ]
    if not reading:
        raise UserError("None of the sites reads the words of the prompt. Choose others.")
    directions = _mean_differences(model, clips, at, reading, settings)
    return TokenEmbedding(
        concept=concept,
        positive=towards,
        negative=" or ".join(away),
        directions={site: HashedTensor.of(values) for site, values in directions.items()},
        word=word,
        made_on=(model.name, model.weights_hash),
        sigmas=tuple(model.sigmas(settings)),
    )


def token_embedding_from_published(
    source: str,
    model: AudioDiffusionModel,
    *,
    concept: str = "",
    sites: str | Sequence[str] = EVERYWHERE,
    word: str = "",
    settings: GenerationSettings | None = None,
) -> TokenEmbedding:
    """Read a published direction (`<concept>_direction.pt`), of the text encoder's states, as keys and values.

    It does not say which model it was made on: the directions are taken for the model's.

    Args:
        source: folder, file or hub id.
        model: the model to steer, whose text encoder has the direction's width.
        concept: required if the file does not name it.
        sites: the cross-attentions that are steered.
        word: the word of the steered prompts at whose tokens it is added, by default TADA's for the concept.
        settings: the steps of the runs to steer.

    Raises:
        UserError: if files are missing, unsafe, damaged or in another format; or if keys and values of a site are not
            affine in the text encoder's states, or these have another width.
    """
    must_be(AudioDiffusionModel, model, MODEL)
    must_be(str, source, "The source of a published direction must be a folder, a file, or a hub id")
    must_be(str, word, "The word must be one of the steered prompts, such as 'song'")
    published = read_token_embedding(source, concept)
    direction = torch.from_numpy(
        np.array(published.direction)
    )  # a copy, because the artefact's cannot be written
    return TokenEmbedding(
        concept=published.concept.name,
        positive=published.concept.positive,
        negative=published.concept.negative,
        directions={
            str(site): HashedTensor.of(model.from_text(direction, site))
            for site in _key_value_sites(model, sites)
        },
        word=word or published.word,
        made_on=(model.name, model.weights_hash),
        sigmas=tuple(model.sigmas(settings_or_default(settings))),
    )


@dataclass(frozen=True)
class _Drawn:
    """Number of pairs, and the seed with which they are drawn."""

    pairs: int
    seed: Seed


def _key_value_sites(model: AudioDiffusionModel, sites: str | Sequence[str]) -> list[Site]:
    parsed = map(Site.parse, cross_attentions(model, sites))
    return [Site(site.block, f"{site.part}.{part}") for site in parsed for part in PARTS]


def _word_tokens(
    model: AudioDiffusionModel, clips: Sequence[Clip], word: str, settings: GenerationSettings
) -> list[tuple[int, ...]]:
    """Return the conditioning tokens of the concept's word in each clip; clips that follow one another are pairs."""
    places = [model.conditioning(clip, settings) for clip in clips]
    found: list[tuple[int, ...]] = []
    for clean, corrupt in zip(places[::2], places[1::2], strict=True):
        for own, other in ((clean, corrupt), (corrupt, clean)):
            names = (f"{WORD}{word}",) if word else ("swapped",)
            n_tokens = max(last for _, last in own.segments.values())
            found.append(tuple(segment_positions(names, own, own if word else other, n_tokens)))
    return found


def _mean_differences(
    model: AudioDiffusionModel,
    clips: Sequence[Clip],
    at: Sequence[tuple[int, ...]],
    sites: Sequence[Site],
    settings: GenerationSettings,
) -> dict[str, Float[torch.Tensor, " channel"]]:
    """Return by site the mean over pairs of the clean prompt's values minus the corrupt one's, at their tokens."""
    one_step = settings.model_copy(update={"num_steps": 1})  # the conditioning is the same in every step
    capture = Capture(tuple(sites), (0,), ("cond",))
    sums: dict[str, Any] = dict.fromkeys(map(str, sites), 0.0)
    first = 0

    def add_differences(site: Site, step: int, values: Float[torch.Tensor, "clip 1 token channel"]) -> None:  # noqa: ARG001
        for place, of_clip in enumerate(values[:, 0].double(), first):
            tokens = read_positions(at[place], model.reads(site.block))
            mean = of_clip[list(tokens or ())].mean(dim=0).cpu()
            sums[str(site)] += mean if place % 2 == 0 else -mean

    for first in range(0, len(clips), 2 * PAIRS_PER_BATCH):
        batch = clips[first : first + 2 * PAIRS_PER_BATCH]
        model.generate_batch(batch, one_step, capture=capture, sink=add_differences)
    return {site: total / (len(clips) // 2) for site, total in sums.items()}
