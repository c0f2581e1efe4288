"""Several methods fitted to pairs that are generated once."""

from typing import Any, Literal

import numpy as np
import pytest

from analyses.steering.austeer import AUSteer, austeer
from analyses.steering.caa import CAA, caa
from analyses.steering.capture import GroupSums, capture_of_pairs, fit
from cache.errors import UserError
from tests.analyses.steering.pair_values import give, random_outputs
from tests.tolerances import assert_close, difference
from workbench.engine.edits import Run, as_run, patch
from workbench.engine.runs import Capture, Clip
from workbench.engine.settings import GenerationSettings
from workbench.engine.sites import parse_sites
from workbench.models.ace_step import AceStep15

SITES = ["tf0.cross_attn", "tf1.cross_attn"]
OPTIONS = {"pairs": 5, "seed": 7, "settings": GenerationSettings(duration=1.0, num_steps=2)}


def test_vectors_of_one_capture_are_those_of_each_method(
    tiny64: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [
        caa(tiny64, "mood", SITES, time="token", **OPTIONS),
        austeer(tiny64, "mood", SITES, k=9, **OPTIONS),
    ]
    batches = []
    generate = AceStep15.generate_batch
    monkeypatch.setattr(
        AceStep15,
        "generate_batch",
        lambda model, runs, *args, **options: (
            batches.append(len(runs)) or generate(model, runs, *args, **options)
        ),
    )
    together = fit(tiny64, "mood", SITES, [CAA(time="token"), AUSteer(k=9)], **OPTIONS)
    assert batches == [8, 2], "five pairs are generated once"
    for one, other in zip(together, alone, strict=True):
        assert one.method == other.method
        for site in SITES:
            assert_close(one.directions[site].values, other.directions[site].values)


@pytest.mark.parametrize("methods", [CAA(), [caa], ["caa"], "caa", None])
def test_what_is_no_method(tiny64: AceStep15, methods: Any) -> None:
    with pytest.raises(UserError, match="ethod"):
        fit.__wrapped__(tiny64, "mood", SITES, methods, **OPTIONS)


def test_sums_are_over_the_pairs_of_each_group(tiny64: AceStep15) -> None:
    captured = capture_of_pairs(tiny64, "mood", SITES, **{**OPTIONS, "pairs": 23})
    outputs = random_outputs(captured, (4, 6))
    taken = GroupSums(captured)

    class Clean:
        sums = (taken,)

        def add(self, values: Any) -> None:
            taken.add(values, values.clean.sum(dim=2))

        def vector(self) -> Any: ...

    give(Clean(), outputs, per_batch=4)
    assert captured.group_sizes.tolist() == [3] * 3 + [2] * 7
    for site, values in outputs.items():
        of_pairs = values[:, 0].sum(axis=3)
        expected = np.stack([of_pairs[group::10].sum(axis=0) for group in range(10)])
        assert_close(taken.arrays[site], expected)


def test_all_blocks_or_all_but_some_are_just_sites(tiny64: AceStep15) -> None:
    one_pair = {**OPTIONS, "pairs": 1}
    (every,) = fit(tiny64, "mood", "*.cross_attn", [CAA()], **one_pair)
    (some,) = fit(
        tiny64, "mood", [site for site in every.directions if site != SITES[1]], [CAA()], **one_pair
    )
    assert list(every.directions) == SITES and list(some.directions) == SITES[:1]
    assert_close(every.directions[SITES[0]].values, some.directions[SITES[0]].values)


def test_all_clips_have_the_lyrics_and_are_counted(
    tiny64: AceStep15, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[Clip] = []
    generate = AceStep15.generate_batch
    monkeypatch.setattr(
        AceStep15,
        "generate_batch",
        lambda model, runs, *args, **options: (
            generated.extend(runs) or generate(model, runs, *args, **options)
        ),
    )
    counted: list[tuple[int, int]] = []
    options = {**OPTIONS, "lyrics": "oh the end", "progress": lambda *counts: counted.append(counts)}
    (vector,) = fit(tiny64, "mood", SITES, [CAA()], **options)
    assert {as_run(run).clip.lyrics for run in generated} == {"oh the end"}
    assert {example.lyrics for example in vector.examples} == {"oh the end"}
    assert counted == [(8, 10), (10, 10)]
    with pytest.raises(UserError, match="lyrics"):
        capture_of_pairs.__wrapped__(tiny64, "mood", SITES, lyrics=3, settings=OPTIONS["settings"])


@pytest.mark.parametrize("latents", ["positive", "negative"])
def test_prompts_can_be_compared_at_the_latents_of_one_run(
    tiny64: AceStep15, latents: Literal["positive", "negative"]
) -> None:
    """The difference is then what an edit that reads both prompts at these latents adds."""
    options = {**OPTIONS, "pairs": 1, "settings": GenerationSettings(duration=1.0, num_steps=4)}
    vector = caa(tiny64, "mood", SITES[1], time="token", latents=latents, **options)
    own = caa(tiny64, "mood", SITES[1], time="token", **options)
    found, of_own = (each.directions[SITES[1]].sel({"pass": "cond"}).values for each in (vector, own))
    clean, corrupt = (Clip(example.prompt, example.seed) for example in vector.examples)
    base, other = (clean, corrupt) if latents == "positive" else (corrupt, clean)
    step = 3
    moved = Run(base, (patch(SITES[1], Run(other, follows=Run(base)), target="output", steps=(step, step)),))
    capture = Capture(parse_sites(SITES[1], 2), (step,), ("cond",))
    generation = tiny64.generate_batch([base, moved], options["settings"], capture)
    (followed, follower) = next(iter(generation.activations.values()))[:, 0, 0].double().numpy()
    sign = 1 if latents == "positive" else -1
    assert_close(found[step], sign * (followed - follower))
    assert_close(found[0], of_own[0])  # all runs start from the same noise
    assert difference(found[step], of_own[step]) > 1e-3
    assert vector.latents == latents and own.latents == "own"
    assert vector.n_pairs == 1
