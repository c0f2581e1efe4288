"""Checks that every model and its runs must pass, as functions of a `Subject`, in the manner of scikit-learn's.

Exact checks run in float64. `pair("padded")` has prompts of different lengths, so that one is padded in a batch.
"""

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode

from cache.errors import UserError
from tests.edited import edited
from tests.tolerances import assert_close, difference
from tests.workbench.models.architectures import UNGUIDED, Subject
from workbench.engine.edits import Edit, Run, ablate, add, patch
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import PARTS, Site
from workbench.models.base import AudioDiffusionModel
from workbench.provenance import weights_hash

SHORT = Clip("a slow song", 7)
LONG = Clip("a fast happy violin song with drums", 8)
PROMPTS = {"aligned": ("a slow happy song", "a fast happy song"), "padded": (SHORT.prompt, LONG.prompt)}


def pair(name: str = "aligned", seed: int = 7) -> list[Clip]:
    """A clean and a corrupt clip with the same noise."""
    return [Clip(prompt, seed) for prompt in PROMPTS[name]]


def unlike() -> list[Clip]:
    """Two clips of the same length with different noise."""
    return [replace(clip, seed=seed) for seed, clip in enumerate(pair())]


class LinearRows(TorchFunctionMode):
    """Rows that are multiplied by one weight, by call."""

    def __init__(self, module: torch.nn.Linear) -> None:
        super().__init__()
        self.weight = module.weight
        self.rows: list[int] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.linear and args[1] is self.weight:
            self.rows.append(len(args[0]))
        return func(*args, **(kwargs or {}))


# A model's description of itself


def check_its_files_choose_its_adapter(subject: Subject) -> None:
    model = subject.single
    assert type(model).__name__ == subject.architecture.adapter
    assert isinstance(model, AudioDiffusionModel)
    facts = {
        "model": str(subject.folder),
        "weights_hash": model.weights_hash,
        "device": "cpu",
        "dtype": "float32",
    }
    assert facts.items() <= model.describe().items()
    assert subject.exact.describe()["dtype"] == "float64"
    assert next(subject.exact.denoiser.parameters()).dtype == torch.float64
    for settings in subject.variants:
        model.check_settings(settings)


def check_every_file_decides_its_hash(subject: Subject) -> None:
    with tempfile.TemporaryDirectory() as parent:
        copy = shutil.copytree(subject.folder, Path(parent) / "copy")
        assert weights_hash(copy) == subject.single.weights_hash == subject.exact.weights_hash
        weights, configurations = (sorted(copy.glob(f"*/*.{ending}")) for ending in ("safetensors", "json"))
        assert weights and configurations
        for file in [*weights, *configurations]:
            kept = file.read_bytes()
            file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
            assert weights_hash(copy) != subject.single.weights_hash, file
            file.write_bytes(kept)


def check_sizes(subject: Subject) -> None:
    model, settings = subject.exact, subject.settings
    sites = model.sites()
    assert len(sites) == len(subject.architecture.blocks(model)) * len(PARTS)
    capture = Capture(tuple(sites), (1,), ("cond",))
    kept = model.generate_batch([LONG], settings, capture).activations
    for site in sites:
        n_tokens, n_channels = kept[site].shape[-2:]
        assert n_channels == model.channels(site), site
        if not site.on_conditioning:
            assert n_tokens == model.tokens_at(site, settings.duration), site
    inner = model.channels(Site(subject.block, "cross_attn.heads"))
    assert model.head_dim(subject.block) * model.heads("heads") == inner
    assert model.tokens(settings.duration) == max(model.tokens_at(site, settings.duration) for site in sites)


# Unedited runs


def check_traced_equals_untraced(subject: Subject) -> None:
    """Bit for bit if the computation is the same; and in batches."""
    model = subject.single
    for settings in subject.variants:
        capture = Capture(tuple(model.sites()), (0, 3), ("cond",))
        traced = model.generate_batch([LONG], settings, capture).latents
        assert torch.equal(traced, subject.untraced(model, [LONG], settings)), settings
        together = model.generate_batch(unlike(), settings).latents
        assert_close(together, subject.untraced(model, unlike(), settings), settings)


def check_labels_are_read_off_the_calls(subject: Subject) -> None:
    """Whatever was generated before."""
    model, order = subject.single, subject.architecture.order
    for settings in [*subject.variants, subject.settings]:
        calls = model.generate_batch([LONG, SHORT], settings).calls
        assert [call.step for call in calls] == [0, 1, 2, 3]
        assert [call.sigma for call in calls] == pytest.approx(model.sigmas(settings), rel=1e-6)
        assert model.sigmas(settings) == sorted(model.sigmas(settings), reverse=True)
        of_steps = model.step_passes(settings)
        assert set().union(*of_steps) == set(model.passes(settings))
        for call, names in zip(calls, of_steps, strict=True):
            assert call.passes == tuple(name for name in order if name in names for _ in range(2))
            assert call.clips == (0, 1) * len(names)
        sampling, guided = model.sampling(settings), any(len(set(call.passes)) > 1 for call in calls)
        assert sampling.passes == tuple(of_steps)
        assert sampling.scheduler == type(model.pipeline.scheduler).__name__
        assert sampling.guidance_scale == (settings.guidance_scale if guided else 1.0)
        assert settings.options.items() <= sampling.options.items()
        assert sampling.adapters == ()
    throughout = model.guided_throughout(subject.settings)
    assert set(model.step_passes(throughout)) == {model.passes(throughout)}


def _keep(kept: list[torch.Tensor], as_input: bool, _: Any, inputs: Any, output: torch.Tensor) -> None:
    kept.append(inputs[0] if as_input else output)


def check_captured_values_are_what_the_modules_gave(subject: Subject) -> None:
    """Everywhere, in their step, pass and clip."""
    model, settings, clips = subject.single, subject.settings, unlike()
    seen: dict[Site, list[torch.Tensor]] = defaultdict(list)
    hooks = []
    for block in range(model.n_blocks):
        for part, (module, as_input) in subject.modules(model, block).items():
            keep = partial(_keep, seen[Site(block, part)], as_input)
            hooks.append(module.register_forward_hook(keep))
    subject.untraced(model, clips, settings)
    for hook in hooks:
        hook.remove()
    passes = model.passes(settings)[::-1]
    capture = Capture(tuple(model.sites()), (1, 2), passes)
    kept = model.generate_batch(clips, settings, capture).activations
    order = [name for name in subject.architecture.order if name in passes]
    for site, calls in seen.items():
        for place, step in enumerate((1, 2)):
            rows = calls[step].unflatten(0, (len(order), len(clips)))
            expected = torch.stack([rows[order.index(name)] for name in passes], dim=1)
            assert_close(kept[site][:, place], expected, f"{site}, step {step}")
    assert len(seen) == len(model.sites())


def check_noise_follows_each_clips_seed_and_nothing_else(subject: Subject) -> None:
    model, settings = subject.single, subject.settings

    def noise(clips: list[Clip]) -> torch.Tensor:
        made = model.generate_batch(clips, settings, velocity_steps=(0,))
        return made.inputs[0].arguments[model.call_class.latents]

    first = noise([SHORT, LONG, replace(LONG, seed=SHORT.seed)])
    assert torch.equal(first[0], first[2])
    assert difference(first[0], first[1]) > 0.1
    assert torch.equal(noise([replace(SHORT, seed=LONG.seed)])[0], first[1])


def check_rows_do_not_depend_on_their_batch(subject: Subject) -> None:
    for settings in subject.variants:
        together = subject.exact.generate_batch([SHORT, LONG], settings).latents
        for clip, row in zip([SHORT, LONG], together, strict=True):
            assert_close(row, subject.exact.generate_batch([clip], settings).latents[0], (clip, settings))


def check_settings_matter(subject: Subject) -> None:
    longer = subject.settings.model_copy(update={"num_steps": 3})
    latents = [
        subject.exact.generate_batch([LONG], settings).latents for settings in (*subject.variants, longer)
    ]
    if subject.exact.passes(subject.settings) == ("cond",):
        assert_close(latents[1], latents[0], "guidance is distilled into it")
        del latents[1]
    for other in latents[1:]:
        assert difference(other, latents[0]) > 1e-5


def check_each_clip_is_decoded_as_it_is_alone(subject: Subject) -> None:
    model, clips = subject.single, [SHORT, LONG]
    for duration in (subject.settings.duration, subject.architecture.odd_duration):
        settings = subject.settings.model_copy(update={"duration": duration})
        latents = torch.cat([subject.untraced(model, [clip], settings) for clip in clips])
        for clip, audio in zip(clips, model.decode(latents, duration), strict=True):
            untraced = subject.untraced_audio(model, clip, settings)
            assert_close(audio, untraced, (clip, duration))
            assert untraced.abs().max() > 1e-3
            assert audio.shape[-1] / model.sample_rate == pytest.approx(
                model.seconds(duration), abs=1 / model.sample_rate
            )


def check_numbers_that_break_are_said_of_their_run_and_step(subject: Subject) -> None:
    model = subject.exact
    vector = (1e10,) * model.channels(Site(0, "block"))
    broken = Run(LONG, (add(vector, "tf0.block", strength=1e305, steps=(2, 2)),))
    made = model.generate_batch([SHORT, broken, LONG], subject.settings)
    assert made.broke_at == (None, 2, None)
    assert made.latents[[0, 2]].isfinite().all()
    assert not made.latents[1].isfinite().all()


# The conditioning


def check_segments_cover_the_conditioning(subject: Subject) -> None:
    model, settings = subject.exact, subject.settings
    place = model.conditioning(LONG, settings)
    assert place.segments == model.segments(LONG, settings)
    spans = sorted(place.segments.values())
    assert spans[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(spans))
    words = [word for word, _, _ in place.words]
    assert words == LONG.prompt.split()
    ends = [token for _, first, last in place.words for token in (first, last)]
    assert ends == sorted(ends)
    first, last = place.segments["text"]
    assert first <= ends[0] < ends[-1] <= last
    keys = tuple(Site(block, "cross_attn.k") for block in range(model.n_blocks))
    kept = model.generate_batch([LONG], settings, Capture(keys, (0,), ("cond",))).activations
    for site in keys:
        read = range(spans[-1][1])[model.reads(site.block)]
        assert kept[site].shape[3] == len(read), site


def check_what_the_prompt_changes_is_its_text(subject: Subject) -> None:
    """For two prompts that differ in one word, only keys of the text differ, including that word's."""
    model, settings, clips = subject.exact, subject.settings, pair()
    site = Site(subject.block, "cross_attn.k")
    keys = model.generate_batch(clips, settings, Capture((site,), (0,), ("cond",))).activations[site][:, 0, 0]
    place = model.conditioning(clips[0], settings)
    read = range(max(end for _, end in place.segments.values()))[model.reads(subject.block)]
    scale = keys.abs().max()
    differ = {
        read[token] for token in ((keys[0] - keys[1]).abs().amax(-1) > 1e-9 * scale).nonzero().flatten()
    }
    assert differ <= set(range(*place.segments["text"]))
    (swapped,) = (set(range(first, last)) for word, first, last in place.words if word == "slow")
    assert swapped <= differ
    encoded = zip(*(model.encoded_tokens(clip, settings) for clip in clips), strict=True)
    first, _ = place.segments["text"]
    assert swapped in [
        {first + token for token, (one, other) in enumerate(zip(*both, strict=False)) if one != other}
        for both in encoded
    ], "the word's tokens are those that an encoder reads there"


def check_what_is_beyond_the_encoders_limit_is_not_read(subject: Subject) -> None:
    model, settings = subject.exact, subject.settings
    beyond = [Clip(" ".join(["happy"] * 300 + [word]), 7) for word in ("slow", "fast")]
    one, other = (model.encoded_tokens(clip, settings) for clip in beyond)
    assert one == other
    clean, corrupt = (model.encoded_tokens(clip, settings) for clip in pair())
    assert clean != corrupt
    latents = model.generate_batch([*beyond, *pair()], settings).latents
    assert_close(latents[0], latents[1])
    assert difference(latents[2], latents[3]) > 1e-3


def check_conditionings_are_computed_once(subject: Subject) -> None:
    """Once for each prompt and pass if there are edits; otherwise the pipeline works as usual."""
    model = subject.exact
    settings = model.guided_throughout(subject.settings)
    n_passes = len(model.passes(settings))
    arm = edited(pair()[1], [patch(f"tf{subject.block}.cross_attn", "other", steps=(2, 2))], pair()[0])
    projections = [subject.modules(model, subject.block)[f"cross_attn.{part}"][0] for part in "kv"]
    if subject.architecture.embedder is not None:
        projections.append(model.denoiser.get_submodule(subject.architecture.embedder))
    for module in projections:
        with LinearRows(module) as plain:
            alone = model.generate_batch(pair(), settings).latents
        assert plain.rows == [2 * n_passes] * 4
        with LinearRows(module) as patched:
            beside_edits = model.generate_batch([*pair(), arm], settings).latents
        assert patched.rows == [2 * n_passes]
        assert_close(beside_edits[:2], alone)


# Invalid requests


def check_bad_requests_get_one_clear_sentence(subject: Subject) -> None:
    model, settings = subject.single, subject.settings

    def with_edit(edit: Edit) -> Callable[[], Any]:
        return lambda: model.generate_batch([Run(LONG, (edit,))], settings)

    def keeping(step: int, pass_name: str, settings: GenerationSettings = settings) -> Callable[[], Any]:
        capture = Capture((Site(0, "mlp"),), (step,), (pass_name,))
        return lambda: model.generate_batch([LONG], settings, capture)

    def under(**changes: Any) -> Callable[[], Any]:
        return lambda: model.generate_batch([LONG], settings.model_copy(update=changes))

    beyond = model.n_blocks
    refused = [
        ("clips is empty", lambda: model.generate_batch([], settings)),
        (f"tf{beyond} does not exist", with_edit(ablate(f"tf{beyond}.mlp"))),
        (f"tf{beyond} does not exist", with_edit(patch(f"tf{beyond}.cross_attn", LONG, parts=("mask",)))),
        *(
            (
                rf"{model.channels(Site(0, 'mlp'))} numbers.* tf0\.mlp",
                with_edit(add((1.0,), "tf0.mlp", strength=strength)),
            )
            for strength in (1.0, 0.0)
        ),
        ("heads 0 to", with_edit(patch("tf0.cross_attn.k", SHORT, target="output", heads=(99,)))),
        ("'chorus'", with_edit(patch("tf0.cross_attn", SHORT, segments=("chorus",)))),
        ("from 0 to 3", keeping(9, "cond")),
        ("null pass needs a guidance", keeping(0, "null", settings.model_copy(update=UNGUIDED))),
        ("no option nothing", under(options={"nothing": 1})),
    ]
    for variant in subject.variants:
        lone = [step for step, names in enumerate(model.step_passes(variant)) if names == ("cond",)]
        if lone and model.passes(variant) != ("cond",):
            refused.append(
                (
                    f"Step {lone[0]} runs only the cond pass",
                    keeping(lone[0], "null", variant),
                )
            )
    if not subject.architecture.sings:
        refused.append(("lyrics", lambda: model.generate_batch([replace(LONG, lyrics="la")], settings)))
    for sentence, request in refused:
        with pytest.raises(UserError, match=sentence) as error:
            request()
        assert "\n" not in str(error.value)


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]
