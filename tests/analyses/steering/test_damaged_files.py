"""Files of steering that are damaged or hostile: one sentence, or what they were; never another error."""

import json
import pickle
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyses.steering.demon import vector_from_demon
from analyses.steering.header import content_of
from analyses.steering.pack_summary import pack_facts, pack_sites
from analyses.steering.published import vector_from_published
from analyses.steering.slider import Slider, load_slider
from analyses.steering.slider_summary import slider_facts
from analyses.steering.vector import Vector, load_vector
from cache.errors import UserError
from tests.analyses.steering import test_demon as demon
from tests.analyses.steering import test_slider as slider
from tests.analyses.steering.mutations import changed_array, changed_entry, damaged
from tests.analyses.steering.test_published import published_caa
from tests.analyses.steering.test_vector import vector_of
from workbench.models.ace_step import AceStep15
from workbench.models.ace_step_v1.adapter import AceStepV1
from workbench.tensor_files import load_tensors, tensor_bytes

MUTANTS = 40
Steering = Vector | Slider


def check_use(found: Steering, again: Path) -> None:
    """Check that what a file gave can be shown, used, and written again."""
    repr(found)
    if isinstance(found, Vector):
        pack_facts(found), pack_sites(found)
    else:
        slider_facts(found)
    for strength in (0.0, 1.0):
        if not isinstance(found, Vector) or "cond" in next(iter(found.directions.values()))["pass"].values:
            found.at(strength)
    found.save(again)


def check_mutants(
    file: Path,
    mutant: Callable[[random.Random], bytes],
    load: Callable[[], Steering],
    seed: str,
    mutants: int = MUTANTS,
) -> int:
    """Check mutants of a file; return how many were refused."""
    whole, refused = file.read_bytes(), 0
    for number in range(mutants):
        file.write_bytes(mutant(random.Random(f"{seed} {number}")))
        try:
            found = load()
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 700, number
        else:
            check_use(found, file.parent / "again.safetensors")
    file.write_bytes(whole)
    check_use(load(), file.parent / "again.safetensors")
    return refused


def of_tensors(file: Path, header: str, hashed: bool = True) -> Callable[[random.Random], bytes]:
    """Change an entry of the header or an array; the header's hash is right again."""
    arrays, texts = load_tensors(file.parent, file.name)
    document = json.loads(texts[header])

    def mutant(draw: random.Random) -> bytes:
        made = changed_entry(document, draw) if draw.random() < 0.6 else document
        other: Mapping[str, np.ndarray] = arrays if made is not document else changed_array(arrays, draw)
        if hashed and "content" in made:
            with suppress(ValueError):  # JSON has no such number
                made = {**made, "content": content_of(made, other)}
        return tensor_bytes(other, {**texts, header: json.dumps(made)})

    return mutant


@pytest.mark.parametrize("kind", ["pack", "slider"])
def test_packs_and_sliders(tiny64: AceStep15, tmp_path: Path, kind: str) -> None:
    """Damaged bytes change nothing or are refused; entries and arrays that are consistent but wrong are, too."""
    made: Steering = slider.slider_of(tiny64) if kind == "slider" else vector_of(np.ones((2, 3, 4)))
    load: Any = load_slider if kind == "slider" else load_vector
    file = made.save(tmp_path / "made.safetensors")
    whole = file.read_bytes()
    header = "concept_slider" if kind == "slider" else "steering_vector"
    assert check_mutants(file, of_tensors(file, header), lambda: load(file), kind) > MUTANTS / 2
    for number in range(MUTANTS):
        file.write_bytes(damaged(whole, random.Random(number)))
        try:
            found = load(file)
        except UserError:
            continue
        assert [edit.hash for edit in found.at(1.0)] == [edit.hash for edit in made.at(1.0)], number


def test_packs_of_demon(tiny64: AceStep15, tmp_path: Path) -> None:
    file = demon.pack(tmp_path / "made.safetensors", tiny64, policy={"kind": "curve", "weights": [0.5, 1.0]})
    mutant = of_tensors(file, "steering_pack", hashed=False)
    refused = check_mutants(file, mutant, lambda: vector_from_demon(file, tiny64, demon.SETTINGS), "demon")
    assert refused > MUTANTS / 3


def test_published_vectors(tiny_v1_64: AceStepV1, tmp_path: Path) -> None:
    source = published_caa(tmp_path / "caa")
    file, settings = tmp_path / "caa" / "sv.pkl", tmp_path / "caa" / "config.json"
    vectors = pickle.loads(file.read_bytes())
    document = json.loads(settings.read_text())

    def of_arrays(draw: random.Random) -> bytes:
        changed = changed_array({str(key): of_sites["tf0"][0] for key, of_sites in vectors.items()}, draw)
        other = {
            key: {**of_sites, "tf0": [changed[str(key)]]}
            for key, of_sites in vectors.items()
            if str(key) in changed
        }
        return damaged(pickle.dumps(other), draw) if draw.random() < 0.3 else pickle.dumps(other)

    def of_settings(draw: random.Random) -> bytes:
        return json.dumps(changed_entry(document, draw)).encode()

    for each, mutant in ((file, of_arrays), (settings, of_settings)):
        assert check_mutants(each, mutant, lambda: vector_from_published(source, tiny_v1_64), "caa", 12)
