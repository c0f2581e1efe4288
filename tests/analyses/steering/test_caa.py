"""Contrastive activation addition against its formula, and the edits that a vector makes."""

from typing import Any

import numpy as np
import pytest
import torch

from analyses.steering.caa import caa
from analyses.steering.reliability import reliability
from analyses.steering.vector import Vector
from cache.errors import UserError
from tests.tolerances import assert_close
from workbench.engine.edits import Run, edit_from_json, patch
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import PromptSet, load_prompt_set

SETTINGS = GenerationSettings(duration=1.0, num_steps=2)
SITES = ["tf0.cross_attn", "tf1.cross_attn"]
PAIRS = 5  # more than a batch
COLOURS = PromptSet.model_validate(
    {
        "templates": ["a {colour} {size} song"],
        "concepts": {
            "colour": {"red": "red", "green": "green", "blue": "blue"},
            "size": {"large": "large", "small": "small"},
        },
    }
)


@pytest.fixture(scope="module")
def vector(tiny64: AceStep15) -> Vector:
    return caa(tiny64, "mood", SITES, pairs=PAIRS, seed=7, settings=SETTINGS)


def happy_and_sad() -> list[tuple[str, str]]:
    """The first prompts of the pairs of mood that lead from sad to happy."""
    pairs = load_prompt_set("organism").pairs("mood", 2 * PAIRS, seed=7)
    return [(pair.clean.text, pair.corrupt.text) for pair in pairs if pair.clean_value == "happy"]


def test_it_is_the_difference_of_means(tiny64: AceStep15, vector: Vector) -> None:
    pairs = happy_and_sad()
    assert len(pairs) == PAIRS
    assert all("happy" in happy and happy.replace("happy", "sad") == sad for happy, sad in pairs)
    clips = [[Clip(pair[end], 7 + place) for place, pair in enumerate(pairs)] for end in (0, 1)]
    happy, sad = (tiny64.generate(of_end, SETTINGS, capture=SITES).activations for of_end in clips)
    for site in SITES:
        means = [acts[site].sel({"pass": "cond"}).mean(["clip", "token"]) for acts in (happy, sad)]
        expected = (means[0] - means[1]).values
        assert np.abs(expected).max() > 1e-4
        assert_close(vector.directions[site].sel({"pass": "cond"}).values, expected)


def test_it_says_what_it_is(tiny64: AceStep15, vector: Vector) -> None:
    assert (vector.concept, vector.positive, vector.negative) == ("mood", "happy", "sad")
    assert vector.model["weights_hash"] == tiny64.weights_hash
    assert (vector.method, vector.settings, vector.n_pairs) == ("caa", SETTINGS, PAIRS)
    assert vector.sampling == tiny64.sampling(SETTINGS)
    for pair, (happy, sad) in enumerate(happy_and_sad()):
        first, second = (example for example in vector.examples if example.pair == pair)
        assert (first.prompt, first.value, second.prompt, second.value) == (happy, "happy", sad, "sad")
        assert first.seed == second.seed == 7 + pair
    assert vector.reliability.site.values.tolist() == SITES
    assert vector.reliability.pairs.values.tolist() == [1, 2]
    array = vector.directions[SITES[0]]
    assert array.dims == ("pass", "step", "channel")
    assert array["pass"].values.tolist() == ["cond"]
    assert array["step"].values.tolist() == [0, 1]
    assert array["sigma"].values.tolist() == tiny64.sigmas(SETTINGS)
    assert "+ is happy, − is sad" in repr(vector)


def test_the_other_end_is_the_other_sign(tiny64: AceStep15, vector: Vector) -> None:
    """Sad prompts are drawn in other contexts; at the same contexts the direction turns round."""
    everything = {"pairs": 28, "settings": SETTINGS.model_copy(update={"num_steps": 1}), "sites": SITES[:1]}
    there = caa(tiny64, "mood", seed=0, positive="happy", **everything)
    back = caa(tiny64, "mood", seed=0, positive="sad", **everything)
    assert (back.positive, back.negative) == ("sad", "happy")
    cosine = _cosine(there.directions[SITES[0]].values, back.directions[SITES[0]].values)
    assert cosine < -0.8, cosine


def _cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


def test_it_is_added_at_every_site_and_step_of_the_cond_pass(tiny64: AceStep15, vector: Vector) -> None:
    clip = Clip("a sad song", 3)
    plain = tiny64.generate(clip, SETTINGS, capture=SITES).activations
    steered = tiny64.generate(clip, SETTINGS, edits=[vector.at(2.0)], capture=SITES).activations
    first = SITES[0]  # where nothing before it has changed, in the first step
    change = (steered[first] - plain[first]).sel(step=0)
    expected = np.broadcast_to(
        2 * vector.directions[first].sel({"pass": "cond", "step": 0}).values,
        change.sel({"pass": "cond"}).shape,
    )
    assert_close(change.sel({"pass": "cond"}).values, expected)
    of_null = [values[first].sel({"pass": "null", "step": 0}).values for values in (steered, plain)]
    assert_close(*of_null)

    edits = vector.at(2.0)
    assert [(edit.sites, edit.window.steps) for edit in edits] == [
        ((site,), (step, step)) for site in SITES for step in (0, 1)
    ]
    for edit in edits:
        (step, _), (site,) = edit.window.steps, edit.sites
        np.testing.assert_array_equal(
            edit.parameters.vector.value.numpy(),
            vector.directions[site].sel({"pass": "cond", "step": step}).values,
        )


def test_strength_0_changes_nothing(tiny64: AceStep15, vector: Vector) -> None:
    clip = Clip("a sad song", 3)
    found = tiny64.generate_batch([clip, Run(clip, vector.at(0.0))], SETTINGS)
    assert torch.equal(found.latents[0], found.latents[1]), "one computed row"
    assert found.rows == tiny64.generate_batch([clip], SETTINGS).rows


@pytest.mark.parametrize("strength", [2.0, 0.0])
def test_another_model_refuses_it(tiny64: AceStep15, tiny_turbo: AceStep15, vector: Vector, strength) -> None:
    clip, edits = Clip("a sad song", 3), vector.at(strength)
    patched = Run(clip, (patch(SITES[0], Run(clip, edits), target="output"),))
    for refused in (
        lambda: tiny_turbo.generate(clip, SETTINGS, edits=[edits]),
        lambda: tiny_turbo.generate_batch([patched], SETTINGS),
    ):
        with pytest.raises(UserError) as error:
            refused()
        for each in (tiny64.name, tiny64.weights_hash, tiny_turbo.name, tiny_turbo.weights_hash):
            assert each in str(error.value)
    read_back = edit_from_json(edits[0].to_json(), lambda name: edits[0].parameters.vector)
    assert read_back.made_on == (tiny64.name, tiny64.weights_hash)
    assert read_back.made_at == (1.0, 0.75)


@pytest.mark.parametrize(
    "other",
    [
        {"num_steps": 8},
        {"num_steps": 1},
        {"options": {"shift": 1.0}},
    ],
    ids=["more steps", "fewer steps", "other sigmas"],
)
def test_a_run_with_other_steps_refuses_it(tiny64: AceStep15, vector: Vector, other: dict[str, Any]) -> None:
    clip, edits = Clip("a sad song", 3), vector.at(2.0)
    settings = SETTINGS.model_copy(update=other)
    patched = Run(clip, (patch(SITES[0], Run(clip, edits), target="output"),))
    for refused in (
        lambda: tiny64.generate(clip, settings, edits=[edits]),
        lambda: tiny64.generate_batch([patched], settings),
    ):
        with pytest.raises(UserError, match=r"made for 2 steps \(sigmas 1, 0.75\), but this run has"):
            refused()


def test_a_run_with_the_same_steps_takes_it(tiny64: AceStep15, vector: Vector) -> None:
    settings = SETTINGS.model_copy(update={"duration": 2.0, "guidance_scale": 1.0})
    assert tiny64.generate(Clip("a sad song", 3), settings, edits=[vector.at(1.0)]).seconds == 2.0


def test_the_same_weights_in_another_dtype_take_it(tiny: AceStep15, vector: Vector) -> None:
    assert tiny.generate(Clip("a sad song", 3), SETTINGS, edits=[vector.at(1.0)]).seconds == 1.0


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ({}, ("red", "green or blue")),
        ({"positive": "blue"}, ("blue", "red or green")),
        ({"negative": "red"}, ("green", "red")),
        ({"positive": "red", "negative": "blue"}, ("red", "blue")),
    ],
)
def test_ends_of_a_concept_with_more_values(
    tiny64: AceStep15, ends: dict[str, str], expected: tuple[str, str]
) -> None:
    vector = caa(
        tiny64,
        "colour",
        SITES[0],
        prompts=COLOURS,
        pairs=2,
        settings=SETTINGS.model_copy(update={"num_steps": 1}),
        **ends,
    )
    assert (vector.positive, vector.negative) == expected


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"concept": "colour"}, "instrument, tempo, mood, drums"),
        ({"concept": "mood", "positive": "angry"}, "happy, sad"),
        ({"concept": "mood", "positive": "sad", "negative": "sad"}, "must differ"),
        ({"concept": "mood", "pairs": 29}, "1 to 28"),
        ({"concept": "mood", "pairs": 0}, "1 to 28"),
        ({"concept": "mood", "pairs": -2}, "1 to 28"),
        ({"concept": "mood", "seed": -1}, "seed must be at least 0, not -1"),
        ({"concept": "mood", "sites": "tf9.cross_attn"}, "tf0 to tf1"),
        ({"concept": "mood", "sites": []}, "at least one site"),
        ({"concept": "mood", "prompts": "portraits"}, "portraits"),
        ({"concept": "mood", "passes": ()}, "passes must have at least 1"),
        ({"concept": "mood", "passes": ("text",)}, "Passes must be among cond, null"),
        ({"concept": "mood", "time": 0}, "time: must be"),
        ({"concept": "mood", "time": "phase"}, "time: must be"),
        ({"concept": "mood", "time": 1000}, "at most the .* tokens"),
        ({"concept": "mood", "time": "token", "sites": "tf0.cross_attn.k"}, "no latent time"),
    ],
)
def test_what_there_is_not(tiny64: AceStep15, asked: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        caa.__wrapped__(tiny64, **{"sites": SITES, "settings": SETTINGS, **asked})  # without the type check


# Along the clip, and in other passes


@pytest.fixture(scope="module")
def differences(tiny64: AceStep15) -> np.ndarray:
    """The differences (pair, pass, step, token, channel) of the first site."""
    clips = [Clip(text, 7 + place) for place, pair in enumerate(happy_and_sad()) for text in pair]
    values = tiny64.generate(clips, SETTINGS, capture=SITES[0]).activations[SITES[0]]
    in_order = values.transpose("clip", "pass", "step", "token", "channel").values
    return in_order[::2] - in_order[1::2]


def of(model: AceStep15, **options: Any) -> Vector:
    return caa(model, "mood", SITES[0], pairs=PAIRS, seed=7, settings=SETTINGS, **options)


def test_a_direction_by_token_is_the_mean_over_pairs(tiny64: AceStep15, differences: np.ndarray) -> None:
    vector = of(tiny64, time="token", passes=("cond", "null"))
    assert vector.directions[SITES[0]].dims == ("pass", "step", "token", "channel")
    assert_close(vector.directions[SITES[0]].values, differences.mean(axis=0))


def test_its_reliability_is_that_of_its_pairs(tiny64: AceStep15, differences: np.ndarray) -> None:
    vector = of(tiny64)
    expected = reliability({SITES[0]: differences[:, :1].mean(axis=3)}, ["cond"], PAIRS)
    for name, values in expected.items():
        assert_close(vector.reliability[name].values, values.values.astype(np.float32), name)


def test_a_cycle_is_the_mean_over_pairs_and_repetitions(tiny64: AceStep15, differences: np.ndarray) -> None:
    vector = of(tiny64, time=3)
    n_tokens = differences.shape[3]
    assert vector.cycle and n_tokens % 3, "the last repetition is not whole"
    by_token = differences.mean(axis=0)[0]
    expected = [
        by_token[:, [t for t in range(n_tokens) if t % 3 == phase]].mean(axis=1) for phase in range(3)
    ]
    assert_close(vector.directions[SITES[0]].sel({"pass": "cond"}).values, np.stack(expected, axis=1))


@pytest.mark.parametrize("time", ["token", 3])
def test_every_token_gets_its_own(tiny64: AceStep15, time: Any) -> None:
    clip, vector = Clip("a sad song", 3), of(tiny64, time=time)
    plain, steered = (
        tiny64.generate(clip, SETTINGS, edits=edits, capture=SITES[0]).activations[SITES[0]]
        for edits in ((), vector.at(2.0))
    )
    change = (steered - plain).sel({"pass": "cond", "step": 0})
    rows = vector.directions[SITES[0]].sel({"pass": "cond", "step": 0}).values
    assert_close(change.values[0], 2 * rows[np.arange(change.sizes["token"]) % len(rows)])


def test_only_a_cycle_fits_clips_of_another_duration(tiny64: AceStep15) -> None:
    clip, longer = Clip("a sad song", 3), SETTINGS.model_copy(update={"duration": 2.0})
    with pytest.raises(UserError, match=r"are edited. Use the duration"):
        tiny64.generate(clip, longer, edits=[of(tiny64, time="token").at(1.0)])
    assert tiny64.generate(clip, longer, edits=[of(tiny64, time=3).at(1.0)]).seconds == 2.0


def test_resampled_it_steers_a_run_with_other_steps(tiny64: AceStep15, vector: Vector) -> None:
    clip, settings = Clip("a sad song", 3), SETTINGS.model_copy(update={"num_steps": 3})
    resampled = vector.resampled(tiny64.sigmas(settings))
    plain, steered = (
        tiny64.generate(clip, settings, edits=edits, capture=SITES[:1]).activations[SITES[0]]
        for edits in ((), resampled.at(2.0))
    )
    change = (steered - plain).sel({"pass": "cond", "step": 0})
    expected = 2 * vector.directions[SITES[0]].sel({"pass": "cond", "step": 0}).values
    assert_close(change.values, np.broadcast_to(expected, change.shape))
