"""Each kind of artefact is read from its documented form, and written with what is needed to use it."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.artefacts import builders
from tests.workbench.artefacts.builders import BLOCKS, FEATURES, STEPS, WIDTH
from tests.workbench.sae.random_sae import random_kind
from workbench.artefacts.austeer import read_austeer
from workbench.artefacts.caa import read_caa, site_name
from workbench.artefacts.concepts import CONCEPTS, find_concept
from workbench.artefacts.lora import read_lora
from workbench.artefacts.sae_folder import read_sae
from workbench.artefacts.scores import read_scores
from workbench.artefacts.sources import open_source
from workbench.artefacts.sparsify import write_sparsify
from workbench.artefacts.token_embedding import read_token_embedding
from workbench.artefacts.written import list_imported, metadata_of, open_imported, study_file, write_artefact
from workbench.sae.folder import save_folder
from workbench.sae.transcoder import TopKTranscoderObjective

# The two ends of each published concept.
ENDS = {
    "piano": ("piano", "no piano"),
    "mood": ("happy", "sad"),
    "tempo": ("fast", "slow"),
    "vocal_gender": ("female vocal", "male vocal"),
    "vocal_style": ("rap vocal", "sung vocal"),
    "violin": ("violin", "no violin"),
    "guitar_electronic": ("acoustic guitar", "electric guitar"),
    "rock_genre": ("jazz", "rock"),
    "electronic_music": ("classical", "electronic"),
}


def test_every_published_concept_has_its_two_ends() -> None:
    assert {name: (concept.positive, concept.negative) for name, concept in CONCEPTS.items()} == ENDS
    for concept in CONCEPTS.values():
        assert concept.positive.split()[0] in concept.positive_prompt
        assert concept.negative.startswith("no ") == (concept.negative_prompt == "{p}")
    assert CONCEPTS["rock_genre"].polarity == "rock_genre: + is jazz, − is rock"


@pytest.mark.parametrize("name", ENDS)
def test_concepts_are_found_by_either_spelling(name: str) -> None:
    assert find_concept(name.replace("_", "-"), "here") is find_concept(name, "here") is CONCEPTS[name]


@pytest.mark.parametrize("name", ["../../rock_genre", "rock genre", "/etc/passwd", "", None, 7, "piano\0"])
def test_unknown_concepts_are_refused_with_the_known_ones(tmp_path: Path, name: Any) -> None:
    folder = builders.write_caa(tmp_path / "caa", concept=name)
    with pytest.raises(UserError, match="Concepts: piano, mood, tempo"):
        read_caa(str(folder))


@pytest.mark.parametrize("protocol", [4, 5])
def test_steering_vectors_are_read(tmp_path: Path, protocol: int) -> None:
    held = builders.caa_vectors()
    read = read_caa(str(builders.write_caa(tmp_path, held, protocol)))
    assert read.concept.name == "rock_genre"
    assert set(read.arrays()) == {
        f"tf{block}.cross_attn.{name}" for block in range(BLOCKS) for name in ("cond", "null")
    }
    for (step, number), of_sites in held.items():
        for site, (vector,) in of_sites.items():
            name = f"{site}.cross_attn.{('cond', 'null')[number]}"
            np.testing.assert_array_equal(read.arrays()[name][step], vector)
    assert read.sites == {"tf0.cross_attn": WIDTH, "tf1.cross_attn": WIDTH}
    assert (read.steps, read.unit_norm) == (STEPS, True)


def test_steps_are_put_in_order(tmp_path: Path) -> None:
    held = builders.caa_vectors()
    turned = dict(reversed(held.items()))
    vectors = read_caa(str(builders.write_caa(tmp_path, turned))).arrays()["tf1.cross_attn.null"]
    np.testing.assert_array_equal(vectors, [held[step, 1]["tf1"][0] for step in range(STEPS)])


def test_vectors_of_unequal_sites_are_read(tmp_path: Path) -> None:
    """AudioLDM2's: full module names, widths of their own, and perhaps no unconditional pass."""
    name = ".unet.up_blocks.1.attentions.{}.transformer_blocks.0.attn2"
    widths = {name.format(5): 6, name.format(10): 10}
    held = builders.caa_vectors(widths)
    read = read_caa(str(builders.write_caa(tmp_path, held, concept="vocal-gender")))
    site = "up1tf5attn0.cross_attn"
    assert read.sites[site] == 6
    assert read.arrays()[f"{site}.null"].shape == (STEPS, 6)
    by_step = {step: of_sites for (step, number), of_sites in held.items() if number == 0}
    alone = read_caa(str(builders.write_caa(tmp_path, by_step)))
    assert alone.metadata()["passes"] == ["cond"]


@pytest.mark.parametrize(
    ("key", "site"),
    [
        ("tf6", "tf6.cross_attn"),
        (".unet.up_blocks.1.attentions.10.transformer_blocks.1.attn2", "up1tf10attn1.cross_attn"),
        ("unet.down_blocks.3.attentions.2.transformer_blocks.0.attn2", "down3tf2attn0.cross_attn"),
        ("mid_block.attentions.1.transformer_blocks.1.attn2", "midtf1attn1.cross_attn"),
        ("some.other.module", "some.other.module"),
    ],
)
def test_published_keys_are_sites(key: str, site: str) -> None:
    assert site_name(key) == site


def test_vectors_that_were_not_normalised_are_read_where_the_settings_say_so(tmp_path: Path) -> None:
    held = builders.caa_vectors()
    held[1, 0]["tf0"][0] = held[1, 0]["tf0"][0] * 7
    with pytest.raises(UserError, match="lengths are 1 to 7"):
        read_caa(str(builders.write_caa(tmp_path, held)))
    assert not read_caa(str(builders.write_caa(tmp_path, held, normalize_sv=False))).unit_norm
    held[1, 0]["tf0"][0] = np.zeros(WIDTH, np.float32)
    assert read_caa(str(builders.write_caa(tmp_path, held))).unit_norm


def test_vectors_are_written_with_everything_that_is_known_of_them(tmp_path: Path) -> None:
    read = read_caa(str(builders.write_caa(tmp_path / "ace-step-caa-rock-genre")))
    file = write_artefact(read, tmp_path / "new" / "vectors.safetensors")
    with safe_open(file, "numpy") as stored:
        raw = stored.metadata()
        np.testing.assert_array_equal(
            stored.get_tensor("tf0.cross_attn.cond"), read.vectors["tf0.cross_attn", "cond"]
        )
    metadata = {name: json.loads(text) for name, text in raw.items()}
    import hashlib

    told = {
        "format": "workbench-artefact",
        "format_version": 1,
        "kind": "caa",
        "concept": "rock_genre",
        "positive": "jazz",
        "negative": "rock",
        "positive_prompt": "jazz song, {p}",
        "negative_prompt": "rock song, {p}",
        "sites": {"tf0.cross_attn": WIDTH, "tf1.cross_attn": WIDTH},
        "steps": STEPS,
        "passes": ["cond", "null"],
        "unit_norm": True,
        "settings": builders.CAA_CONFIG,
        "source": str(tmp_path / "ace-step-caa-rock-genre"),
        "source_file": "sv.pkl",
        "source_sha256": hashlib.sha256(
            (tmp_path / "ace-step-caa-rock-genre/sv.pkl").read_bytes()
        ).hexdigest(),
    }
    assert {name: metadata[name] for name in told} == told
    assert "computed without lyrics" in metadata["note"]


def test_an_imported_file_tells_what_it_is(tmp_path: Path) -> None:
    read = read_caa(str(builders.write_caa(tmp_path / "caa")))
    write_artefact(read, study_file(tmp_path, read.name))
    write_artefact(read_scores(str(builders.write_scores(tmp_path / "scores"))), study_file(tmp_path, "b"))
    vectors, scores = sorted(list_imported(tmp_path), key=lambda one: one.metadata["kind"])
    assert vectors.polarity == "rock_genre: + is jazz, − is rock"
    assert vectors.file == tmp_path / "imported" / "caa-rock_genre.safetensors"
    assert vectors.norms["tf0.cross_attn.cond"] == pytest.approx((1, 1), abs=1e-6)
    assert scores.shapes["tfidf"] == (STEPS, FEATURES)
    assert list_imported(tmp_path / "caa") == []


def test_a_file_that_is_no_imported_one_is_told(tmp_path: Path) -> None:
    builders.write_lora(tmp_path)
    with pytest.raises(UserError, match="Import it again"):
        open_imported(tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(UserError, match="Import it again"):
        open_imported(tmp_path / "train_config.json")


def test_score_tables_are_read(tmp_path: Path) -> None:
    held = builders.score_tables()
    folder = builders.write_scores(tmp_path, held)
    for source in (folder, folder / "tf6_scores.pkl"):
        read = read_scores(str(source))
        assert (read.concept.name, read.site, read.steps) == ("piano", "tf6.cross_attn", STEPS)
        for name in ("tfidf", "diff", "mean_pos"):
            np.testing.assert_array_equal(read.arrays()[name], held[name].numpy())
    builders.write_pickle(folder / "tf7_scores.pkl", held)
    with pytest.raises(UserError, match=r"several files \*_scores.pkl \(tf6_scores.pkl, tf7_scores.pkl\)"):
        read_scores(str(folder))
    assert read_scores(str(folder), site="tf7.cross_attn").site == "tf7.cross_attn"
    torch.save(held, folder / "tf7_scores.pkl")
    np.testing.assert_array_equal(
        read_scores(str(folder / "tf7_scores.pkl")).tables["diff"], held["diff"].numpy()
    )


def test_a_score_table_without_a_site_in_its_name_needs_one(tmp_path: Path) -> None:
    file = builders.write_scores(tmp_path) / "tf6_scores.pkl"
    other = file.rename(tmp_path / "piano.pkl")
    with pytest.raises(UserError, match="Give the site"):
        read_scores(str(other))
    assert read_scores(str(other), site="tf3.cross_attn").name == "scores-piano-tf3.cross_attn"


def test_austeer_scores_are_read(tmp_path: Path) -> None:
    held = builders.austeer_scores()
    read = read_austeer(str(builders.write_austeer(tmp_path, held)))
    assert (read.name, read.steps) == ("austeer-tempo-tf6tf7", STEPS)
    for step, of_sites in held.items():
        np.testing.assert_allclose(read.betas["tf1.cross_attn"][step], of_sites["tf1"]["betas"])
        np.testing.assert_allclose(read.arrays()["tf1.cross_attn.scores"][step], of_sites["tf1"]["scores"])


def test_sliders_are_read(tmp_path: Path) -> None:
    held = builders.lora_weights()
    read = read_lora(str(builders.write_lora(tmp_path, held)))
    assert (read.name, read.rank, read.alpha, read.blocks) == ("lora-mood-r4-tf6tf7", 4, 1.0, [6, 7])
    assert set(read.arrays()) == set(held)
    for name, weight in held.items():
        np.testing.assert_array_equal(read.arrays()[name], weight.float().numpy())
    module = "transformer_blocks.6.cross_attn.to_q"
    assert (read.down[module].shape, read.up[module].shape) == ((4, 8), (10, 4))


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_token_directions_are_read(tmp_path: Path, kind: torch.dtype) -> None:
    held = builders.direction(kind)
    read = read_token_embedding(str(builders.write_direction(tmp_path, held)))
    np.testing.assert_array_equal(read.direction, held["direction"].float().numpy())
    told = metadata_of(read)
    # A token has to stand where the other prompt has its word.
    assert (told["negative"], told["negative_prompt"]) == ("an instrument", "{p}, with instrument")
    assert told["hidden_dim"] == 16


@pytest.mark.parametrize("hookpoint", ["", "transformer_blocks.6.cross_attn"])
def test_autoencoders_are_read(tmp_path: Path, hookpoint: str) -> None:
    held = builders.sae_weights()
    folder = builders.write_sae(tmp_path / "ace-step-sae-tf6-cross-attn", held, hookpoint)
    read = read_sae(str(folder))
    assert (read.site, read.sae.config.settings) == ("tf6.cross_attn", {"k": 4})
    assert torch.equal(read.sae.W_enc, held["encoder.weight"].T)
    assert torch.equal(read.sae.b_dec, held["b_dec"])


def test_one_of_several_autoencoders_is_chosen_by_its_site(tmp_path: Path) -> None:
    for block, bias in ((6, 0.0), (7, 1.0)):
        weights = {**builders.sae_weights(), "b_dec": torch.full((WIDTH,), bias)}
        builders.write_sae(tmp_path, weights, f"transformer_blocks.{block}.cross_attn")
    with pytest.raises(UserError, match="several autoencoders"):
        read_sae(str(tmp_path))
    assert read_sae(str(tmp_path), "tf7.cross_attn").sae.b_dec.tolist() == [1.0] * WIDTH


def test_the_number_of_features_may_be_told_either_way(tmp_path: Path) -> None:
    folder = builders.write_sae(tmp_path / "tf1.cross_attn", num_latents=24, expansion_factor=1)
    assert read_sae(str(folder)).sae.config.d_sae == 24
    for settings in ({"num_latents": 23}, {"expansion_factor": 2}, {"d_in": 9}):
        with pytest.raises(UserError, match="its settings say"):
            read_sae(str(builders.write_sae(tmp_path / "tf1.cross_attn", **settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "setting",
    [
        {"input_unit_norm": True},
        {"skip_connection": True},
        {"signed": True},
        {"activation": "groupmax"},
        {"transcode": "no"},
    ],
    ids=lambda setting: next(iter(setting)),
)
def test_autoencoders_of_another_arithmetic_are_refused(tmp_path: Path, setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"says {next(iter(setting))}="):
        read_sae(str(builders.write_sae(tmp_path / "tf1.cross_attn", **setting)))


def test_a_transcoder_does_not_subtract_the_decoder_bias(tmp_path: Path) -> None:
    sae = read_sae(str(builders.write_sae(tmp_path / "tf1.cross_attn", transcode=True))).sae
    held = builders.sae_weights()
    assert sae.config.settings == {"k": 4, "d_out": WIDTH}
    x = torch.ones(1, WIDTH)
    pre = x @ held["encoder.weight"].T + held["encoder.bias"]
    with torch.no_grad():
        assert_close(sae.encode(x).max()[None], pre.max()[None])


def test_a_folder_of_saelens_is_read_with_its_site_and_pass(tmp_path: Path) -> None:
    sae = random_kind("gated")
    save_folder(sae, tmp_path)
    read = read_sae(str(tmp_path))
    assert (read.site, read.pass_name, read.origin.file.name) == (
        "tf1.cross_attn",
        "cond",
        "sae_weights.safetensors",
    )
    config = tmp_path / "cfg.json"
    stored = json.loads(config.read_text())
    config.write_text(
        json.dumps({**stored, "metadata": {"hook_name": "blocks.3.hook_resid_post", "pass_name": "null"}})
    )
    with pytest.raises(UserError, match="does not include the site"):
        read_sae(str(tmp_path))
    read = read_sae(str(tmp_path), "tf2.mlp")
    assert (read.site, read.pass_name) == ("tf2.mlp", "null")
    with torch.no_grad():
        assert_close(read.sae(torch.ones(2, 6)), sae(torch.ones(2, 6)))


def test_what_sparsify_has_not_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this one is 'gated'"):
        write_sparsify(random_kind("gated"), tmp_path / "sae")
    wide = TopKTranscoderObjective(k=2, d_out=7).new_sae(6, 20, {})
    with pytest.raises(UserError, match="from 6 channels to 7"):
        write_sparsify(wide, tmp_path / "sae")
    assert not (tmp_path / "sae").exists()


@pytest.mark.parametrize("architecture", ["topk", "topk_transcoder"])
def test_what_is_written_for_sparsify_is_read(tmp_path: Path, architecture: str) -> None:
    sae = random_kind(architecture)
    write_sparsify(sae, tmp_path)
    read = read_sae(str(tmp_path))
    assert read.site == "tf1.cross_attn"
    assert read.sae.config.settings == sae.config.settings
    for name, value in sae.state_dict().items():
        assert torch.equal(read.sae.state_dict()[name], value)


def test_settings_of_the_training_do_not_matter(tmp_path: Path) -> None:
    folder = tmp_path / "tf1.cross_attn"
    settings = {"batch_topk": True, "sample_topk": True, "multi_topk": True, "normalize_decoder": False}
    read = read_sae(str(builders.write_sae(folder, **settings)))  # type: ignore[arg-type]
    assert read.sae.config.settings == {"k": 4}


def test_a_source_that_is_nowhere_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none is neither an existing file"):
        read_caa(str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"no sv\.pkl"):
        read_caa(str(tmp_path))


def test_the_hub_is_asked_for_the_files_that_are_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked: list[Any] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(builders.write_caa(tmp_path))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert read_caa("somebody/ace-step-caa-rock-genre").origin.source == "somebody/ace-step-caa-rock-genre"
    assert asked == [("somebody/ace-step-caa-rock-genre", {"allow_patterns": ["sv.pkl", "config.json"]})]


def test_a_hub_that_cannot_be_reached_is_told() -> None:
    """The tests run without a network."""
    with pytest.raises(UserError, match=r"Cannot download.*hf download somebody/nothing"):
        open_source("somebody/nothing", ["sv.pkl"])


def test_pickles_of_the_published_size_are_read(tmp_path: Path) -> None:
    """Thirty steps, two passes and 24 blocks stay well below the most operations that are read."""
    held = {
        (step, number): {f"tf{block}": [np.ones(1, np.float32)] for block in range(24)}
        for step in range(30)
        for number in range(2)
    }
    assert len(pickle.dumps(held)) < 2**20
    assert len(read_caa(str(builders.write_caa(tmp_path, held, num_inference_steps=30))).vectors) == 48
