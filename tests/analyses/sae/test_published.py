"""A published autoencoder computes what its authors' arithmetic says, and describes a study as a trained one does."""

from pathlib import Path

import pytest
import torch

from analyses.sae.metrics import Reconstruction
from analyses.sae.names import load_sae, sae_names
from analyses.sae.published import PublishedSAESpec, convert_sae, import_sae, imported_name
from analyses.sae.run import run_sae
from analyses.sae.trace import feature_trace
from analyses.sae.train import train_spec
from cache.errors import UserError
from dashboards.figures.sae_training import draw_screen, training_frame
from dashboards.tables.features import features_frame
from tests.analyses.planted_study import CHANNELS, PLANTED, make_planted_study
from tests.tolerances import assert_close
from tests.workbench.artefacts.builders import sae_weights, write_sae
from workbench.artefacts.sae_folder import read_sae
from workbench.cli.main import app
from workbench.sae.folder import load_folder
from workbench.studies.study import Study

SITE = PLANTED[0]
K, FEATURES = 4, 24


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_planted_study(tmp_path_factory.mktemp("published") / "study")


def folder(at: Path, site: str = SITE, **settings: object) -> Path:
    return write_sae(at / f"sae-{site.replace('.', '-').replace('_', '-')}", **settings)  # type: ignore[arg-type]


def published_encoding(x: torch.Tensor, k: int = K) -> torch.Tensor:
    """The largest k of relu((x - b_dec) E^T + b), row by row, without the workbench's code."""
    weights = sae_weights()
    pre = torch.relu(
        torch.einsum("rc,fc->rf", x - weights["b_dec"], weights["encoder.weight"]) + weights["encoder.bias"]
    )
    kept = torch.zeros_like(pre)
    for row, values in enumerate(pre):
        for feature in values.argsort(descending=True)[:k]:
            kept[row, feature] = values[feature]
    return kept


def test_features_are_the_published_ones(tmp_path: Path) -> None:
    sae = read_sae(str(folder(tmp_path))).sae
    x = torch.randn(50, CHANNELS, generator=torch.Generator().manual_seed(5))
    z = published_encoding(x)
    weights = sae_weights()
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(x), z)
        torch.testing.assert_close(sae(x), z @ weights["W_dec"] + weights["b_dec"])
    assert (z > 0).sum(1).max() == K


def test_each_row_keeps_its_own_largest(tmp_path: Path) -> None:
    """Training kept the largest of a batch; here a row's features do not depend on the rows beside it."""
    sae = read_sae(str(folder(tmp_path, batch_topk=True))).sae
    x = torch.randn(6, CHANNELS, generator=torch.Generator().manual_seed(6))
    x[0] *= 100
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(x)[1:], sae.encode(x[1:]))
        assert ((sae.encode(x) > 0).sum(1) > 0).all()


def test_a_converted_folder_is_one_of_the_workbench(tmp_path: Path) -> None:
    published = read_sae(str(folder(tmp_path)))
    loaded = load_folder(convert_sae(published, tmp_path / "converted"))
    assert torch.equal(loaded.W_enc, sae_weights()["encoder.weight"].T)
    assert torch.equal(loaded.W_dec, sae_weights()["W_dec"])
    assert loaded.config.metadata["hook_name"] == SITE
    assert loaded.config.metadata["source_sha256"] == published.origin.sha256
    with pytest.raises(UserError, match="already exists"):
        convert_sae(published, tmp_path / "converted")


def test_a_study_shows_the_features_of_a_published_autoencoder(tmp_path: Path, study: Study) -> None:
    published = read_sae(str(folder(tmp_path)))
    result = import_sae(study, published)
    x = torch.from_numpy(study.cache.read(SITE, passes=["cond"])).reshape(-1, CHANNELS)
    z = published_encoding(x)
    assert_close(result.density, (z > 0).float().mean(0))
    assert_close(result.max_activation, z.max(0).values)
    weights = sae_weights()
    metrics = Reconstruction(CHANNELS, FEATURES)
    metrics.add(x, z @ weights["W_dec"] + weights["b_dec"], z)
    for name in ("explained_variance", "normalised_error", "l0", "dead_fraction"):
        assert result[f"final_{name}"].item() == pytest.approx(getattr(metrics, name), rel=1e-4)
    variance = x.numpy().var(axis=0).mean()
    assert result.final_loss.item() == pytest.approx(metrics.squared_error / variance, rel=1e-4)
    trace = feature_trace(study, SITE, feature=3, clip=7)
    clip = torch.from_numpy(study.cache.read(SITE, clips=[7], passes=["cond"])[0, :, 0])
    expected = published_encoding(clip.reshape(-1, CHANNELS))[:, 3].reshape(trace.shape)
    assert_close(trace, expected)
    assert study.is_done(f"sae-{SITE}", PublishedSAESpec.of(published))


def test_the_same_weights_with_another_configuration_are_another_autoencoder(tmp_path: Path) -> None:
    study = make_planted_study(tmp_path / "study")
    for k in (4, 2, 4):
        import_sae(study, read_sae(str(folder(tmp_path, k=k))))
    assert {name: load_sae(study, name).config.settings for name in sae_names(study)} == {
        SITE: {"k": 4},
        f"{SITE}-2": {"k": 2},
    }
    with pytest.raises(UserError, match=f"has an autoencoder '{SITE}' already"):
        import_sae(study, read_sae(str(folder(tmp_path, k=2))), name=SITE)


def test_an_autoencoder_is_known_by_its_weights_wherever_it_lies(tmp_path: Path, study: Study) -> None:
    import_sae(study, read_sae(str(folder(tmp_path))), name="kept")
    elsewhere = read_sae(str(convert_sae(read_sae(str(folder(tmp_path))), tmp_path / "elsewhere")))
    assert imported_name(study, elsewhere) in ("kept", SITE)  # another test may have imported it, too
    assert imported_name(study, read_sae(str(folder(tmp_path, k=2)))) == ""
    assert imported_name(study, read_sae(str(folder(tmp_path)), pass_name="null")) == ""
    assert imported_name(study, read_sae(str(folder(tmp_path)), "tf0.cross_attn")) == ""


def test_one_command_leads_from_a_folder_to_the_page_of_its_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study, source = make_planted_study(tmp_path / "study"), str(folder(tmp_path))
    pages = []
    monkeypatch.setattr("dashboards.app.serve", lambda *_, page, **__: pages.append(page))
    for _ in range(2):
        app(["dashboard", str(study.path), "--sae", source], standalone_mode=False)
    assert pages == [f"/features?sae={SITE}"] * 2
    assert sae_names(study) == [SITE]
    assert f"has this autoencoder already, as {SITE}" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError, match=r"no cfg\.json"):
        app(["dashboard", str(study.path), "--sae", str(study.path)], standalone_mode=False)
    with pytest.raises(UserError, match="give its folder with --sae"):
        app(["dashboard", str(study.path), "--site", SITE], standalone_mode=False)
    assert len(pages) == 2


def test_its_result_has_the_form_of_a_trained_one(tmp_path: Path, study: Study) -> None:
    imported = import_sae(study, read_sae(str(folder(tmp_path))))
    trained = run_sae(
        study, train_spec(site="tf0.cross_attn", k=K, expansion=3, train_steps=3, batch_size=64)
    )
    assert {name: variable.dims for name, variable in imported.data_vars.items()} == {
        name: variable.dims for name, variable in trained.data_vars.items()
    }
    assert set(imported.attrs) - {"published"} == set(trained.attrs)
    assert imported.attrs["kind"] == trained.attrs["kind"] == "sae"
    assert len(features_frame(imported)) == FEATURES
    frame = training_frame(imported)
    assert frame[frame["split"] == "training"]["value"].isna().all()
    assert draw_screen(frame).layout.shapes  # the measures on all clips, without a curve
    assert load_sae(study, SITE).config.settings == {"k": K}


def test_an_autoencoder_of_another_model_is_refused_and_nothing_written(tmp_path: Path) -> None:
    study = make_planted_study(tmp_path / "study")
    narrow = write_sae(tmp_path / "tf1-cross-attn", sae_weights(15, 5), d_in=5)
    with pytest.raises(UserError, match=rf"has 5 channels, but {SITE} of .* has {CHANNELS}"):
        import_sae(study, read_sae(str(narrow)))
    with pytest.raises(UserError, match=r"no site 'tf6\.cross_attn'"):
        import_sae(study, read_sae(str(folder(tmp_path)), "tf6.cross_attn"))
    with pytest.raises(UserError, match="no pass 'uncond'"):
        import_sae(study, read_sae(str(folder(tmp_path)), pass_name="uncond"))
    assert not (study.path / "sae").exists()
    assert study.result_names() == []
