"""Edits are data: canonical JSON, hashes, windows, sources by name, and what does not go together."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from cache.errors import UserError
from workbench.engine.edits import (
    SELF,
    Edit,
    Run,
    Window,
    ablate,
    add,
    add_difference,
    add_to_conditioning,
    add_velocity,
    blend,
    clamp,
    edit_features,
    edit_from_json,
    low_rank,
    patch,
    patch_reconstruction,
    random_patch,
    steer_back,
)
from workbench.engine.operators import OPERATORS
from workbench.engine.runs import Clip
from workbench.engine.sites import Site
from workbench.engine.tensors import HashedTensor
from workbench.sae.topk import TopKConfig, TopKSAE

ONE = torch.ones(1, 1)
SAE = TopKSAE(TopKConfig(d_in=2, d_sae=3, k=1))
CLEAN, CORRUPT = Clip("a slow song", 1), Clip("a fast song", 1, "la")
MADE = [
    patch("tf1.cross_attn", CLEAN, parts=("keys",), segments=("text",)),
    random_patch("tf1.cross_attn", "clean", 3),
    ablate("tf0.mlp"),
    ablate("tf0.mlp", "mean", ["references"]),
    ablate("tf0.mlp", "resample", CLEAN),
    add([1.0, 2.0], "tf0.mlp", 2.0),
    add(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "tf0.mlp", keep_norm=True, cycle=True),
    add_difference("tf0.mlp", CLEAN, "corrupt", 2.0, constant=True),
    add_to_conditioning([1.0, 2.0], "tf0.cross_attn", "values", 2.0, source="clean", segments=("swapped",)),
    add_velocity(CLEAN, Run("corrupt", follows=Run(SELF)), 2.0, steps=(1, 2)),
    clamp([1.0, 2.0], "tf0.mlp"),
    steer_back([1.0, 2.0], "tf0.mlp", 0.5),
    low_rank(ONE, torch.ones(3, 1), "tf0.cross_attn.k", 2.0, passes=("cond",)),
    edit_features(SAE, [2, 0], "tf0.mlp", 3.0, mode="inject"),
    patch_reconstruction(SAE, "tf0.mlp", CLEAN, passes=("cond",)),
    blend("tf0.cross_attn", [CLEAN, CORRUPT], [0.25, 0.75]),
    replace(
        add([1.0, 2.0], "tf0.mlp", 2.0), made_on=("organism-shared", "0123456789abcdef"), made_at=(1.0, 0.75)
    ),
]

windows = st.one_of(st.none(), st.tuples(st.integers(0, 5), st.integers(5, 9)))
passes = st.sampled_from([None, ("cond",), ("null",), ("text",), ("cond", "null")])
clips = st.builds(Clip, st.sampled_from(["a", "b"]), st.integers(0, 2), st.sampled_from(["", "la"]))
names = st.sampled_from(["clean", SELF])
plain = st.builds(
    patch, st.just("tf1.cross_attn"), clips | names, target=st.sampled_from(["conditioning", "output"]),
    steps=windows, passes=passes,
)  # fmt: skip
followed = st.none() | st.builds(Run, clips | names) | st.builds(Run, clips | names, st.tuples(plain))
sources = clips | names | st.builds(Run, clips | names, st.tuples(plain), followed)
edits = st.one_of(
    st.builds(patch, st.just("tf1.mlp"), sources, target=st.just("output"), steps=windows, passes=passes),
    st.builds(ablate, st.just(("tf1.mlp", "tf2.block")), steps=windows, passes=passes),
    st.builds(
        add, st.lists(st.floats(-9, 9), min_size=1, max_size=4), st.just("tf1.mlp"), st.floats(-9, 9), steps=windows
    ),
)  # fmt: skip


def through_json(edit: Edit) -> Edit:
    held = {tensor.hash: tensor for tensor in edit.tensors}
    return edit_from_json(json.loads(json.dumps(edit.to_json())), held.__getitem__)


@given(edits)
def test_json_round_trip_keeps_value_and_hash(edit: Edit) -> None:
    again = through_json(edit)
    assert again == edit
    assert again.hash == edit.hash


@given(edits, edits)
@example(add([1.0], "tf1.mlp", 0.0), add([1.0], "tf1.mlp", -0.0))
def test_hashes_tell_edits_apart(a: Edit, b: Edit) -> None:
    assert (a.hash == b.hash) == (a.to_json() == b.to_json())


@pytest.mark.parametrize("edit", MADE, ids=lambda edit: edit.operator)
def test_every_operator_survives_json(edit: Edit) -> None:
    assert through_json(edit) == edit


def test_every_operator_is_made_by_a_function() -> None:
    assert {edit.operator for edit in MADE} == set(OPERATORS)


def test_only_what_is_taken_from_a_source_moves_positions() -> None:
    added = add_to_conditioning([1.0], "tf0.cross_attn", "keys", source="clean")
    assert added.conditioning_sites == ()
    assert patch("tf0.cross_attn", "clean", parts=("keys",)).conditioning_sites == (Site(0, "cross_attn"),)


@pytest.mark.parametrize("parts", [None, ("mask",), ("keys", "values")])
def test_a_vector_is_added_to_keys_or_to_values(parts: Any) -> None:
    added = add_to_conditioning([1.0], "tf0.cross_attn", "keys")
    with pytest.raises(UserError, match="must have one part, keys or values"):
        replace(added, window=Window(parts=parts))


def test_json_has_no_numbers_of_a_vector() -> None:
    edit = add([0.125, 0.25], "tf0.mlp")
    assert "0.125" not in json.dumps(edit.to_json())
    assert [tensor.value.tolist() for tensor in edit.tensors] == [[0.125, 0.25]]
    with pytest.raises(UserError, match="is missing"):
        edit_from_json(edit.to_json())


def test_vectors_of_sources_are_named_too() -> None:
    inner = add([1.0], "tf0.mlp")
    edit = patch("tf1.mlp", Run(CLEAN, (inner,)), target="output")
    assert list(edit.tensors) == [HashedTensor.of([1.0])]


@given(windows, st.integers(0, 9))
def test_window_ends_are_included(window: tuple[int, int] | None, step: int) -> None:
    made = Window(steps=window, passes=("cond",))
    assert made.acts_at(step, 0.5, "cond") == (window is None or step in range(window[0], window[1] + 1))
    assert not made.acts_at(step, 0.5, "null")


def test_names_are_filled_in_at_every_depth() -> None:
    inner = ablate("tf0.mlp", "mean", ["references"])
    helper = Run("corrupt", (inner, patch("tf0.mlp", SELF, target="output")), follows=Run(SELF))
    run = Run("corrupt", (patch("tf1.mlp", helper, target="output"),))
    assert run.source_names == {"corrupt", "references"}
    bound = run.bound({"corrupt": [Run(CORRUPT)], "references": [Run(CLEAN), Run(CORRUPT)]})
    assert bound.clip == CORRUPT
    (filled,) = bound.edits[0].sources
    assert (filled.clip, filled.follows) == (CORRUPT, Run(SELF))
    assert filled.edits[0].sources == (Run(CLEAN), Run(CORRUPT)), "a name of several runs is several sources"
    assert filled.edits[1].sources == (Run(SELF),)
    assert bound.source_names == set()


def test_lists_are_taken_for_tuples() -> None:
    edit = patch(["tf0.cross_attn"], CLEAN, steps=[0, 3], segments=["text"])
    assert edit == patch("tf0.cross_attn", CLEAN, steps=(0, 3), segments=("text",))
    assert hash(Run(CLEAN, [edit])) == hash(Run(CLEAN, (edit,)))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: patch(("tf0.mlp", "tf1.cross_attn"), CLEAN), r"must be at cross_attn sites; got tf0\.mlp"),
        (lambda: ablate(()), "must have at least one site"),
        (lambda: ablate("tf0.mlp", "mean"), "must have at least 1 source runs; got 0"),
        (lambda: ablate("tf0.mlp", "resample", [CLEAN, CORRUPT]), "must have 1 source runs; got 2"),
        (lambda: Edit(operator="melt", sites=("tf0.mlp",)), "Unknown operator 'melt'"),
        (lambda: Edit(operator="zero", sites=("tf0.cross_attn",), target="conditioning"), "got conditioning"),
        (lambda: Edit(operator="add", sites=("tf0.mlp",)), "parameters of 'add' must be vector, strength"),
        (lambda: blend("tf0.cross_attn", [CLEAN], [0.5, 0.5]), "one weight for each of its 1 sources; got 2"),
        (lambda: ablate("tf0.mlp", heads=(0,)), "no separate heads"),
        (lambda: ablate("tf0.mlp", segments=("text",)), "are for edits of the conditioning"),
        (lambda: patch("tf0.cross_attn", CLEAN, tokens=(0, 1)), "cannot have a window of latent tokens"),
        (lambda: patch("tf0.cross_attn", CLEAN, parts=()), "parts of an edit must be at least one"),
        (lambda: patch("tf0.cross_attn", CLEAN, segments=()), "segments of an edit must be at least one"),
        (lambda: ablate("tf0.mlp", passes=()), "passes of an edit must be at least one"),
        (lambda: ablate("tf0.mlp.heads", heads=()), "heads of an edit must be at least one"),
        (lambda: ablate("tf0.cross_attn.heads", heads=(0, -1)), "numbered from 0; got -1"),
        (lambda: Window(steps=(-1, -1)), "that are not below 0"),
        (lambda: Window(tokens=(-3, 2)), "that are not below 0"),
        (lambda: Window(sigmas=(float("nan"), 1.0)), "finite ends"),
        (lambda: Window(sigmas=(-1.0, -0.5)), "that are not below 0"),
        (lambda: Window(steps=(3, 2)), "3 to 2 is empty"),
        (lambda: ablate("tf0.mlp", steps=3), "steps must be a list, not 3"),
        (lambda: ablate("tf0.mlp", passes="cond"), "passes must be a list, not 'cond'"),
        (lambda: ablate("tf0.mlp", place=(0, 1)), "place is not a known name"),
        (lambda: Window(sigmas=(0.5, 0.5)), "0.5 to 0.5 is empty"),
        (lambda: add([1.0, float("nan")], "tf0.mlp"), "finite"),
        (lambda: add([], "tf0.mlp"), "at least one; it has none"),
        (lambda: clamp(torch.tensor([1j]), "tf0.mlp"), "real numbers"),
        (lambda: add([1.0], ["tf0.mlp", "tf0.mlp"]), "sites of the edit 'add' must each be given once"),
        (lambda: patch("tf0.cross_attn", CLEAN, segments=("text", "text")), "segments of an edit must each be"),
        (lambda: ablate("tf0.mlp.heads", heads=(1, 1)), "heads of an edit must each be given once"),
        (lambda: Window(passes=("cond", "cond")), "passes of an edit must each be given once"),
        (lambda: Window(steps=(0, -(10**400))), "that are not below 0"),
        (lambda: random_patch("tf0.mlp", CLEAN, -1, target="output"), "seed must be at least 0"),
        (lambda: random_patch("tf0.mlp", CLEAN, 2**64, target="output"), "seed must be at most"),
        (lambda: low_rank(ONE, ONE, "tf0.mlp"), r"tf0\.mlp is not the output of one linear module"),
        (lambda: low_rank(ONE, ONE, "tf0.cross_attn.heads"), "not the output of one linear module"),
        (lambda: low_rank(ONE, ONE, "tf0.cross_attn.k", tokens=(0, 1)), "steps, sigmas and passes; got tokens"),
        (lambda: low_rank(ONE, ONE, "tf0.cross_attn", heads=(0,)), "steps, sigmas and passes; got heads"),
        (lambda: low_rank([1.0], ONE, "tf0.cross_attn"), r"got the shapes \(1,\) and \(1, 1\)"),
        (lambda: low_rank(ONE, torch.ones(1, 2), "tf0.cross_attn"), r"shapes \(1, 1\) and \(1, 2\)"),
        (lambda: blend.__wrapped__("tf0.cross_attn", [CLEAN], b"x"), "weights.* must be a"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(make: Callable[[], Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


def test_ends_of_a_window_may_be_of_any_size() -> None:
    assert Window(steps=(0, 10**400)).acts_at(3, 0.5, "cond")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "2", True])
@pytest.mark.parametrize(
    ("operator", "parameters"),
    [
        ("add", lambda value: {"vector": {"tensor": "0"}, "strength": value}),
        ("clamp", lambda value: {"vector": {"tensor": "0"}, "projection": value}),
        ("blend", lambda value: {"weights": [value]}),
    ],
    ids=["strength", "projection", "weights"],
)
def test_numbers_of_an_edit_are_finite_numbers(
    value: Any, operator: str, parameters: Callable[[Any], dict[str, Any]]
) -> None:
    data = {"operator": operator, "sites": ["tf0.mlp"], "parameters": parameters(value)}
    with pytest.raises(UserError, match=r"Invalid edit: \S+ must be a (finite )?number"):
        edit_from_json(data, lambda name: HashedTensor.of([1.0]))


def test_numbers_of_numpy_are_numbers() -> None:
    edit = edit_from_json(
        {
            "operator": "add",
            "sites": ["tf0.mlp"],
            "parameters": {"vector": {"tensor": "0"}, "strength": np.float32(2)},
        },
        lambda name: HashedTensor.of([1.0]),
    )
    assert edit == add([1.0], "tf0.mlp", 2.0)


def test_one_source_may_stand_for_itself() -> None:
    assert blend("tf0.cross_attn", CLEAN, 1.0) == blend("tf0.cross_attn", [CLEAN], [1.0])


def test_edits_without_a_model_or_steps_of_their_own_are_written_without() -> None:
    assert not {"made_on", "made_at"} & GOOD.keys()


GOOD = patch("tf0.cross_attn", CLEAN).to_json()


def nested(where: str, depth: int) -> dict[str, Any]:
    """An edit with a source in a source."""
    source: Any = "clean"
    for _ in range(depth):
        source = {"run": "clean", where: source if where == "follows" else [{**GOOD, "sources": [source]}]}
    return {**GOOD, "sources": [source]}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({**GOOD, "operator": "melt"}, "'melt'"),
        ({**GOOD, "x": 1}, "x is not a known name"),
        ({**GOOD, "parameters": {"seed": 1}}, "seed is not a known name"),
        ({**GOOD, "operator": "random_patch", "parameters": {"seed": "one"}}, "seed must be a whole number"),
        ({**GOOD, "window": {"steps": [1]}}, "steps"),
        ({**GOOD, "window": {"places": [1, 2]}}, "places is not a known name"),
        ({**GOOD, "sources": [{"prompt": "a"}]}, "seed is missing"),
        ({**GOOD, "sources": [3]}, "mapping"),
        ({**GOOD, "parameters": {"vector": {"hash": "0"}}}, "written"),
        ("patch", "mapping"),
        (nested("edits", 1000), "nested more than"),
        (nested("follows", 1000), "nested more than"),
    ],
    ids=range(12),
)
def test_json_that_is_wrong(data: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        edit_from_json(data)
