"""DEMON's packs: files written here by hand as DEMON writes them, and what it does with them, computed by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from analyses.steering.demon import vector_from_demon, write_demon
from analyses.steering.directions import labelled
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from tests.analyses.steering.test_vector import vector_of
from tests.tolerances import assert_close
from workbench.engine.runs import Clip
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15
from workbench.models.ace_step_v1.adapter import AceStepV1

SETTINGS = GenerationSettings(duration=1.0, num_steps=4)
HEADER = {
    "format": 1,
    "family": "acestep",
    "checkpoint": "acestep-v15-base",
    "hook": "cross_attn_output",
    "block": 1,
    "hidden_size": 32,
    "name": "bright",
    "label": "Bright",
    "blurb": "positive brightens",
    "method": "caa_diff_means",
    "norm": 40.0,
    "magnitude": 4.0,
    "policy": {"kind": "range", "start": 0.0, "end": 1.0},
    "provenance": {"pairs": 50},
}


def width(model: AceStep15) -> int:
    return model.config.hidden_size


def unit(seed: int, size: int) -> torch.Tensor:
    vector = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    return vector / vector.norm()


def pack(file: Path, model: AceStep15, arrays: dict[str, torch.Tensor] | None = None, **header: Any) -> Path:
    """A file as DEMON writes it, by default with one vector of one block; entries that are None are left out."""
    whole = {**HEADER, "hidden_size": width(model), **header}
    known = {name: value for name, value in whole.items() if value is not None}
    save_file(arrays or {"vector": unit(0, width(model))}, file, {"steering_pack": json.dumps(known)})
    return file


@pytest.mark.parametrize(
    ("policy", "weights"),
    [
        (None, [1, 1, 1, 1]),
        ({}, [1, 1, 1, 1]),
        ({"kind": "range", "start": 0.25, "end": 0.75}, [0, 1, 1, 0]),
        ({"kind": "step", "step": 5, "of": 8}, [0, 0, 1, 0]),  # 2.5 is rounded to even, as Python does
        ({"kind": "step", "step": 8, "of": 8}, [0, 0, 0, 1]),
        ({"kind": "curve", "weights": [0.5, -1.0, 2.0]}, [0.5, 0.5, -1.0, 2.0]),
        ({"kind": "curve", "weights": [1, 2, 3, 4, 5, 6, 7, 8]}, [1, 3, 5, 7]),
    ],
)
def test_the_policy_becomes_part_of_the_directions(
    tiny64: AceStep15, tmp_path: Path, policy: Any, weights: list[float]
) -> None:
    vector = vector_from_demon(pack(tmp_path / "p", tiny64, policy=policy), tiny64, SETTINGS)
    assert list(vector.directions) == ["tf1.cross_attn"]
    expected = np.outer(4.0 * np.array(weights), unit(0, width(tiny64)).numpy().astype(float))
    for name in ("cond", "null"):
        assert_close(vector.directions["tf1.cross_attn"].sel({"pass": name}).values, expected)
    assert (vector.raw_norms["tf1.cross_attn"] == 40).all()


@pytest.mark.parametrize(
    ("hook", "part"), [("post_block_residual", "block"), ("cross_attn_output", "cross_attn")]
)
def test_it_is_added_where_demon_adds_it(tiny64: AceStep15, tmp_path: Path, hook: str, part: str) -> None:
    vector = vector_from_demon(pack(tmp_path / "p", tiny64, hook=hook, block=0), tiny64, SETTINGS)
    site, clip = f"tf0.{part}", Clip("a sad song", 3)
    plain, steered = (
        tiny64.generate(clip, SETTINGS, edits=edits, capture=site).activations[site].sel(step=0)
        for edits in ((), vector.at(0.5, passes="separate"))
    )
    change = (steered - plain).values
    assert_close(
        change, np.broadcast_to(0.5 * 4.0 * unit(0, width(tiny64)).numpy().astype(float), change.shape)
    )


def test_vectors_by_block_and_step(tiny64: AceStep15, tmp_path: Path) -> None:
    values = torch.stack([torch.stack([unit(10 * k + s, width(tiny64)) for s in range(4)]) for k in range(2)])
    header = {
        "blocks": [1, 0],
        "magnitude": 2.0,
        "cond_only": True,
        "renorm": True,
        "norm": 0.0,
        "method": "tada_caa",
    }
    vector = vector_from_demon(pack(tmp_path / "p", tiny64, {"vector": values}, **header), tiny64, SETTINGS)
    assert list(vector.directions) == ["tf1.cross_attn", "tf0.cross_attn"]
    for k, site in enumerate(vector.directions):
        assert_close(vector.directions[site].sel({"pass": "cond"}).values, 2 * values[k].numpy())
        assert vector.raw_norms[site].isnull().all()
        assert vector.directions[site]["pass"].values.tolist() == ["cond"]
    assert "keep_norm=True" in vector.provenance["note"]
    with pytest.raises(UserError, match="directions for 4 steps, but the settings have 2"):
        vector_from_demon(tmp_path / "p", tiny64, SETTINGS.model_copy(update={"num_steps": 2}))


@pytest.mark.parametrize(
    ("header", "factors"),
    [
        ({}, [4.0, 0.1]),  # a vector of length 1 by the magnitude, another by magnitude / norm
        ({"norms": [20.0, 3.0]}, [2.0, 0.1]),
        ({"norm": 0.0}, [4.0, 0.1]),
        ({"norm": 0.0, "norms": [20.0, 3.0], "provenance": {"knob_unit": 0.2}}, [4.0, 0.2]),
    ],
)
def test_vectors_of_several_blocks(
    tiny64: AceStep15, tmp_path: Path, header: dict[str, Any], factors: list[float]
) -> None:
    rows = torch.stack([unit(1, width(tiny64)), 3 * unit(2, width(tiny64))])
    arrays = {"vectors": rows, "blocks": torch.tensor([0, 1])}
    file = pack(tmp_path / "p", tiny64, arrays, format=2, block=0, **header)
    vector = vector_from_demon(file, tiny64, SETTINGS)
    for k, site in enumerate(("tf0.cross_attn", "tf1.cross_attn")):
        found = vector.directions[site].sel({"pass": "cond", "step": 0})
        assert_close(found.values, factors[k] * rows[k].numpy())


def test_it_says_what_is_known_of_it(tiny64: AceStep15, tmp_path: Path) -> None:
    file = pack(tmp_path / "p", tiny64)
    vector = vector_from_demon(file, tiny64, SETTINGS)
    assert (vector.method, vector.concept) == ("caa", "Bright")
    assert (vector.positive, vector.negative) == ("more Bright", "less Bright")
    assert vector.model["weights_hash"] == tiny64.weights_hash
    note = vector.provenance["note"]
    assert (
        "acestep-v15-base" in note and "does not identify the weights" in note and "passes='separate'" in note
    )
    assert json.loads(vector.provenance["demon"])["magnitude"] == 4.0
    back = load_vector(vector.save(tmp_path / "pack"))
    assert [edit.hash for edit in back.at(2.0)] == [edit.hash for edit in vector.at(2.0)]
    anchored = pack(file, tiny64, method="new", pos_anchor="a bright song", neg_anchor="a dark song")
    vector = vector_from_demon(anchored, tiny64, SETTINGS)
    assert (vector.method, vector.positive, vector.negative) == ("imported", "a bright song", "a dark song")


ONES = torch.ones(32)


@pytest.mark.parametrize(
    ("header", "arrays", "words"),
    [
        (
            {"hook": "pre_block"},
            None,
            "hook is 'pre_block', but must be post_block_residual or cross_attn_output",
        ),
        ({"hook": None}, None, "hook is missing"),
        (
            {"family": "sa3", "checkpoint": "medium"},
            None,
            r"family 'sa3', checkpoint 'medium', but .* is ACE-Step 1.5",
        ),
        ({"block": 7}, None, "tf7 does not exist"),
        ({"block": -1}, None, "block must be at least 0"),
        ({"block": None}, None, "must name its blocks"),
        ({"format": 3}, None, "format must be 1 or 2"),
        ({"hidden_size": 16}, None, "does not fit 1 blocks of the hidden_size 16"),
        ({"policy": {"kind": "random"}}, None, "policy"),
        ({"policy": {"kind": "curve", "weights": []}}, None, "weights"),
        ({"policy": {"kind": "curve", "weights": [math.nan]}}, None, "finite"),
        ({"operation": "project"}, None, "operation is not a known name"),
        ({"magnitude": 1e300}, {"vector": 1e300 * ONES.double()}, "too large"),
        ({"policy": {"kind": "curve", "weights": [1e300]}}, {"vector": 1e300 * ONES.double()}, "too large"),
        ({"policy": {"kind": "step", "step": 10**400}}, None, "step must be at most"),
        ({"label": "\x1b[31m"}, None, "must be one line of text"),
        ({"provenance": {"weights_hash": "ab"}}, None, r"weights 'ab'\), but this model is"),
        ({"provenance": {"weights_hash": 3}}, None, "weights '3'"),
        ({}, {"vector": ONES, "vector_neg": -ONES}, "other directions for negative strengths"),
        ({}, {"vector": ONES * math.inf}, "finite numbers"),
        ({}, {"vector": ONES, "more": -ONES}, "one vector, or vectors"),
        ({}, {"vectors": ONES[None]}, "one vector, or vectors"),
        ({}, {"vector": ONES[:16]}, "does not fit"),
        ({}, {"vector": ONES[None]}, "does not fit"),
        ({"blocks": [0, 0]}, {"vector": torch.ones(2, 4, 32)}, "each once"),
        ({"blocks": [0]}, {"vector": torch.ones(2, 4, 32)}, "does not fit"),
        (
            {"norms": [1.0]},
            {"vectors": torch.ones(2, 32), "blocks": torch.tensor([0, 1])},
            "one of its norms",
        ),
        ({}, {"vectors": torch.ones(2, 32), "blocks": torch.tensor([0.5, 1])}, "must name its blocks"),
    ],
)
def test_what_a_vector_cannot_express_is_refused(
    tiny64: AceStep15, tmp_path: Path, header: dict[str, Any], arrays: Any, words: str
) -> None:
    assert width(tiny64) == 32
    file = pack(tmp_path / "p", tiny64, arrays, **header)
    with pytest.raises(UserError, match=f"cannot be used as DEMON's pack: .*{words}") as error:
        vector_from_demon(file, tiny64, SETTINGS)
    assert str(error.value).isprintable()


def test_other_files_are_refused(tiny64: AceStep15, tmp_path: Path) -> None:
    cut, other, bundle = tmp_path / "cut", tmp_path / "other", tmp_path / "bundle"
    cut.write_bytes(pack(tmp_path / "p", tiny64).read_bytes()[:-8])
    save_file({"vector": ONES}, other)
    save_file({"bright/vector": ONES}, bundle, {"manifest": "{}"})
    for file, words in (
        (cut, "not a valid"),
        (other, "no steering_pack"),
        (bundle, "bundle of several packs"),
    ):
        with pytest.raises(UserError, match=words):
            vector_from_demon(file, tiny64, SETTINGS)
    with pytest.raises(UserError, match="cannot be read"):
        vector_from_demon(tmp_path / "nowhere", tiny64, SETTINGS)


def test_another_architecture_is_refused(tiny64: AceStep15, tiny_v1_64: AceStepV1, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is ACE-Step v1"):
        vector_from_demon(pack(tmp_path / "p", tiny64), tiny_v1_64, SETTINGS)


# Writing


def made_on(
    model: AceStep15, values: np.ndarray, passes: tuple[str, ...] = ("cond",), part: str = "block"
) -> Vector:
    """A vector (site, pass, step, channel) of a model."""
    sites = [f"tf{block}.{part}" for block in range(len(values))]
    sigmas = model.sigmas(SETTINGS)
    return replace(
        vector_of(np.zeros((len(passes), 3, 2)), passes),
        directions={site: labelled(values[block], site, passes, sigmas) for block, site in enumerate(sites)},
        raw_norms={},
        model=model.describe(),
        settings=SETTINGS,
        sampling=model.sampling(SETTINGS),
    )


def written(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    with safe_open(file, "np") as stored:
        return {name: stored.get_tensor(name) for name in stored.keys()}, json.loads(  # noqa: SIM118 - not a dict
            stored.metadata()["steering_pack"]
        )


@pytest.mark.parametrize("part", ["block", "cross_attn"])
@pytest.mark.parametrize("passes", [("cond",), ("cond", "null")])
def test_directions_by_step_come_back(
    tiny64: AceStep15, tmp_path: Path, part: str, passes: tuple[str, ...]
) -> None:
    values = np.random.default_rng(0).standard_normal((2, 1, 4, 32)).repeat(len(passes), axis=1)
    vector = made_on(tiny64, values, passes, part)
    file = write_demon(vector, tmp_path / "mood.safetensors")
    arrays, header = written(file)
    assert_close(arrays["vector"], values[:, 0])
    assert header["blocks"] == [0, 1] and header["block"] == 0 and header["magnitude"] == 1.0
    assert header["cond_only"] == (passes == ("cond",))
    assert (header["hook"], header["family"]) == (
        {"block": "post_block_residual", "cross_attn": "cross_attn_output"}[part],
        "acestep",
    )
    assert (header["name"], header["method"], header["format"], header["hidden_size"]) == (
        "mood",
        "tada_caa",
        1,
        32,
    )
    back = vector_from_demon(file, tiny64, SETTINGS)
    for site, directions in vector.directions.items():
        assert_close(back.directions[site].values, directions.values.astype(np.float32))  # as in the file
        assert back.directions[site]["pass"].equals(directions["pass"])
    for name in ("method", "concept", "positive", "negative", "sigmas", "model"):
        assert getattr(back, name) == getattr(vector, name)


def test_one_direction_is_written_with_its_curve(tiny64: AceStep15, tmp_path: Path) -> None:
    weights = np.array([0.5, 0.0, 2.0, 1.0])
    one = unit(3, 32).numpy().astype(float)
    vector = made_on(tiny64, 3.0 * np.multiply.outer(weights, one)[None, None])
    arrays, header = written(write_demon(vector, tmp_path / "p", name="Slow motion!"))
    assert header["name"] == "slow_motion"
    assert_close(arrays["vector"], one)
    assert header["magnitude"] == header["norm"] == pytest.approx(6.0)
    assert header["policy"] == {"kind": "curve", "weights": pytest.approx([0.25, 0.0, 1.0, 0.5])}
    back = vector_from_demon(tmp_path / "p", tiny64, SETTINGS)
    assert_close(
        back.directions["tf0.block"].values, vector.directions["tf0.block"].values.astype(np.float32)
    )  # as in the file
    _, header = written(write_demon(made_on(tiny64, np.ones((1, 1, 4, 32))), tmp_path / "p"))
    assert header["policy"] == {"kind": "range", "start": 0.0, "end": 1.0}


def test_opposite_steps_are_not_one_direction(tiny64: AceStep15, tmp_path: Path) -> None:
    vector = made_on(tiny64, np.array([1.0, 1.0, -1.0, 1.0])[None, None, :, None] * np.ones((1, 1, 4, 32)))
    arrays, _ = written(write_demon(vector, tmp_path / "p"))
    assert arrays["vector"].shape == (1, 4, 32)
    back = vector_from_demon(tmp_path / "p", tiny64, SETTINGS)
    np.testing.assert_array_equal(back.directions["tf0.block"], vector.directions["tf0.block"])


def test_its_own_base_and_steps_are_checked(tiny64: AceStep15, tiny_turbo: AceStep15, tmp_path: Path) -> None:
    file = write_demon(
        made_on(tiny64, np.random.default_rng(0).standard_normal((1, 1, 4, 32))), tmp_path / "p"
    )
    with pytest.raises(UserError, match="was made on"):
        vector_from_demon(file, tiny_turbo, SETTINGS)
    shifted = SETTINGS.model_copy(update={"options": {"shift": 1.0}})
    with pytest.raises(UserError, match="other sigmas than the settings"):
        vector_from_demon(file, tiny64, shifted)


def test_what_demon_cannot_express_is_refused(
    tiny64: AceStep15, tiny_v1_64: AceStepV1, tmp_path: Path
) -> None:
    draw = np.random.default_rng(0)
    values = draw.standard_normal((2, 1, 4, 32))
    plain = made_on(tiny64, values)
    by_token = made_on(tiny64, draw.standard_normal((1, 1, 4, 5, 32)))
    mixed = replace(plain, directions={**plain.directions, "tf1.mlp": plain.directions["tf1.block"]})
    wide = replace(
        plain,
        directions={**plain.directions, "tf1.block": plain.directions["tf1.block"].isel(channel=slice(8))},
    )
    for vector, words in (
        (by_token, "one direction for all tokens"),
        (made_on(tiny64, values, part="mlp"), "act on the block or the cross_attn outputs"),
        (mixed, "Choose sites of one of these"),
        (wide, "one width"),
        (made_on(tiny64, values, ("null",)), "Make one of the cond pass"),
        (made_on(tiny64, draw.standard_normal((2, 2, 4, 32)), ("cond", "null")), "Make one of the cond pass"),
        (replace(plain, sampling=tiny_v1_64.sampling(SETTINGS)), "this vector is of ACE-Step v1"),
        (replace(plain, concept="雨"), "needs a name"),
        (made_on(tiny64, 1e39 * values), "single precision"),
    ):
        with pytest.raises(UserError, match=words):
            write_demon(vector, tmp_path / "p")
    assert not list(tmp_path.iterdir())
