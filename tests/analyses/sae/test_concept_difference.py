"""Which features carry the difference between two values of a concept."""

import numpy as np
import pandas as pd
import pytest

from analyses.sae.concept_difference import carried_shares, value_difference
from analyses.sae.concept_scores import concept_scores
from cache.errors import UserError
from tests.tolerances import assert_close

CLIPS = pd.DataFrame(
    {
        "label_mood": ["sad", "sad", "happy", "happy", "calm", "calm", "calm", ""],
        "encoding": list("abcdefgh"),
    }
)


def test_differences_are_those_of_the_means_of_the_clips() -> None:
    means = np.random.default_rng(0).exponential(size=(len(CLIPS), 5))
    means[:, 4] = 0
    result = concept_scores(means, means.max(axis=0) > 0, CLIPS)
    mood = CLIPS["label_mood"].to_numpy()
    sad, happy = (means[mood == name].mean(axis=0) for name in ("sad", "happy"))
    found = value_difference(result, CLIPS, "mood=sad", "mood=happy")
    assert_close(found, sad - happy)
    rest = means[(mood != "sad") & (mood != "")].mean(axis=0)
    found = value_difference(result, CLIPS, "mood=sad")
    assert_close(found, sad - rest)


def test_shares_sum_to_one_and_may_work_against_the_difference() -> None:
    difference = np.array([2.0, 1.0, 0.0, 1.0])
    decoder = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [-1.0, 0.0]])
    shares = carried_shares(difference, decoder)
    assert shares.tolist() == [1.0, 0.5, 0.0, -0.5]
    assert carried_shares(np.zeros(4), decoder).tolist() == [0.0] * 4


@pytest.mark.parametrize(("value", "against"), [("mood=loud", ""), ("mood=sad", "tempo=fast"), ("x", "")])
def test_values_that_cannot_be_compared_are_refused(value: str, against: str) -> None:
    result = concept_scores(np.ones((len(CLIPS), 2)), np.array([True, True]), CLIPS)
    with pytest.raises(UserError, match="Features have no scores"):
        value_difference(result, CLIPS, value, against)
