"""An autoencoder of a study is exported for another library, and imported again, by the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from analyses.sae.export import export_sae
from analyses.sae.names import load_sae, sae_folder, sae_names
from analyses.sae.published import import_sae
from analyses.sae.scaling import Scale, folded
from cache.errors import UserError
from tests.analyses.planted_study import CHANNELS, PLANTED, make_planted_study
from tests.workbench.sae.random_sae import random_kind
from workbench.artefacts.sae_folder import read_sae
from workbench.cli.main import app
from workbench.sae.base import SAE
from workbench.sae.folder import load_folder, save_folder
from workbench.studies.study import Study

SITE = PLANTED[0]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return make_planted_study(tmp_path_factory.mktemp("export") / "study")


def keep(study: Study, architecture: str) -> SAE:
    sae = random_kind(architecture, CHANNELS)
    save_folder(sae, sae_folder(study, architecture), study.path)
    return sae


@pytest.mark.parametrize("form", ["saelens", "sparsify"])
def test_what_is_exported_is_imported(study: Study, tmp_path: Path, form: str) -> None:
    sae = keep(study, "topk")
    exported = tmp_path / "exported"
    app(
        ["sae", "export", str(study.path), "topk", "--format", form, "--out", str(exported)],
        standalone_mode=False,
    )
    app(
        [
            "sae",
            "import",
            str(exported),
            "--study",
            str(study.path),
            "--site",
            SITE,
            "--name",
            f"again-{form}",
        ],
        standalone_mode=False,
    )
    assert f"again-{form}" in sae_names(study, SITE)
    again = load_sae(study, f"again-{form}")
    for name, value in sae.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)
    with pytest.raises(UserError, match="already exists"):
        export_sae(study, "topk", "saelens", exported)


def test_a_library_without_the_kind_is_told(study: Study, tmp_path: Path) -> None:
    keep(study, "batchtopk")
    keep(study, "topk_transcoder")
    out = tmp_path / "out"
    with pytest.raises(UserError, match="sparsify has only TopK autoencoders; this one is 'jumprelu'"):
        export_sae(study, "batchtopk", "sparsify", out)
    with pytest.raises(UserError, match="SAELens has no TopK transcoders"):
        export_sae(study, "topk_transcoder", "saelens", out)
    assert not out.exists()
    export_sae(study, "batchtopk", "saelens", out)
    assert json.loads((out / "cfg.json").read_text())["architecture"] == "jumprelu"


def test_inputs_scaled_per_step_are_exported_for_one_step(study: Study, tmp_path: Path) -> None:
    sae = keep(study, "topk")
    per_step = folded(
        sae, [Scale(torch.randn(2, CHANNELS), torch.tensor([[2.0], [0.5]]), (0, 3), np.ones(2))]
    )
    save_folder(per_step, sae_folder(study, "per-step"), study.path)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"export it for one of the steps 0, 3 with --step"):
        export_sae(study, "per-step", "sparsify", out)
    with pytest.raises(UserError, match=r"'topk' is the same at every step. Leave out --step"):
        export_sae(study, "topk", "saelens", out, step=0)
    with pytest.raises(UserError, match="1"):
        export_sae(study, "per-step", "saelens", out, step=1)
    assert not out.exists()
    x = torch.randn(5, CHANNELS)
    again = load_folder(export_sae(study, "per-step", "saelens", out, step=3))
    assert again.config.scaled_steps == ()
    torch.testing.assert_close(again.decode(again.encode(x)), per_step.at(3).decode(per_step.at(3).encode(x)))


def test_a_transcoder_is_not_one_of_its_site(study: Study, tmp_path: Path) -> None:
    save_folder(random_kind("batchtopk_transcoder", CHANNELS), tmp_path / "theirs")
    with pytest.raises(UserError, match="is a transcoder, which reconstructs another site than"):
        import_sae(study, read_sae(str(tmp_path / "theirs"), SITE))
