"""Screening by velocity and by attribution, against the plain network and closed forms."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from analyses.patching.arms import Arm, ablation_arm, null_arms, patch_arm, path_arm
from analyses.patching.attribution import attribute_arms
from analyses.patching.contexts import PairContext
from analyses.patching.screening import choose_arms, rank_agreement, screen_arms, velocity_screen
from cache.errors import UserError
from tests.double import Smooth
from tests.plain_calls import Change, plain_call, put, row
from tests.tolerances import assert_close
from tests.workbench.studies.test_study import study_spec
from workbench.engine.edits import Run, patch
from workbench.engine.runs import CallInputs, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import Site
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import Pair, Prompt
from workbench.studies.study import Study

N_STEPS = 4
SETTINGS = GenerationSettings(duration=1.0, num_steps=N_STEPS, guidance_scale=3.0)
SEED = 7
# shift 3: sigma = 3t / (1 + 2t), rounded to float32 as the schedule is
SIGMAS = [float(np.float32(3 * t / (1 + 2 * t))) for t in (1.0, 0.75, 0.5, 0.25)]
SIZES = [high - low for high, low in zip(SIGMAS, [*SIGMAS[1:], 0.0], strict=True)]
BOTH = ("tf0.cross_attn", "tf1.cross_attn")


def context(clean: str, corrupt: str) -> PairContext:
    pair = Pair("tempo", Prompt(clean, {"tempo": "fast"}), Prompt(corrupt, {"tempo": "slow"}), "fast")
    return PairContext(pair, None, None, (), (SEED,))


CONTEXTS = {
    "aligned": context("a fast happy song", "a slow happy song"),
    "padded": context("a fast happy violin song with drums", "a slow song"),
}
every_context = pytest.mark.parametrize("pair", CONTEXTS)


def assert_fractions(actual: float, expected: float) -> None:
    """Scores are fractions of what all conditioning does, 1, and agree up to rounding of that."""
    assert_close([actual, 1.0], [expected, 1.0])


def arm(name: str, *sites: str, **options: Any) -> Arm:
    return patch_arm(name, "x", sites, **options)


def screened(model: AceStep15, pair: str, *arms: Arm, settings: GenerationSettings = SETTINGS) -> np.ndarray:
    return velocity_screen(model, CONTEXTS[pair], SEED, arms, settings)[0]


def attributed(model: AceStep15, pair: str, *arms: Arm) -> np.ndarray:
    return attribute_arms(model, CONTEXTS[pair], SEED, arms, SETTINGS)[0]


class Corrupt:
    """The calls of a corrupt run, repeated with the plain network, with the clean and the corrupt prompt."""

    def __init__(self, model: AceStep15, pair: str) -> None:
        self.model = model
        corrupt = Run(Clip(CONTEXTS[pair].pair.corrupt.text, SEED))
        runs = [Run(Clip(CONTEXTS[pair].pair.clean.text, SEED), follows=corrupt), corrupt]
        self.inputs: list[CallInputs] = list(
            model.generate_batch(runs, SETTINGS, velocity_steps=range(N_STEPS)).inputs.values()
        )

    def call(
        self,
        step: int,
        clip: int,
        changes: dict[Site, Change] | None = None,
        clean_mask: tuple[int, ...] = (),
    ) -> tuple[torch.Tensor, dict[Site, torch.Tensor]]:
        """One call for a clip; the blocks of `clean_mask` see the tokens that the clean prompt's call sees."""
        inputs, masks = self.inputs[step], None
        if inputs.mask is not None:
            seen = [0 if block in clean_mask else clip for block in range(self.model.n_blocks)]
            masks = [inputs.mask[whose : whose + 1] for whose in seen]
        return plain_call(self.model, row(inputs.arguments, clip), changes, masks)

    def score(
        self,
        sites: list[Site],
        steps: range = range(N_STEPS),
        fraction: float = 1.0,
        clean_mask: tuple[int, ...] = (),
    ) -> float:
        """The fraction of the difference that is restored when values move by `fraction` towards the clean ones."""
        moved = whole = 0.0
        for step in range(N_STEPS):
            clean, there = self.call(step, 0)
            corrupt, here = self.call(step, 1)
            difference = clean - corrupt
            whole += SIZES[step] * float((difference**2).sum())
            if step in steps:
                values = {site: put(here[site] + fraction * (there[site] - here[site])) for site in sites}
                patched, _ = self.call(step, 1, values, clean_mask)
                moved += SIZES[step] * float(((patched - corrupt) * difference).sum())
        return moved / whole


def keys_and_values(*blocks: int) -> list[Site]:
    return [Site(block, f"cross_attn.{part}") for block in blocks for part in "kv"]


@every_context
def test_everything_is_one_and_nothing_is_zero(tiny64: AceStep15, pair: str) -> None:
    everything, never = arm("all", *BOTH), arm("never", *BOTH, steps=(9, 9))
    last = arm("last", "tf1.block", target="output")
    found = screened(tiny64, pair, everything, never, last)
    assert_fractions(found[0], 1.0)
    assert found[1] == 0.0
    assert_fractions(found[2], 1.0)


@every_context
@pytest.mark.parametrize("site", ["tf0.cross_attn", "tf1.cross_attn"])
def test_windows_of_steps_sum_to_all_steps(tiny64: AceStep15, pair: str, site: str) -> None:
    windows = [arm(str(w), site, steps=w) for w in ((0, 0), (1, 2), (3, 3))]
    sigmas = [arm(str(s), site, sigmas=(s - 0.01, s)) for s in tiny64.sigmas(SETTINGS)]
    whole, *parts = screened(tiny64, pair, arm("whole", site), *windows, *sigmas)
    assert_fractions(sum(parts[:3]), whole)
    assert_fractions(sum(parts[3:]), whole)
    assert min(map(abs, parts)) > 1e-5


@pytest.mark.parametrize(("guidance", "unconditional"), [(3.0, 1), (1.0, 0)])
def test_it_takes_one_run_and_one_row_for_each_step_of_an_arm(
    tiny64: AceStep15, guidance: float, unconditional: int
) -> None:
    """The corrupt run in every pass, the clean prompt once a step, and each arm where it acts."""
    settings = SETTINGS.model_copy(update={"guidance_scale": guidance})
    arms = [
        arm("a", "tf0.cross_attn"),
        arm("b", "tf1.cross_attn", steps=(1, 2)),
        arm("c", *BOTH, steps=(9, 9)),
    ]
    rows = velocity_screen(tiny64, CONTEXTS["aligned"], SEED, arms, settings)[1]
    assert rows == N_STEPS * (2 + unconditional) + N_STEPS + 2
    assert velocity_screen(tiny64, CONTEXTS["aligned"], SEED, [], settings)[1] == N_STEPS * (
        2 + unconditional
    )


@pytest.mark.parametrize("blocks", [(0,), (1,), (0, 1)])
@every_context
def test_the_velocity_screen_is_that_of_the_plain_network(
    tiny64: AceStep15, pair: str, blocks: tuple
) -> None:
    corrupt = Corrupt(tiny64, pair)
    sites = [f"tf{block}.cross_attn" for block in blocks]
    arms = [
        arm("all", *sites),
        arm("values", *sites, parts=("values",)),
        arm("late", *sites, steps=(2, 3)),
        arm("output", *sites, target="output"),
    ]
    values_only = [site for site in keys_and_values(*blocks) if site.part.endswith("v")]
    found = screened(tiny64, pair, *arms)
    exchanged = keys_and_values(*blocks)
    assert_fractions(found[0], corrupt.score(exchanged, clean_mask=blocks))
    assert_fractions(found[2], corrupt.score(exchanged, range(2, 4), clean_mask=blocks))
    assert_fractions(found[1], corrupt.score(values_only))
    assert_fractions(found[3], corrupt.score([Site(block, "cross_attn") for block in blocks]))


def test_the_corrupt_run_is_not_left(tiny64: AceStep15) -> None:
    """Other arms beside it do not change an arm's score."""
    one, other = arm("one", "tf0.cross_attn"), arm("other", "tf0.mlp", "tf1.mlp", target="output")
    together = screened(tiny64, "padded", other, one)
    assert_fractions(screened(tiny64, "padded", one)[0], together[1])


def test_equal_prompts_have_no_score(tiny64: AceStep15) -> None:
    same = context("a song", "a song")
    for screen in (velocity_screen, attribute_arms):
        assert np.isnan(screen(tiny64, same, SEED, [arm("all", *BOTH)], SETTINGS)[0]).all()


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_step_sizes_reach_from_noise_to_nothing(tiny: AceStep15, steps: int, shift: float) -> None:
    sizes = np.array(tiny.step_sizes(GenerationSettings(num_steps=steps, options={"shift": shift})))
    assert sizes.shape == (steps,)
    assert sizes.sum() == pytest.approx(1.0, abs=1e-6)
    assert (sizes > 0).all()
    if shift == 1.0:
        np.testing.assert_allclose(sizes, 1 / steps, rtol=1e-5)
    assert tiny.step_sizes(SETTINGS) == pytest.approx(SIZES)


# Attribution

FRACTION = 1e-4


@pytest.mark.parametrize("parts", [("keys", "values"), ("keys",), ("values",)])
@pytest.mark.parametrize("block", [0, 1])
@every_context
def test_attribution_is_the_derivative_of_the_velocity_screen(
    tiny64: AceStep15, pair: str, block: int, parts: tuple
) -> None:
    names = {"keys": Site(block, "cross_attn.k"), "values": Site(block, "cross_attn.v")}
    (found,) = attributed(tiny64, pair, arm("x", f"tf{block}.cross_attn", parts=parts))
    with Smooth():
        measured = Corrupt(tiny64, pair).score([names[c] for c in parts], fraction=FRACTION) / FRACTION
    assert found == pytest.approx(measured, rel=1e-3)
    assert abs(found) > 1e-4


@pytest.mark.parametrize("part", ["cross_attn", "self_attn", "mlp", "block", "cross_attn.q", "self_attn.v"])
def test_attribution_of_outputs_is_their_derivative(tiny64: AceStep15, part: str) -> None:
    (found,) = attributed(tiny64, "padded", arm("x", f"tf1.{part}", target="output", steps=(1, 3)))
    with Smooth():
        measured = Corrupt(tiny64, "padded").score([Site(1, part)], range(1, 4), fraction=FRACTION) / FRACTION
    assert found == pytest.approx(measured, rel=1e-3)
    assert abs(found) > 1e-4


@every_context
def test_heads_sum_to_the_output(tiny64: AceStep15, pair: str) -> None:
    heads = [arm(str(h), "tf0.cross_attn.heads", target="output", heads=(h,)) for h in range(4)]
    whole, together, *parts = attributed(
        tiny64,
        pair,
        arm("x", "tf0.cross_attn", target="output"),
        arm("y", "tf0.cross_attn.heads", target="output"),
        *heads,
    )
    assert_fractions(together, whole)
    assert_fractions(sum(parts), whole)
    assert min(map(abs, parts)) > 1e-6


SPLITS = {
    "steps": [{"steps": (0, 1)}, {"steps": (2, 3)}],
    "keys and values": [{"parts": ("keys",)}, {"parts": ("values",)}],
    "segments": [{"segments": (name,)} for name in ("lyrics", "timbre", "text")],
    "words": [
        {"segments": (name,)} for name in ("lyrics", "timbre", "template", "before", "swapped", "after")
    ],
}


@pytest.mark.parametrize("split", SPLITS)
def test_attribution_is_additive(tiny64: AceStep15, split: str) -> None:
    arms = [arm(str(i), "tf0.cross_attn", **spec) for i, spec in enumerate(SPLITS[split])]
    whole, *parts = attributed(tiny64, "aligned", arm("whole", "tf0.cross_attn"), *arms)
    assert_fractions(sum(parts), whole)
    assert sum(abs(part) > 1e-6 for part in parts) >= (1 if split == "segments" else 2), (
        "only the text differs"
    )


def test_attribution_of_the_last_block_is_the_velocity_screen(tiny64: AceStep15) -> None:
    """What follows it is not linear, but nearly so over a small fraction; its derivative is near the whole."""
    tokens = [arm(str(i), "tf1.block", target="output", tokens=(i, i)) for i in range(tiny64.tokens(1.0))]
    whole, *parts = attributed(tiny64, "aligned", arm("x", "tf1.block", target="output"), *tokens)
    assert_fractions(sum(parts), whole)
    assert whole == pytest.approx(1.0, abs=0.2)


def test_attribution_costs_the_same_for_any_number_of_arms(tiny64: AceStep15) -> None:
    """Each step runs corrupt in two passes and clean in one; then both again, and one backward pass of two rows."""
    for arms in (
        [arm("a", "tf0.cross_attn")],
        [arm(str(b), f"tf{b}.{p}", target="output") for b in (0, 1) for p in ("mlp", "block")],
    ):
        assert attribute_arms(tiny64, CONTEXTS["aligned"], SEED, arms, SETTINGS)[1] == N_STEPS * (3 + 2 + 2)


# What a map does with it


@pytest.fixture
def study(tiny: AceStep15, tmp_path: Path) -> Study:
    return Study.create(tmp_path / "study", study_spec(tiny), tiny.describe(), str)


@pytest.mark.parametrize("method", ["velocity", "attribution"])
def test_screening_is_the_mean_over_pairs_of_the_cells(study: Study, tiny: AceStep15, method: str) -> None:
    screen = {"velocity": velocity_screen, "attribution": attribute_arms}[method]
    cells = [arm("tf0", "tf0.cross_attn"), arm("tf1", "tf1.cross_attn")]
    pairs = {"tempo": list(CONTEXTS.values()), "mood": [context("a happy song", "a sad song")]}
    found = screen_arms(study, tiny, method, pairs, cells + null_arms(cells, ("random",)))
    assert found.dims == ("concept", "arm")
    assert list(found.arm.values) == [cell.name for cell in cells]
    alone = [screen(tiny, each, SEED, cells, study.spec.settings) for each in pairs["tempo"]]
    np.testing.assert_allclose(
        found.sel(concept="tempo"), np.mean([scores for scores, _ in alone], axis=0), rtol=1e-5
    )
    mood, rows = screen(tiny, pairs["mood"][0], SEED, cells, study.spec.settings)
    np.testing.assert_allclose(found.sel(concept="mood"), mood, rtol=1e-5)
    assert found.attrs["rows"] == rows + sum(computed for _, computed in alone)


@pytest.mark.parametrize(
    "unfit",
    [
        patch_arm("tf0", "necessity", BOTH, "necessity"),
        ablation_arm("tf0", "zero", "tf0.mlp", "zero"),
        path_arm(0, Site(1, "mlp"), "conditioning"),
        Arm("tf0 unrelated", "tf0", "x", (patch(BOTH, "unrelated"),)),
    ],
    ids=lambda unfit: unfit.name,
)
def test_what_cannot_be_screened_is_named(study: Study, tiny: AceStep15, unfit: Arm) -> None:
    with pytest.raises(UserError, match=f"'{unfit.name}' cannot be screened"):
        screen_arms(study, tiny, "velocity", {"tempo": [CONTEXTS["aligned"]]}, [arm("tf0", *BOTH), unfit])


NAMES = [f"arm {i}" for i in range(10)]
SCREEN = xr.DataArray(
    [np.arange(10.0), -np.arange(10.0)],
    coords={"concept": ["up", "down"], "arm": NAMES},
    dims=("concept", "arm"),
)
ARMS = [replace(arm(name, *BOTH), name=name) for name in NAMES]
NULLS = null_arms(ARMS[:2], ("unrelated",))


def chosen(top: int, sample: int, seed: int = 0, screen: xr.DataArray = SCREEN) -> dict[str, list[str]]:
    picked = choose_arms(screen, ARMS + NULLS, top, sample, seed)
    return {concept: [each.name for each in arms] for concept, arms in picked.items()}


def test_the_top_arms_are_chosen_in_their_order_with_all_nulls() -> None:
    nulls = [null.name for null in NULLS]
    assert chosen(3, 0) == {"up": [*NAMES[7:], *nulls], "down": [*NAMES[:3], *nulls]}


def test_a_sample_of_the_others_is_drawn() -> None:
    drawn = chosen(3, 4)
    for concept, top in (("up", NAMES[7:]), ("down", NAMES[:3])):
        cells = drawn[concept][:-2]
        assert len(cells) == len(set(cells)) == 7
        assert set(top) < set(cells)
    assert chosen(3, 4) == drawn
    samples = {tuple(chosen(3, 4, seed)["up"]) for seed in range(20)}
    assert len(samples) > 10
    assert {name for sample in samples for name in sample} >= set(NAMES), "any of them may be drawn"


@pytest.mark.parametrize(("top", "sample"), [(10, 2), (99, 99), (4, 99)])
def test_there_may_be_fewer_arms_than_asked_for(top: int, sample: int) -> None:
    assert chosen(top, sample)["up"][:-2] == NAMES


def test_an_arm_without_a_score_is_never_on_top() -> None:
    unknown = SCREEN.copy()
    unknown.loc[{"arm": NAMES[:3]}] = np.nan
    assert chosen(1, 0, screen=unknown)["down"][0] == NAMES[3]


def table(*rows: list[float]) -> xr.DataArray:
    coords = {"concept": [str(i) for i in range(len(rows))], "arm": list("abcde")[: len(rows[0])]}
    return xr.DataArray(np.array(rows), coords=coords, dims=("concept", "arm"))


def test_rank_agreement_is_spearmans() -> None:
    """With n ranks and differences d: 1 - 6 sum d² / (n (n² - 1))."""
    screen = table([1.0, 2, 3, 4, 5], [1, 2, 3, 4, 5], [5, 1, 2, 3, 4])
    exact = table([10.0, 20, 30, 40, 99], [5, 4, 3, 2, 1], [1, 2, 3, 4, 5])
    found = rank_agreement(screen, exact)
    assert found.dims == ("concept",)
    np.testing.assert_allclose(found, [1.0, -1.0, 1 - 6 * (16 + 4) / (5 * 24)])


def test_rank_agreement_is_over_arms_that_have_both() -> None:
    nan = np.nan
    screen = table([1.0, 2, 3, nan, 0], [1, 2, nan, nan, 3], [1, 1, 1, 1, 1], [1, 2, 3, 4, 5])
    exact = table([3.0, 2, 1, 9, nan], [1, nan, 2, 3, 4], [1, 2, 3, 4, 5], [2, 2, 2, 2, 2])
    np.testing.assert_allclose(rank_agreement(screen, exact), [-1.0, nan, nan, nan])


def test_ranks_below_zero_are_ties() -> None:
    """What cannot have an effect and what has none by a hair are alike."""
    coords = {"concept": ["c"], "arm": list("abcd")}
    screen = xr.DataArray([[0.0, 0.0, 0.3, 0.9]], coords=coords, dims=("concept", "arm"))
    exact = xr.DataArray([[0.0, -1e-7, -1e-9, 0.8]], coords=coords, dims=("concept", "arm"))
    floored = xr.DataArray([[0.0, 0.0, 0.0, 0.8]], coords=coords, dims=("concept", "arm"))
    assert float(rank_agreement(screen, exact)) == pytest.approx(float(rank_agreement(screen, floored)))
    assert float(rank_agreement(screen, exact)) > 0.7
