"""A study of a tiny model with an autoencoder, and a judge of its clips."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from analyses.sae.run import run_sae
from analyses.sae.train import train_spec
from tests.workbench.studies.test_study import study_spec
from workbench.models.ace_step import AceStep15
from workbench.prompts.prompt_sets import PromptSet
from workbench.studies.study import Study
from workbench.studies.tracing import trace_study

SITE, NAME, OTHER = "tf0.cross_attn", "one", "two"
WRITTEN = "tf0.mlp"
"""The site that a transcoder of the first reconstructs."""
PROMPTS = PromptSet.model_validate(
    {
        "templates": ["a {tempo} {mood} song {drums}"],
        "concepts": {
            "tempo": {"slow": "slow", "fast": "fast"},
            "mood": {"happy": "happy", "sad": "sad"},
            "drums": {"with drums": "with drums", "without drums": "without drums"},
        },
    }
)


class Heard:
    """Scores a clip by its mean square for the texts fast and happy, against it for others."""

    name, identity, min_seconds = "heard", "1", 0.0

    def check_texts(self, texts: Sequence[str]) -> None:
        pass

    def score(self, audio: np.ndarray, sample_rate: int, texts: Sequence[str]) -> np.ndarray:
        square = (audio.astype(float) ** 2).mean(axis=(-2, -1))
        return np.stack([square if text in ("fast", "happy") else 1 - square for text in texts], axis=1)


def heard(name: str, device: str = "cpu") -> Heard:
    return Heard()


@pytest.fixture(scope="session")
def evaluated_study(tiny: AceStep15, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A traced study with two autoencoders of a site, which differ in their seeds."""
    spec = study_spec(
        tiny, prompts=PROMPTS, sites=(SITE, WRITTEN), steps=(0, 1, 2), n_prompts=8, seeds=1, clips_per_shard=8
    )
    study = trace_study(tmp_path_factory.mktemp("evaluated") / "study", spec, tiny)
    for seed, name in enumerate((NAME, OTHER)):
        options: dict[str, Any] = {
            "k": 4,
            "train_steps": 60,
            "batch_size": 16,
            "held_out_fraction": 0.5,
            "seed": seed,
        }
        run_sae(study, train_spec(SITE, **options), name=name)
    return study
