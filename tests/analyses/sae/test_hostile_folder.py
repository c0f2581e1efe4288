"""Autoencoders and artefacts in a study from elsewhere: sizes are compared before anything is made, links refused."""

import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from analyses.sae.names import load_sae, sae_folder
from cache.errors import UserError
from cache.opening import UnsafeFile
from tests.workbench.artefacts import builders
from tests.workbench.studies.foreign_study import make_foreign_study
from workbench.artefacts.caa import read_caa
from workbench.artefacts.written import list_imported, study_file, write_artefact
from workbench.sae.folder import save_folder
from workbench.sae.topk import TopKConfig, TopKSAE
from workbench.studies.study import Study

SITE = "tf0.cross_attn"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """A study with an autoencoder and an imported vector."""
    study = make_foreign_study(tmp_path / "study")
    sae = TopKSAE(TopKConfig(d_in=4, d_sae=8, k=2, metadata={"pass_name": "cond"}))
    save_folder(sae, sae_folder(study, SITE), study.path)
    vectors = read_caa(str(builders.write_caa(tmp_path / "source")))
    write_artefact(vectors, study_file(study.path, "vectors"), study.path)
    return study


def test_what_is_good_is_read(study: Study) -> None:
    assert load_sae(study, SITE).config.d_sae == 8
    assert [artefact.metadata["concept"] for artefact in list_imported(study.path)] == ["rock_genre"]


def rewrite(study: Study, **changes: Any) -> None:
    file = sae_folder(study, SITE) / "cfg.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        (
            {"d_in": 10**6, "d_sae": 10**6},
            "W_enc has the shape 4 × 8, but its configuration says 1000000 × 1000000",
        ),
        ({"d_sae": 16}, "W_enc has the shape 4 × 8, but its configuration says 4 × 16"),
        ({"d_sae": 1, "k": 1}, "W_enc has the shape 4 × 8, but its configuration says 4 × 1"),
        ({"k": 9}, "k is 9, but the autoencoder has only 8 features"),
        ({"k": "8"}, "k must be a whole number, not '8'"),
        ({"k": True}, "k must be a whole number, not True"),
        ({"k": None}, "k must be a whole number, not None"),
        ({"d_in": -4}, "d_in must be at least 1, not -4"),
        ({"metadata": [1]}, "metadata must be a mapping"),
        ({"metadata": {"scaled_steps": [-1]}}, "metadata: scaled_steps must be a list of steps"),
        ({"rescale_acts_by_decoder_norm": "no"}, "rescale_acts_by_decoder_norm must be true or false"),
        ({"d_in": 10**300}, "W_enc has the shape 4 × 8"),
    ],
)
def test_a_configuration_of_other_sizes_makes_nothing(
    study: Study, changes: dict[str, Any], fault: str
) -> None:
    rewrite(study, **changes)
    tracemalloc.start()
    with pytest.raises(UserError, match=rf"(cfg\.json|safetensors) is damaged; train it again.*: {fault}"):
        load_sae(study, SITE)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize(
    "text", [b"", b"[" * 200_000, b'{"a":' * 100 + b"1" + b"}" * 100, b"[]", b"\x89PNG\0", b"{}"], ids=len
)
def test_a_configuration_that_is_none_gets_a_sentence(study: Study, text: bytes) -> None:
    (sae_folder(study, SITE) / "cfg.json").write_bytes(text)
    with pytest.raises(UserError, match=r"cfg\.json is damaged; train it again, or get it again: "):
        load_sae(study, SITE)


WEIGHTS = {
    "W_enc": torch.zeros(4, 8),
    "b_enc": torch.zeros(8),
    "W_dec": torch.zeros(8, 4),
    "b_dec": torch.zeros(4),
}


@pytest.mark.parametrize(
    ("weights", "fault"),
    [
        ({}, "W_enc is missing"),
        ({"W_enc": WEIGHTS["W_enc"]}, "b_enc is missing"),
        (
            {**WEIGHTS, "W_enc": torch.zeros(8, 4)},
            "W_enc has the shape 8 × 4, but its configuration says 4 × 8",
        ),
        ({**WEIGHTS, "b\x1b[31m": torch.zeros(1)}, "'b�.*' is not a weight of this kind"),
        (
            {**WEIGHTS, "b_enc": torch.full((8,), 1e35)},
            "b_enc has 1e\\+35, beyond the largest weight, 1e\\+12",
        ),
        ({**WEIGHTS, "b_dec": torch.full((4,), torch.inf)}, "b_dec has numbers that are not finite"),
    ],
    ids=["none", "one", "turned", "more", "large", "infinite"],
)
def test_other_weights_get_a_sentence(study: Study, weights: dict[str, torch.Tensor], fault: str) -> None:
    save_file(weights, sae_folder(study, SITE) / "sae_weights.safetensors")
    with pytest.raises(UserError, match=rf"sae_weights\.safetensors is damaged; train it again.*: {fault}"):
        load_sae(study, SITE)


def link(file: Path, outside: Path) -> None:
    file.rename(outside)
    file.symlink_to(outside)


def dangling(file: Path, outside: Path) -> None:
    file.unlink()
    file.symlink_to(outside)


def pipe(file: Path, outside: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
@pytest.mark.parametrize("spoil", [link, dangling, pipe])
def test_what_is_no_file_of_an_autoencoder_is_not_opened(
    study: Study, tmp_path: Path, name: str, spoil: Callable[[Path, Path], None]
) -> None:
    spoil(sae_folder(study, SITE) / name, tmp_path / "outside")
    with pytest.raises(UnsafeFile, match="must be a file"):
        load_sae(study, SITE)


@pytest.mark.parametrize("folder", ["sae", f"sae/{SITE}"])
def test_a_folder_that_is_a_link_is_neither_read_nor_written(
    study: Study, tmp_path: Path, folder: str
) -> None:
    outside = tmp_path / "outside"
    (study.path / folder).rename(outside)
    (study.path / folder).symlink_to(outside)
    before = {file: file.read_bytes() for file in outside.rglob("*") if file.is_file()}
    with pytest.raises(UnsafeFile, match="must be a folder; it is a link"):
        load_sae(study, SITE)
    with pytest.raises(UnsafeFile, match="must be a folder; it is a link"):
        save_folder(TopKSAE(TopKConfig(d_in=4, d_sae=8, k=2)), sae_folder(study, SITE), study.path)
    assert {file: file.read_bytes() for file in outside.rglob("*") if file.is_file()} == before


@pytest.mark.parametrize("site", ["../..", "..", "/etc", "a\0b"])
def test_a_site_leads_nowhere_else(study: Study, site: str) -> None:
    with pytest.raises(UserError):
        load_sae(study, site)


@pytest.mark.parametrize("spoil", [link, dangling, pipe])
def test_what_is_no_imported_file_is_not_opened(
    study: Study, tmp_path: Path, spoil: Callable[[Path, Path], None]
) -> None:
    spoil(study_file(study.path, "vectors"), tmp_path / "outside")
    with pytest.raises(UnsafeFile, match="must be a file"):
        list_imported(study.path)


def test_an_imported_folder_that_is_a_link_is_neither_read_nor_written(study: Study, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (study.path / "imported").rename(outside)
    (study.path / "imported").symlink_to(outside)
    with pytest.raises(UnsafeFile, match="is a link"):
        list_imported(study.path)
    vectors = read_caa(str(tmp_path / "source"))
    with pytest.raises(UnsafeFile, match="is a link"):
        write_artefact(vectors, study_file(study.path, "more"), study.path)
    assert [file.name for file in outside.iterdir()] == ["vectors.safetensors"]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("concept", None),
        ("concept", "3"),
        ("concept", "[" * 100_000),
        ("settings", '{"a":' * 100 + "1" + "}" * 100),
        ("positive", "nothing"),
        ("format", '"another"'),
        ("format_version", "2"),
    ],
)
def test_metadata_that_are_none_get_a_sentence(study: Study, key: str, text: str | None) -> None:
    from safetensors import safe_open

    file = study_file(study.path, "vectors")
    with safe_open(file, "pt") as stored:
        metadata = {**stored.metadata(), key: text}
    held = {name: value for name, value in metadata.items() if value is not None}
    save_file({"a": torch.ones(2, 2)}, file, held)
    with pytest.raises(UserError, match="is damaged or was not written by"):
        list_imported(study.path)


def test_empty_arrays_get_a_sentence(study: Study) -> None:
    from safetensors import safe_open

    file = study_file(study.path, "vectors")
    with safe_open(file, "pt") as stored:
        metadata = stored.metadata()
    save_file({"a": torch.from_numpy(np.zeros((0, 3), np.float32))}, file, metadata)
    with pytest.raises(UserError, match="it lacks numbers"):
        list_imported(study.path)
