"""An architecture is a file and an entry of the registry: one of the tests' own goes through all that knows SAEs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.sae.names import load_sae
from analyses.sae.published import convert_sae, import_sae
from analyses.sae.run import run_sae, trained_names
from analyses.sae.trace import feature_trace
from analyses.sae.train import TrainSpec, initial_sae, train_sae, train_spec
from cache.errors import UserError
from dashboards.figures.sae_training import training_frame
from dashboards.tables.features import features_frame
from tests.analyses.planted_study import CHANNELS, PLANTED, make_planted_study
from tests.tolerances import assert_close
from tests.workbench.sae.soft_threshold import SOFT_THRESHOLD, SoftThresholdObjective, SoftThresholdSAE
from workbench.artefacts.sae_folder import PublishedSAE
from workbench.artefacts.sources import Origin
from workbench.sae.architectures import ARCHITECTURES
from workbench.sae.base import SAE, TrainingBatch
from workbench.sae.folder import load_folder
from workbench.sae.topk import TopKObjective
from workbench.studies.study import Study

SITE = PLANTED[0]
D_SAE = 2 * CHANNELS


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "soft_threshold", SOFT_THRESHOLD)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_planted_study(tmp_path_factory.mktemp("architectures") / "study")


def spec(l1_coefficient: float = 0.05, train_steps: int = 300) -> TrainSpec:
    return train_spec(
        SITE,
        "soft_threshold",
        l1_coefficient=l1_coefficient,
        expansion=2,
        train_steps=train_steps,
        batch_size=256,
    )


def test_it_is_trained_saved_loaded_and_described(study: Study) -> None:
    result = run_sae(study, spec())
    assert trained_names(study, [spec()]) == [SITE]
    assert trained_names(study, [spec(l1_coefficient=0.06)]) == [""]
    assert (result.attrs["architecture"], result.attrs["d_sae"]) == ("soft_threshold", D_SAE)
    assert "k" not in result.attrs
    assert result.loss[-1] < 0.5 * result.loss[0]
    assert result.final_explained_variance > 0.5

    sae = load_sae(study, SITE)
    assert isinstance(sae, SoftThresholdSAE)
    assert sae.threshold.abs().max() > 0
    x = torch.from_numpy(study.cache.read(SITE, passes=["cond"])[:, :, 0])
    with torch.no_grad():
        acts = sae.encode(x).numpy()
    assert_close(result.max_activation, acts.max((0, 1, 2)))
    np.testing.assert_allclose(result.density, (acts > 0).mean((0, 1, 2)))
    assert_close(feature_trace(study, SITE, feature=3, clip=5), acts[5, :, :, 3])
    assert len(features_frame(result)) == D_SAE
    assert set(training_frame(result)["split"]) == {"training", "held-out"}


def test_its_objective_has_its_effect(study: Study) -> None:
    dense, sparse = (run_sae(study, spec(l1, 100)).final_l0.item() for l1 in (0.0, 0.5))
    assert sparse < 0.5 * dense


def test_its_scale_is_folded_back() -> None:
    """Threshold included: training on activations 64 times as large gives the same features, 64 times as large."""
    rows = torch.randn(512, CHANNELS, generator=torch.Generator().manual_seed(0))
    small, large = (train_sae([rows * factor], spec(train_steps=50))[0] for factor in (1, 64))
    assert isinstance(small, SoftThresholdSAE)
    assert small.threshold.abs().max() > 0.01
    with torch.no_grad():
        assert_close(large.encode(rows * 64) / 64, small.encode(rows))


@pytest.mark.parametrize(
    "objective", [TopKObjective(k=3), SoftThresholdObjective()], ids=lambda o: o.architecture
)
def test_training_encodes_as_the_module_does(objective: TopKObjective | SoftThresholdObjective) -> None:
    rows = torch.randn(64, CHANNELS, generator=torch.Generator().manual_seed(0))
    own = TrainSpec(site=SITE, objective=objective, expansion=2)
    sae = initial_sae(own, CHANNELS, CHANNELS)
    with torch.no_grad():
        done = objective.step(sae, TrainingBatch(rows, rows, torch.zeros(sae.config.d_sae).bool(), 0.0))
        assert_close(done.x_hat, sae(rows))
        assert done.fired.tolist() == (sae.encode(rows) > 0).sum(0).tolist()


def random_sae() -> SAE:
    sae = SoftThresholdObjective().new_sae(CHANNELS, D_SAE, {"hook_name": SITE, "pass_name": "null"})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return sae


def test_a_published_one_is_converted_and_imported(tmp_path: Path, study: Study) -> None:
    sae = random_sae()
    published = PublishedSAE(SITE, "null", sae, Origin("theirs", tmp_path / "sae.safetensors", "0" * 64))
    folder = convert_sae(published, tmp_path / "converted")
    assert json.loads((folder / "cfg.json").read_text())["architecture"] == "soft_threshold"
    loaded = load_folder(folder)
    assert loaded.config == sae.config
    for name, value in sae.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    result = import_sae(study, published)
    assert (result.attrs["architecture"], result.attrs["pass"]) == ("soft_threshold", "null")
    x = torch.from_numpy(study.cache.read(SITE, passes=["null"])[:, :, 0])
    with torch.no_grad():
        assert_close(result.max_activation, sae.encode(x).amax((0, 1, 2)))


def test_without_its_entry_its_folder_is_not_supported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = PublishedSAE(SITE, "null", random_sae(), Origin("theirs", tmp_path / "sae", "0" * 64))
    folder = convert_sae(published, tmp_path / "converted")
    monkeypatch.delitem(ARCHITECTURES, "soft_threshold")
    with pytest.raises(UserError, match="not supported: 'soft_threshold'"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"architecture": "temporal"},
            "Unknown autoencoder architecture 'temporal'. Use one of topk, .*soft_threshold",
        ),
        ({"l1_coefficient": 0.1}, "l1_coefficient is not a known name"),
        (
            {"architecture": "standard", "k": 8},
            r"k is not a known name\. The options of 'standard' alone are l1_coefficient, warm_up\.",
        ),
        ({"expnsion": 4}, "expnsion is not a known name .did you mean expansion"),
        ({"k": 0}, "k must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number"),
    ],
    ids=str,
)
def test_what_an_architecture_does_not_take_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        train_spec(SITE, **options)


def test_a_spec_as_plain_data_names_its_architecture() -> None:
    assert train_spec(SITE, k=3).model_dump(mode="json")["objective"] == {
        "architecture": "topk",
        "k": 3,
        "aux_coefficient": 1 / 32,
    }
