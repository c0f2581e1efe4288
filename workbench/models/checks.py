"""Check before a run that a model can do what is asked: captures, edits, the clips of a batch."""

import itertools
from collections.abc import Callable, Sequence

from cache.errors import UserError
from cache.wording import quoted
from workbench.engine.batch import Batch
from workbench.engine.edits import Edit, Run
from workbench.engine.operators import OPERATORS
from workbench.engine.runs import Capture, Clip
from workbench.engine.segments import batch_tokens, out_of_place
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site, check_blocks
from workbench.engine.windows import check_steps, check_windows
from workbench.models.architecture import Architecture


def check_capture(model: Architecture, capture: Capture, settings: GenerationSettings) -> None:
    """Raise UserError for sites, steps or passes that a generation with these settings does not have."""
    check_blocks([site.block for site in capture.sites], model.n_blocks)
    if not set(capture.passes) <= set(model.passes(settings)):
        raise UserError(
            f"Passes must be among {', '.join(model.passes(settings))} in this run; got "
            f"{', '.join(capture.passes)}. The null pass needs a guidance scale above 1 and a model without "
            "distilled guidance."
        )
    if any(not 0 <= step < settings.num_steps for step in capture.steps):
        raise UserError(
            f"Steps must be from 0 to {settings.num_steps - 1} in this run; got {list(capture.steps)}."
        )
    passes = model.step_passes(settings)
    guided = [step for step, names in enumerate(passes) if set(capture.passes) <= set(names)]
    lacking = sorted(set(capture.steps) - set(guided))
    if lacking:
        where = (
            f"guidance is on in steps {guided[0]} to {guided[-1]}" if guided else "no step has all of them"
        )
        raise UserError(
            f"Step {lacking[0]} runs only the {', '.join(passes[lacking[0]])} pass; {where}. "
            "Capture other steps or passes, or widen the guidance interval."
        )


def check_batch(
    model: Architecture, batch: Batch, settings: GenerationSettings, capture: Capture | None
) -> None:
    """Raise UserError for a batch without clips, or with clips or a capture that the model does not support."""
    if not batch.rows:
        raise UserError("The list of clips is empty. Give at least one clip.")
    for lyrics in {row.lyrics for row in batch.rows}:
        model.check_lyrics(lyrics)
    for edit in batch.edits:
        if OPERATORS[edit.edit.operator].alike:
            _check_alike(model, [batch.rows[source] for source in edit.sources], settings)
    if capture is not None:
        check_capture(model, capture, settings)
    model.check_batch(batch, settings)


def check_runs(model: Architecture, runs: Sequence[Run], settings: GenerationSettings) -> None:
    """Raise UserError for runs with an edit, or reading from one with an edit, that cannot act anywhere."""
    edits = list(dict.fromkeys(edit for run in runs for edit in run.nested_edits))
    if not edits:
        return
    model.check_settings(settings)
    sigmas = model.sigmas(settings)
    for edit in edits:
        check_edit(model, edit, settings, sigmas)
    check_windows(edits, sigmas, model.passes(settings), site_tokens(model, runs, settings))


def site_tokens(
    model: Architecture, runs: Sequence[Run], settings: GenerationSettings
) -> Callable[[Site], int]:
    """Return what gives the number of tokens of a site in a batch of runs and the clips that their edits read."""
    read = [source.clip for run in runs for edit in run.nested_edits for source in edit.runs]
    clips = [clip for clip in (*(run.clip for run in runs), *read) if isinstance(clip, Clip)]

    def n_tokens(site: Site) -> int:
        if not site.on_conditioning:
            return model.tokens_at(site, settings.duration)
        every = batch_tokens(model.conditionings(clips, settings))
        return len(range(every)[model.reads(site.block)])

    return n_tokens


def check_edit(
    model: Architecture, edit: Edit, settings: GenerationSettings, sigmas: Sequence[float]
) -> None:
    """Raise UserError for an edit made on another model or for other steps, or that does not fit the sites.

    `sigmas` are those of runs with the settings.
    """
    if edit.made_on is not None and edit.made_on[1] != model.weights_hash:
        name, weights_hash = edit.made_on
        raise UserError(
            f"{edit.described} was made on {name} (weights {weights_hash}), "
            f"but this model is {model.name} (weights {model.weights_hash}). Make it again on this model."
        )
    check_steps(edit, sigmas)
    check_blocks(sorted(edit.blocks), model.n_blocks)
    if (read := edit.parameters.read_site) is not None:
        check_blocks([read.block], model.n_blocks)
        edit.parameters.check_read(read, model.channels(read))
    heads = edit.window.heads
    for site in edit.value_sites if edit.target == "weights" else ():
        module = model.linear(site)
        edit.parameters.check_weight(site, module.out_features, module.in_features)
    for site in edit.value_sites:
        if heads is not None and not all(0 <= head < model.heads(site.part) for head in heads):
            raise UserError(
                f"{site} has heads 0 to {model.heads(site.part) - 1}, not {max(heads)} "
                "(key and value heads are numbered separately; each is shared by several query heads)."
            )
        of_heads = None if heads is None else model.head_dim(site.block) * len(heads)
        n_tokens = (
            None if site.on_conditioning else _edited_tokens(edit, model.tokens_at(site, settings.duration))
        )
        edit.parameters.check_size(site, n_tokens, of_heads or model.channels(site))


def _check_alike(model: Architecture, clips: Sequence[Clip], settings: GenerationSettings) -> None:
    """Raise UserError for clips whose conditioning tokens are not at the same positions."""
    first, tokens = clips[0], [model.placed_tokens(clip, settings) for clip in clips]
    for clip, own in zip(clips, tokens, strict=True):
        names = f"Cannot blend {quoted(first.prompt)} and {quoted(clip.prompt)}: "
        lengths, others = ([len(part) for part in of] for of in (tokens[0], own))
        if lengths != others:
            raise UserError(
                f"{names}with their lyrics they have {sum(lengths)} and {sum(others)} tokens. Use prompts with the "
                "same number, word by word."
            )
        if any(itertools.starmap(out_of_place, zip(tokens[0], own, strict=True))):
            raise UserError(
                f"{names}words that both have are not at the same tokens. Use prompts that differ only in words at "
                "the same place."
            )


def _edited_tokens(edit: Edit, n_tokens: int) -> int:
    """Return how many of a site's tokens an edit changes."""
    first, last = edit.window.tokens or (0, n_tokens - 1)
    return max(0, min(last + 1, n_tokens) - first)
