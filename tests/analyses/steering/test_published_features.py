"""Vectors from published scores of features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyses.steering.published_features import vector_from_scores
from analyses.steering.vector import load_vector
from cache.errors import UserError
from tests.tolerances import assert_close
from tests.workbench.engine.test_feature_edits import random_sae
from workbench.artefacts.concepts import CONCEPTS
from workbench.artefacts.scores import ScoreTables
from workbench.artefacts.sources import Origin
from workbench.engine.settings import GenerationSettings
from workbench.models.ace_step import AceStep15

SITE = "tf1.cross_attn"
SETTINGS = GenerationSettings(duration=1.0, num_steps=2)
SAE = random_sae(32, 50)
SCORES = np.random.default_rng(0).standard_normal((2, 50))


def table(values: np.ndarray = SCORES, site: str = SITE, concept: str = "mood") -> ScoreTables:
    tables = {"tfidf": values, "diff": values - 0.5, "mean_pos": values + 0.5}
    origin = Origin("published", Path("tf1_scores.pkl"), "ab", {})
    return ScoreTables(concept=CONCEPTS[concept], origin=origin, site=site, tables=tables)


def test_it_is_the_sum_of_the_rows_with_the_largest_scores(tiny64: AceStep15, tmp_path: Path) -> None:
    vector = vector_from_scores(tiny64, {SITE: SAE}, [table()], k=3, settings=SETTINGS)
    rows = SAE.W_dec.detach().numpy()
    expected = np.stack([sum(rows[feature] for feature in np.argsort(-scores)[:3]) for scores in SCORES])
    assert_close(vector.directions[SITE].values, expected[None])
    assert (vector.concept, vector.positive, vector.negative) == ("mood", "happy", "sad")
    back = load_vector(vector.save(tmp_path / "mood.safetensors"))
    assert back.at(2.0) == vector.at(2.0)


def test_the_lowest_differences_are_of_the_negative_prompts(tiny64: AceStep15) -> None:
    asked = {"k": 2, "score": "diff", "settings": SETTINGS}
    plus, both = (
        vector_from_scores(tiny64, {SITE: SAE}, [table()], contrastive=contrastive, **asked)
        for contrastive in (False, True)
    )
    rows = SAE.W_dec.detach().numpy()
    expected = np.stack([sum(rows[feature] for feature in np.argsort(scores)[:2]) for scores in SCORES])
    assert_close((plus.directions[SITE] - both.directions[SITE]).values, expected[None])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"tables": []}, "no table"),
        (
            {"tables": [table(), table(site="tf0.cross_attn", concept="tempo")]},
            "of one concept; got mood, tempo",
        ),
        ({"tables": [table(), table()]}, "one table for each site"),
        ({"tables": [table(site="tf0.cross_attn")]}, "no autoencoder for tf0.cross_attn"),
        ({"tables": [table(SCORES[:1])]}, "of 1 steps and 50 features"),
        ({"tables": [table(SCORES[:, :9])]}, "of 2 steps and 9 features"),
        ({"tables": ["tf1_scores.pkl"]}, "must be tables"),
        ({"saes": {SITE: random_sae(5)}}, "must have 32 channels"),
        ({"k": 51}, "k must be at most 50"),
        ({"score": "ratio"}, "tfidf, diff, mean_pos"),
        ({"contrastive": True}, "says nothing about the negative prompts"),
    ],
)
def test_what_does_not_fit(tiny64: AceStep15, changed: dict[str, Any], words: str) -> None:
    asked = {"saes": {SITE: SAE}, "tables": [table()], "k": 1, "settings": SETTINGS, **changed}
    with pytest.raises(UserError, match=words):
        vector_from_scores.__wrapped__(tiny64, **asked)
