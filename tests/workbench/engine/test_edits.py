"""Interventions are data: canonical JSON, hashes, windows."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import UserError
from workbench.engine.edits import AblationSpec, Intervention, PatchSpec, Spec, SteerSpec, spec_from_json

windows = st.one_of(st.none(), st.tuples(st.integers(0, 5), st.integers(5, 9)))
passes = st.sampled_from([None, ("cond",), ("null",), ("text",), ("cond", "null")])
specs = st.one_of(
    st.builds(
        PatchSpec,
        sites=st.just(("tf1.cross_attn",)),
        mode=st.sampled_from(["conditioning", "output"]),
        steps=windows,
        passes=passes,
    ),
    st.builds(AblationSpec, sites=st.just(("tf1.mlp", "tf2.block")), steps=windows, passes=passes),
    st.builds(
        SteerSpec,
        sites=st.just(("tf1.mlp",)),
        steps=windows,
        direction=st.lists(st.floats(-9, 9), min_size=1, max_size=4).map(tuple),
        strength=st.floats(-9, 9),
    ),
)


@given(specs)
def test_json_round_trip_keeps_value_and_hash(spec: Spec) -> None:
    again = spec_from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.hash == spec.hash


@given(specs, specs)
def test_hashes_tell_specs_apart(a: Spec, b: Spec) -> None:
    assert (a.hash == b.hash) == (a.to_json() == b.to_json())


@given(windows, st.integers(0, 9))
def test_window_ends_are_included(window: tuple[int, int] | None, step: int) -> None:
    spec = AblationSpec(sites=("tf0.mlp",), steps=window, passes=("cond",))
    assert spec.acts_at(step, 0.5, "cond") == (window is None or step in range(window[0], window[1] + 1))
    assert not spec.acts_at(step, 0.5, "null")


def test_a_conditioning_patch_acts_on_cross_attention_only() -> None:
    with pytest.raises(UserError, match=r"cross_attn sites only, not on tf0\.mlp"):
        PatchSpec(sites=("tf0.mlp", "tf1.cross_attn"))


def test_no_sites() -> None:
    with pytest.raises(UserError, match="needs at least one site"):
        AblationSpec(sites=())


def test_a_patch_needs_a_source() -> None:
    with pytest.raises(UserError, match="source row"):
        Intervention(1, PatchSpec(sites=("tf0.cross_attn",)))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [({"kind": "melt"}, "'melt'"), ({"kind": "ablation", "sites": ["tf0.mlp"], "x": 1}, "no field x")],
)
def test_unknown_kinds_and_fields(data: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        spec_from_json(data)
