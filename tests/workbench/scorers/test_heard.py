"""Several scorers judge together, though each can score other texts."""

from collections.abc import Sequence

import numpy as np
import pytest

from cache.errors import UserError
from workbench.scorers import check_heard, heard


class Knows:
    """A scorer that knows some texts."""

    identity, min_seconds = "1", 0.0

    def __init__(self, name: str, *texts: str) -> None:
        self.name, self._texts = name, texts

    def check_texts(self, texts: Sequence[str]) -> None:
        if unknown := [text for text in texts if text not in self._texts]:
            raise UserError(f"{self.name} does not know {unknown[0]}.")

    def score(self, audio: np.ndarray, sample_rate: int, texts: Sequence[str]) -> np.ndarray:
        raise NotImplementedError


FIRST, SECOND = Knows("first", "piano", "sad"), Knows("second", "piano", "cello")


def test_each_scorer_hears_the_texts_that_it_knows() -> None:
    assert heard(FIRST, ["sad", "cello", "piano", "sad"]) == ["sad", "piano"]


def test_a_scorer_that_does_not_know_a_text_is_named() -> None:
    assert check_heard([FIRST, SECOND], ["piano", "piano"]) == []
    assert check_heard([FIRST, SECOND], ["piano", "sad", "cello"]) == [
        "The scorer first cannot score 'cello': there are no scores by it.",
        "The scorer second cannot score 'sad': there are no scores by it.",
    ]


def test_a_text_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UserError, match=r"first does not know flute\. second does not know flute\."):
        check_heard([FIRST, SECOND], ["piano", "flute"])
    with pytest.raises(UserError, match="second does not know sad"):
        check_heard([SECOND], ["sad"])
