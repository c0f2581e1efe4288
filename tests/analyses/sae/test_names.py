"""A study keeps several autoencoders by name, and replaces none."""

from pathlib import Path

import pytest

from analyses.sae import names
from analyses.sae.names import chosen_name, chosen_names, load_sae, sae_names, saes_of_sites
from analyses.sae.run import run_sae, trained_names
from analyses.sae.trace import feature_trace
from analyses.sae.train import TrainSpec, train_spec
from cache.errors import UserError
from tests.analyses.planted_study import make_planted_study
from tests.workbench.sae.random_sae import randomised
from workbench.sae.transcoder import TopKTranscoderObjective
from workbench.studies.study import Study

SITE, OTHER = "tf0.cross_attn", "tf1.cross_attn"


def spec(k: int, site: str = SITE) -> TrainSpec:
    return train_spec(site, k=k, expansion=1, train_steps=2, batch_size=16)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = make_planted_study(tmp_path_factory.mktemp("names") / "study")
    for k, name in ((2, ""), (3, ""), (4, "wide")):
        run_sae(study, spec(k), name=name)
    return study


def test_each_gets_a_name_and_none_is_replaced(study: Study) -> None:
    assert sae_names(study) == [f"{SITE}", f"{SITE}-2", "wide"]
    assert [load_sae(study, name).config.settings["k"] for name in sae_names(study)] == [2, 3, 4]
    assert [study.result(f"sae-{name}").attrs["name"] for name in sae_names(study)] == sae_names(study)


def test_the_same_spec_is_found_by_its_name(study: Study) -> None:
    assert trained_names(study, [spec(k) for k in (2, 3, 4, 5)]) == [SITE, f"{SITE}-2", "wide", ""]
    assert trained_names(study, [spec(4)], "wide") == ["wide"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("codes/00001.safetensors", r"of clip 1 in .* are damaged\. Run the command again"),
        (
            "sae_weights.safetensors",
            r"sae_weights\.safetensors is damaged; train it again",
        ),
        ("cfg.json", r"cfg\.json is damaged; train it again"),
    ],
)
def test_what_is_damaged_is_made_again(study: Study, name: str, words: str) -> None:
    file = study.path / "sae" / "wide" / name
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=words):
        load_sae(study, "wide")
        feature_trace(study, "wide", 0, 1)
    assert trained_names(study, [spec(4)]) == [""]
    run_sae(study, spec(4))
    assert load_sae(study, "wide").config.settings == {"k": 4}
    feature_trace(study, "wide", 0, 1)
    assert trained_names(study, [spec(4)]) == ["wide"]


def test_a_name_that_is_taken_is_refused(study: Study) -> None:
    before = load_sae(study, "wide").state_dict()
    with pytest.raises(UserError, match="has an autoencoder 'wide' already"):
        run_sae(study, spec(5), name="wide")
    assert all((load_sae(study, "wide").state_dict()[key] == value).all() for key, value in before.items())


def test_one_whose_result_is_damaged_is_not_replaced(study: Study) -> None:
    file = study.path / "results" / "sae-wide.nc"
    content = file.read_bytes()
    file.write_bytes(content[:100])
    try:
        for k in (4, 5):
            with pytest.raises(UserError, match=r"sae-wide\.nc is damaged .* Delete it and compute it again"):
                chosen_name(study, spec(k), SITE, "wide")
        assert chosen_name(study, spec(4), SITE) == f"{SITE}-3"
    finally:
        file.write_bytes(content)


def test_weights_without_a_result_are_replaced_only_by_the_same(study: Study) -> None:
    """Whoever deletes a damaged result need not remember the options, and must not lose the weights."""
    file = study.path / "results" / f"sae-{SITE}.nc"
    content = file.read_bytes()
    file.unlink()
    try:
        with pytest.raises(UserError, match=rf"made with other options, which sae/{SITE}/cfg\.json names"):
            chosen_name(study, spec(5), SITE, SITE)
        assert chosen_names(study, [spec(5), spec(6)]) == [f"{SITE}-3", f"{SITE}-4"]
        assert chosen_name(study, spec(2), SITE) == chosen_name(study, spec(2), SITE, SITE) == SITE
        (study.path / "sae" / SITE / "cfg.json").rename(
            study.path / "cfg.json"
        )  # of one that was not finished
        assert chosen_name(study, spec(5), SITE) == SITE
        (study.path / "cfg.json").rename(study.path / "sae" / SITE / "cfg.json")
    finally:
        file.write_bytes(content)


@pytest.mark.parametrize("name", ["../wide", "a/b", ".hidden", "x" * 300])
def test_a_name_that_is_no_file_name_is_refused(study: Study, name: str) -> None:
    with pytest.raises(UserError, match="must be a file name"):
        run_sae(study, spec(5), name=name)
    assert not list(Path(study.path).parent.glob("wide"))


def test_a_name_like_that_of_several_is_refused(study: Study) -> None:
    with pytest.raises(UserError, match=r"must not contain '\+'"):
        run_sae(study, spec(5), name="wide+narrow")


def test_a_site_has_its_own(study: Study) -> None:
    assert sae_names(study, SITE)[0] == SITE
    assert sae_names(study, OTHER) == []
    (found,) = saes_of_sites(study, [SITE, OTHER]).items()
    assert (found[0], found[1][0], found[1][1].config.settings["k"]) == (SITE, SITE, 2)


def test_a_transcoder_is_not_one_of_its_site(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    across = randomised(TopKTranscoderObjective(k=2).new_sae(4, 8, {}))
    wide = load_sae(study, "wide")
    monkeypatch.setattr(names, "load_sae", lambda _, name: wide if name == "wide" else across)
    assert saes_of_sites(study, [SITE]) == {SITE: ("wide", wide)}
