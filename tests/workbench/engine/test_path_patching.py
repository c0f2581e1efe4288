"""Path patching against the same runs written by hand: the untouched pipeline with torch's own hooks."""

from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from analyses.patching.arms import Arm, path_arm
from analyses.patching.contexts import PairContext
from analyses.patching.sweep import run_arms
from tests.plain_calls import plain_call, put
from tests.tolerances import assert_close, difference
from workbench.engine.edits import SELF, Edit, Run, ablate
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import Pair, Prompt

SEED = 7
SETTINGS = {
    "three steps": GenerationSettings(duration=1.0, num_steps=3, guidance_scale=1.0),
    "guided": GenerationSettings(duration=1.0, num_steps=3, guidance_scale=3.0),
}
PROMPTS = {
    "aligned": ("a fast happy song", "a slow happy song"),
    "padded": ("a fast happy violin song with drums", "a slow song"),
}
# What a receiver must not see move: all that writes after the sender and before it.
BETWEEN = {
    (0, "tf0.mlp"): (),
    (0, "tf1.self_attn"): ("tf0.mlp",),
    (0, "tf1.cross_attn"): ("tf0.mlp", "tf1.self_attn"),
    (0, "tf1.mlp"): ("tf0.mlp", "tf1.self_attn", "tf1.cross_attn"),
    (0, "tf1.block"): ("tf0.mlp", "tf1.self_attn", "tf1.cross_attn", "tf1.mlp"),
    (0, "tf1.cross_attn.q"): ("tf0.mlp", "tf1.self_attn"),
    (1, "tf1.mlp"): (),
}


def context(prompts: str) -> PairContext:
    clean, corrupt = (Prompt(text, {"tempo": text}) for text in PROMPTS[prompts])
    return PairContext(Pair("tempo", clean, corrupt, "fast"), None, None, ())


def run(model: AceStep15, prompts: str, settings: GenerationSettings, *arms: Arm) -> torch.Tensor:
    """Latents of clean, corrupt and the arms."""
    return run_arms(model, context(prompts), SEED, arms, settings).latents


def helper_edits(arm: Arm) -> tuple[Edit, ...]:
    """The edits of the helper run that a path's receiver reads from."""
    (receiver,) = arm.edits
    return receiver.sources[0].edits


def with_helper_edits(arm: Arm, edits: tuple[Edit, ...]) -> Arm:
    """The arm with other edits of its helper run."""
    (receiver,) = arm.edits
    return replace(arm, edits=(replace(receiver, sources=(replace(receiver.sources[0], edits=edits),)),))


def late(edit: Edit) -> Edit:
    """The edit from step 1 on."""
    return replace(edit, window=replace(edit.window, steps=(1, 2)))


class ByHand:
    """The pipeline on a clean and a corrupt prompt, the second one's calls patched along a path.

    Every call's output is put together from calls of the plain network: the clean prompt's for the sender's value,
    the corrupt one's for all that is held, one with both in place for the receiver's value, and one with that.
    """

    def __init__(
        self, model: AceStep15, sender: int, receiver: Site, held: tuple[str, ...], mode: str
    ) -> None:
        self.model, self.mode = model, mode
        self.receiver = receiver
        self.held = [Site.parse(site) for site in held]
        parts = ("cross_attn",) if mode == "output" else ("cross_attn.k", "cross_attn.v")
        self.sender = [Site(sender, part) for part in parts]
        self.inside = False

    def latents(self, prompts: str, settings: GenerationSettings) -> torch.Tensor:
        clips = [Clip(prompt, SEED) for prompt in PROMPTS[prompts]]
        with self._hooked():
            return self.model.pipeline(
                prompt=[clip.prompt for clip in clips],
                lyrics=[clip.lyrics for clip in clips],
                audio_duration=settings.duration,
                num_inference_steps=settings.num_steps,
                guidance_scale=settings.guidance_scale,
                latents=self.model.noise(clips, settings.duration),
                output_type="latent",
            ).audios

    @contextmanager
    def _hooked(self):
        hooks = [
            self.model.pipeline.condition_encoder.register_forward_hook(self._see),
            self.model.pipeline.transformer.register_forward_hook(self._replace, with_kwargs=True),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _see(self, module: torch.nn.Module, inputs: tuple, output: tuple) -> None:
        del module, inputs
        self.real = output[1].bool()

    def _replace(self, module: torch.nn.Module, inputs: tuple, options: dict[str, Any], output: Any) -> Any:
        del module, inputs, output
        if self.inside:
            return None
        self.inside = True
        n_rows = len(options["hidden_states"])
        halves = [self._call(options, n_rows, first) for first in range(0, n_rows, 2)]
        self.inside = False
        return (torch.cat(halves),)

    def _call(self, options: dict[str, Any], n_rows: int, first: int) -> torch.Tensor:
        """Velocities of one pass of both clips."""
        clean, corrupt = (
            {
                name: value[row : row + 1]
                if isinstance(value, torch.Tensor) and len(value) == n_rows
                else value
                for name, value in options.items()
            }
            for row in (first, first + 1)
        )
        ours, theirs = ([self.real[clip : clip + 1]] * self.model.n_blocks for clip in (1, 0))
        clean_velocity, clean_values = plain_call(self.model, clean, masks=theirs)
        _, own_values = plain_call(self.model, corrupt, masks=ours)
        sent = {site: put(clean_values[site]) for site in self.sender}
        held = {site: put(own_values[site]) for site in self.held}
        masks = list(ours)
        if self.mode == "conditioning":
            masks[self.sender[0].block] = theirs[0]
        _, on_path = plain_call(self.model, corrupt, sent | held, masks)
        velocity, _ = plain_call(self.model, corrupt, {self.receiver: put(on_path[self.receiver])}, ours)
        return torch.cat([clean_velocity, velocity])


@pytest.mark.parametrize("mode", ["conditioning", "output"])
@pytest.mark.parametrize("path", BETWEEN, ids=lambda path: f"tf{path[0]} to {path[1]}")
@pytest.mark.parametrize(
    ("settings", "prompts"),
    [("three steps", "aligned"), ("guided", "padded")],
)
def test_a_path_is_what_is_written_by_hand(
    tiny64: AceStep15, settings: str, prompts: str, path: tuple[int, str], mode: str
) -> None:
    sender, receiver = path[0], Site.parse(path[1])
    clean, corrupt, arm = run(tiny64, prompts, SETTINGS[settings], path_arm(sender, receiver, mode))
    by_hand = ByHand(tiny64, sender, receiver, BETWEEN[path], mode).latents(prompts, SETTINGS[settings])
    assert_close(clean, by_hand[0])
    assert_close(arm, by_hand[1])
    assert difference(arm, corrupt) > 1e-6


def test_paths_of_one_batch_do_not_touch_each_other(tiny64: AceStep15) -> None:
    arms = [path_arm(sender, Site.parse(receiver), "conditioning") for sender, receiver in BETWEEN]
    together = run(tiny64, "padded", SETTINGS["guided"], *arms)
    for place, arm in enumerate(arms):
        alone = run(tiny64, "padded", SETTINGS["guided"], arm)
        assert_close(together[2 + place], alone[2])
        assert_close(together[1], alone[1])


@pytest.mark.parametrize("mode", ["conditioning", "output"])
@pytest.mark.parametrize("receiver", ["tf1.mlp", "tf1.self_attn", "tf1.block"])
def test_a_sender_with_its_own_value_sends_nothing(tiny64: AceStep15, receiver: str, mode: str) -> None:
    arm = path_arm(0, Site.parse(receiver), mode)
    sender, *rest = helper_edits(arm)
    own = with_helper_edits(arm, (replace(sender, sources=(Run(SELF),)), *rest))
    latents = run(tiny64, "padded", SETTINGS["guided"], own)
    assert_close(latents[2], latents[1])


@pytest.mark.parametrize("receiver", ["tf1.cross_attn.k", "tf1.cross_attn.v"])
def test_nothing_reaches_what_reads_the_conditioning_only(tiny64: AceStep15, receiver: str) -> None:
    latents = run(tiny64, "aligned", SETTINGS["guided"], path_arm(0, Site.parse(receiver), "conditioning"))
    assert_close(latents[2], latents[1])


def test_a_path_that_opens_late_changes_nothing_before(tiny64: AceStep15) -> None:
    """Until the receiver is patched nobody reads the helper run, whatever is done to it."""
    settings = SETTINGS["three steps"]
    arm = path_arm(0, Site(1, "mlp"), "conditioning")
    receiver_late = replace(arm, edits=tuple(map(late, arm.edits)))
    receiver_only = run(tiny64, "aligned", settings, receiver_late)
    helper_late = with_helper_edits(receiver_late, tuple(map(late, helper_edits(arm))))
    all_late = run(tiny64, "aligned", settings, helper_late)
    assert_close(receiver_only[1], all_late[1], "the corrupt run above all")
    assert_close(receiver_only[2], all_late[2])


def test_a_probe_leaves_the_run_that_it_shadows(tiny64: AceStep15) -> None:
    """In the null pass, whose velocity nobody asks for, just as in the cond pass."""
    clip = Clip("a slow happy song", SEED)
    probe = Run(clip, (ablate("tf0.mlp"),), follows=Run(clip))
    steps = range(SETTINGS["guided"].num_steps)
    probed = tiny64.generate_batch([clip, probe], SETTINGS["guided"], velocity_steps=steps)
    alone = tiny64.generate_batch([clip], SETTINGS["guided"])
    assert_close(probed.latents[0], alone.latents[0])


def test_what_is_held_matters(tiny64: AceStep15) -> None:
    """Without it, the receiver takes all that the sender changes, on every way."""
    arm = path_arm(0, Site(1, "mlp"), "conditioning")
    sender, _ = helper_edits(arm)
    every_way = with_helper_edits(replace(arm, name="every way"), (sender,))
    latents = run(tiny64, "aligned", SETTINGS["three steps"], arm, every_way)
    assert difference(latents[2], latents[3]) > 1e-5
