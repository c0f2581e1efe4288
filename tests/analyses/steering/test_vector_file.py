"""A steering vector on disk: everything that it has comes back, and other files are refused in one sentence."""

import json
import os
import stat
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from safetensors.numpy import save_file

from analyses.steering.directions import labelled
from analyses.steering.header import content_of
from analyses.steering.pack import Header
from analyses.steering.reliability import reliability, unknown_reliability
from analyses.steering.stacking import stack
from analyses.steering.used_saes import ClosedStep, UsedSAE
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from tests.analyses.steering.checked import PAIRS, check_of
from tests.analyses.steering.test_vector import examples_of, sampling_of
from tests.full_disk import full_disk
from workbench.engine.settings import GenerationSettings
from workbench.sae.gate import GatedStep
from workbench.tensor_files import load_tensors

SITES = ("tf4.cross_attn", "tf3.cross_attn")  # not in alphabetical order
MODEL = {
    "model": "tiny",
    "weights_hash": "ab" * 32,
    "device": "cpu",
    "dtype": "float32",
    "block_names": ["a", "b"],
}


@pytest.fixture
def vector() -> Vector:
    draw = np.random.default_rng(0)
    directions = {
        site: labelled(draw.standard_normal((2, 2, 4, 3)), site, ("cond", "null"), (1.0, 0.1 + 0.2))
        for site in SITES
    }
    settings = GenerationSettings(duration=1.0, num_steps=2, options={"shift": 3.0})
    reliable = reliability(
        {site: draw.standard_normal((2, 2, 2, 4, 3)) for site in SITES}, ["cond", "null"], 5
    )
    reliable["split_half"][:] = np.nan  # as of one pair
    return Vector(
        method="caa",
        concept="Stimmung",
        positive="fröhlich",
        negative="sad or angry",
        directions=directions,
        unit="a mean difference",
        model=MODEL,
        settings=settings,
        sampling=sampling_of([("cond", "null")] * 2),
        examples=examples_of(5),
        reliability=reliable,
        cycle=True,
        saes=(
            UsedSAE(
                site=SITES[0], name="wide", weights="ab", closed=(ClosedStep(step=1, reason="it fails"),)
            ),
        ),
        checks=(check_of(), check_of(-0.3, 0.05, scorer="clap")),
    )


def test_it_comes_back_as_it_was(vector: Vector, tmp_path: Path) -> None:
    file = vector.save(f"{tmp_path}/vectors/mood")
    assert file == tmp_path / "vectors" / "mood"
    assert os.listdir(file.parent) == ["mood"]
    back = load_vector(file)
    assert list(back.directions) == list(SITES)
    for site in SITES:
        xr.testing.assert_identical(back.directions[site], vector.directions[site])
        xr.testing.assert_identical(back.raw_norms[site], vector.raw_norms[site])
    arrays = ("directions", "raw_norms", "reliability")
    for name in {field.name for field in fields(Vector)} - set(arrays):
        assert getattr(back, name) == getattr(vector, name), name
    xr.testing.assert_identical(back.reliability, vector.reliability)
    with pytest.raises(GatedStep, match=r"'wide'\) may not be used at step 1 \(sigma 0.3\): it fails\."):
        back.at(2.0)
    own, its = (each.at(-1.5, ignore_gate=True) for each in (vector, back))
    assert its == own
    assert [edit.hash for edit in its] == [edit.hash for edit in own]


def test_values_in_single_precision_stay_so(vector: Vector, tmp_path: Path) -> None:
    for site in SITES:
        vector.directions[site] = vector.directions[site].astype(np.float32)
    back = load_vector(vector.save(tmp_path / "v.safetensors"))
    xr.testing.assert_identical(back.directions[SITES[0]], vector.directions[SITES[0]])
    assert back.directions[SITES[0]].dtype == np.float32


def changed(
    file: Path, arrays: dict[str, np.ndarray | None] | None = None, without: str = "", **fields: Any
) -> None:
    """Write a file with its right hash again, with other fields in its header, or without one, or other arrays."""
    old, texts = load_tensors(file.parent, file.name)
    header = {**json.loads(texts["steering_vector"]), **fields}
    header.pop(without, None)
    kept = {name: array for name, array in {**old, **(arrays or {})}.items() if array is not None}
    if header.keys() - fields.keys() >= {"content"}:
        header["content"] = content_of(header, kept)
    save_file(kept, file, {"steering_vector": json.dumps(header)})


def directions(values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"direction.{site}": values for site in SITES}


def reliability_of(n_steps: int) -> dict[str, np.ndarray]:
    found = unknown_reliability(SITES, ["cond", "null"], n_steps)
    return {
        f"reliability.{name}": np.zeros((*values.shape[:3], 1)) if name == "learning" else values.values
        for name, values in found.items()
    }


def check(**changed: Any) -> dict[str, Any]:
    """The header's checks with one check, of which some entries are changed; None leaves one out."""
    whole = check_of().model_dump(mode="json")
    for name, value in changed.items():
        outer, _, inner = name.rpartition("__")
        (whole[outer] if outer else whole)[inner] = value
        if value is None and not outer:
            del whole[inner]
    return {"checks": [whole]}


def effects(*strengths: float) -> list[dict[str, Any]]:
    return [{"strength": strength, "mean": 0.1, "low": 0.0, "high": 0.2} for strength in strengths]


def used(**changed: Any) -> dict[str, Any]:
    """The header's autoencoders with one, of which some entries are changed; None leaves one out."""
    whole = {"site": SITES[0], "name": "one", "weights": "ab", "closed": [], **changed}
    return {"saes": [{name: value for name, value in whole.items() if value is not None}]}


HOOKS = {site: {"hook": "cross_attn output", "width": 3} for site in SITES}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": "2"}, "version must be 5"),
        ({"operation": "multiply"}, "operation must be 'add'"),
        ({"method": ""}, "method must not be empty"),
        ({"latents": "both"}, "latents must be"),
        ({"examples": [{"prompt": "a song"}]}, "examples.0.lyrics is missing"),
        ({"extra": 1}, "extra is not a known name"),
        ({"model": {"model": "tiny"}}, "weights_hash"),
        ({"provenance": {"code_version": "1"}}, "created"),
        ({"sampling": {"scheduler": "Euler"}}, "sampling.architecture is missing"),
        ({"settings": {"num_steps": 0}}, "settings.num_steps must be at least 1"),
        ({"sigmas": [1.0]}, "1 sigmas, but settings.num_steps is 2"),
        ({"passes": ["cond"]}, "one direction for each pass and step"),
        ({"passes": ["cond", "x"]}, "passes.1 must be"),
        ({"sites": {SITES[0]: HOOKS[SITES[0]]}}, "not those of its sites"),
        (
            {"sites": {**HOOKS, SITES[0]: {"hook": "block output", "width": 3}}},
            "but its hook is block output",
        ),
        ({"sites": {**HOOKS, SITES[1]: {"hook": "cross_attn output", "width": 4}}}, "but its width is 4"),
        ({"pairs": [1, 2]}, "conflicting sizes"),
        ({"negative": "fröhlich"}, "positive and negative must differ; both are 'fröhlich'"),
        ({"sigmas": [1.0, 1.0]}, "positive numbers that fall from step to step"),
        ({"sigmas": [0.5, 1.0]}, "positive numbers that fall from step to step"),
        ({"sigmas": [1.0, -1.0]}, "positive numbers that fall from step to step"),
        ({"settings": {"num_steps": 20}}, "2 sigmas, but settings.num_steps is 20"),
        ({"sampling": sampling_of([("cond", "null")]).model_dump()}, "sampling.passes has 1 entries"),
        ({"passes": ["cond", "cond"]}, "'cond' is given twice"),
        ({"pairs": [3, 2, 1]}, "pairs must be rising numbers from 1 to 5"),
        ({"pairs": [6]}, "pairs must be rising numbers from 1 to 5"),
        ({"pairs": [0]}, "pairs must be rising numbers from 1 to 5"),
        ({"examples": [], "pairs": [1]}, "pairs must be rising numbers from 1 to 0"),
        ({"concept": ""}, "concept must not be empty"),
        ({"concept": "mo\x1b[31mod"}, "concept: must be one line of text"),
        ({"positive": "happy\n"}, "positive: must be one line of text"),
        (
            {"arrays": {"reliability.steps": np.full((2, 2, 2, 2), -1.01)}},
            "cosines outside -1 to 1",
        ),
        (
            {"arrays": {"reliability.split_half": np.full((2, 2, 2), np.inf)}},
            "cosines outside -1 to 1",
        ),
        ({"arrays": {f"raw_norm.{SITES[0]}": np.full((2, 2), -1.0)}}, "raw norms below 0"),
        ({"arrays": directions(np.ones((2, 2, 3)))}, "a cycle without tokens"),
        ({"saes": None}, "saes must be a list"),
        (used(closed=None), "saes.0.closed is missing"),
        (used(name=""), "saes.0.name must not be empty"),
        (used(site="tf3.mlp"), "an autoencoder of tf3.mlp, but no directions there"),
        (used(closed=[{"step": 2, "reason": "bad"}]), "closed steps of its autoencoders must be from 0 to 1"),
        (used(closed=[{"step": s, "reason": "bad"} for s in (1, 0)]), "closed steps must rise"),
        (used(closed=[{"step": -1, "reason": "bad"}]), "saes.0.closed.0.step must be at least 0"),
        ({"saes": used()["saes"] * 2}, "an autoencoder is given twice for a site"),
        ({"checks": None}, "checks must be a list"),
        ({"checks": [check_of().model_dump()] * 2}, "the scorer 'embedded' is given twice"),
        (check(scorer="a\nb"), "checks.0.scorer: must be one line"),
        (check(identity=""), "checks.0.identity must not be empty"),
        (check(identity=None), "checks.0.identity is missing"),
        (check(extra=1), "checks.0.extra is not a known name"),
        (check(pairs=0), "checks.0.pairs must be at least 1"),
        (check(pairs=PAIRS - 1), f"scores of more than its {PAIRS - 1} pairs"),
        (check(effects=[]), "checks.0.effects must have at least 1"),
        (check(effects=effects(1.0, -1.0)), "rising numbers other than 0"),
        (check(effects=effects(-1.0, 0.0, 1.0)), "rising numbers other than 0"),
        (check(effects=effects(-1.0, 0.5, 1.0)), "its sign must compare the smallest strengths"),
        (check(effects=effects(-1.0)), "its sign must compare the smallest strengths"),
        (check(effects=[{"strength": "1"}]), "checks.0.effects.0.mean is missing"),
        (check(sign__low=0.6), "the interval from 0.6 to 0.5 must rise"),
        (check(sign__low=None), "must have both ends and a mean"),
        (check(sign__mean=None), "must have both ends and a mean"),
        (check(sign__mean="0.4"), "checks.0.sign.mean must be a number"),
        (check(sign__verdict="backwards"), "verdict is 'backwards', but its numbers say 'the right way'"),
        (check(sign__verdict="good"), "checks.0.sign.verdict must be"),
        (check(sign__pairs=1), "but its numbers say 'too few pairs to tell'"),
        (check(sign__low=0.007), "but its numbers say 'not clear'"),
        (check(sign__low=-0.1), "but its numbers say 'not clear'"),
        (check(control__interpretable=False), "interpretable must be true if its interval is above 0"),
        (check(control__low=-0.1), "interpretable must be true if its interval is above 0"),
        (check(control__pairs=-1), "checks.0.control.pairs must be at least 0"),
        ({"content": "0" * 16}, "its content is not what was written"),
        (
            {
                "sites": {**HOOKS, "x": HOOKS[SITES[0]]},
                "arrays": {"direction.x": np.ones((2, 2, 3)), "raw_norm.x": np.ones((2, 2))},
            },
            "not a site",
        ),
        ({"arrays": {f"raw_norm.{SITES[0]}": None}}, "not those of its sites"),
        ({"arrays": {"reliability.learning": None}}, "its reliability does not have"),
        ({"arrays": {"reliability.steps": np.array(1.0)}}, "numbers by site, pass and step"),
        (
            {"arrays": {"reliability.split_half": np.ones((2, 2, 2), dtype=bool)}},
            "numbers by site, pass and step",
        ),
        ({"arrays": reliability_of(5)}, "its reliability is of other steps"),
        ({"model": {"model": "tiny", "weights_hash": "ab", "block_names": 3}}, "block_names must be a list"),
        ({"arrays": {f"raw_norm.{SITES[0]}": np.ones(2)}}, "one raw norm for each pass and step"),
        ({"arrays": directions(np.full((2, 2, 3), np.nan))}, "finite numbers"),
        ({"arrays": directions(np.ones((2, 2, 3), dtype=int))}, "finite numbers"),
        ({"arrays": directions(np.ones((2, 2)))}, "one direction for each pass and step"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_damaged_file_is_refused(
    vector: Vector, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    file = vector.save(tmp_path / "mood.safetensors")
    changed(file, **fields)
    with pytest.raises(UserError, match=f"mood.safetensors is not a vector, or is damaged .*{words}"):
        load_vector(file)


def test_vectors_that_could_not_be_read_again_are_not_written(vector: Vector, tmp_path: Path) -> None:
    file = vector.save(tmp_path / "mood.safetensors")
    before = file.read_bytes()
    for wrong in (
        {"concept": "mood\n"},
        {"negative": vector.positive},
        {"reliability": vector.reliability + 2},
        {"settings": vector.settings.model_copy(update={"num_steps": 20})},
    ):
        with pytest.raises(UserError, match=r"The vector cannot be written to .*mood.safetensors: "):
            replace(vector, **wrong).save(file)
    assert file.read_bytes() == before


def test_resampled_vectors_have_other_steps_than_their_settings(vector: Vector, tmp_path: Path) -> None:
    other = vector.resampled((500.0, 0.4, 0.3))
    for number, made in enumerate((other, other.resampled((0.9,)), stack([other, other]))):
        assert load_vector(made.save(tmp_path / str(number))).sigmas == made.sigmas


def test_cosines_may_be_rounded(vector: Vector, tmp_path: Path) -> None:
    rounded = vector.reliability.assign(steps=vector.reliability.steps * 0 + np.nextafter(1.0, 2.0))
    load_vector(replace(vector, reliability=rounded).save(tmp_path / "v"))


@pytest.mark.parametrize(("version", "advice"), [(4, "Compute it again"), (6, "Update it")])
def test_a_file_of_another_version_says_so(vector: Vector, tmp_path: Path, version: int, advice: str) -> None:
    file = vector.save(tmp_path / "mood.safetensors")
    changed(file, version=version)
    with pytest.raises(UserError, match=f"is a vector of version {version}.*{advice}") as raised:
        load_vector(file)
    assert "damaged" not in str(raised.value)


def test_other_files_are_named_with_their_use(tmp_path: Path) -> None:
    for kind, words in (
        ("concept_slider", "is a concept slider; `workbench steer apply --slider` uses it"),
        ("steering_pack", "is a pack of DEMON; `workbench steer import`"),
    ):
        save_file({"value": np.ones(3)}, tmp_path / kind, {kind: "{}"})
        with pytest.raises(UserError, match=words):
            load_vector(tmp_path / kind)


@pytest.mark.parametrize("name", Header.model_fields)
def test_everything_in_the_header_is_mandatory(vector: Vector, tmp_path: Path, name: str) -> None:
    file = vector.save(tmp_path / "mood.safetensors")
    changed(file, without=name)
    with pytest.raises(UserError, match=f"{name} is missing"):
        load_vector(file)


@pytest.mark.parametrize("from_end", [1, 3, 40])
def test_a_changed_number_is_noticed(vector: Vector, tmp_path: Path, from_end: int) -> None:
    file = vector.save(tmp_path / "mood.safetensors")
    data = bytearray(file.read_bytes())
    data[-from_end] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        UserError, match=r"is not a vector, or is damaged .*its content is not what was written"
    ):
        load_vector(file)


def test_control_characters_are_not_printed(vector: Vector) -> None:
    assert repr(replace(vector, concept="\x1b[31mmood\n")).startswith("Vector(�[31mmood�: + is fröhlich")


def test_a_pipe_is_not_replaced(vector: Vector, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="must be a file; it is a named pipe"):
        vector.save(tmp_path / "pipe")
    assert os.listdir(tmp_path) == ["pipe"]
    assert stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)


def test_files_of_other_kinds_are_refused(vector: Vector, tmp_path: Path) -> None:
    tensors, text, cut = tmp_path / "tensors", tmp_path / "text", tmp_path / "cut"
    save_file({"value": np.ones(3)}, tensors, {"format": "workbench-artefact"})
    text.write_text("a vector")
    cut.write_bytes(vector.save(tmp_path / "whole").read_bytes()[:-8])
    for file in (tensors, text, cut):
        with pytest.raises(UserError, match="is not a vector, or is damaged") as raised:
            load_vector(file)
        assert str(raised.value).count(str(file)) == 1 and "`save`" not in str(raised.value)
    for missing in (tmp_path / "nowhere", tmp_path / "text" / "x", tmp_path / "no" / "x"):
        with pytest.raises(UserError, match="cannot be read"):
            load_vector(missing)
    (tmp_path / "link").symlink_to(tmp_path / "whole")
    with pytest.raises(UserError, match="must be a file"):
        load_vector(tmp_path / "link")
    with pytest.raises(UserError) as raised:
        load_vector(tmp_path)
    assert str(raised.value) == f"{tmp_path} is a folder. Give the file of a vector."


def test_a_place_where_no_file_can_be_is_refused(vector: Vector, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "x", tmp_path / ("n" * 300)):
        with pytest.raises(UserError):
            vector.save(path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_a_user_s_error(vector: Vector, tmp_path: Path) -> None:
    with full_disk(), pytest.raises(UserError, match="mood cannot be written"):
        vector.save(tmp_path / "mood")
    assert not os.listdir(tmp_path)
