"""What a judge says of a vector: whether + raises its score, and whether it tells the real prompts apart at all."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from analyses.statistics import fewest_pairs
from analyses.steering.header import Line, Strict, rises
from workbench.validation import Number

Verdict = Literal["the right way", "backwards", "not clear", "too few pairs to tell"]
RIGHT: Verdict = "the right way"
BACKWARDS: Verdict = "backwards"
NOT_CLEAR: Verdict = "not clear"
TOO_FEW: Verdict = "too few pairs to tell"
LEAST_SHARE = 0.01
"""A change of less than this part of the real prompts' difference is none to speak of, whatever its sign."""
NOT_JUDGED = "not judged"
NOT_INTERPRETABLE = "not interpretable: the judge does not tell the real prompts apart"
BOTH_WAYS = "+ raises the judge's score, but so does −"
_WORDS: dict[Verdict, str] = {
    RIGHT: "+ raises the judge's score",
    BACKWARDS: "− raises the judge's score: inverted",
    NOT_CLEAR: "no clear effect",
    TOO_FEW: TOO_FEW,
}


def compared(strengths: Iterable[float]) -> tuple[float, float] | None:
    """Return the two strengths that a sign check compares, or None if all are 0.

    They are the largest one below 0 and the smallest one above it; 0, the unsteered run, where there is none.
    """
    known = list(strengths)
    plus = min((strength for strength in known if strength > 0), default=0.0)
    minus = max((strength for strength in known if strength < 0), default=0.0)
    return (minus, plus) if minus < plus else None


def sign_verdict(pairs: int, low: float | None, high: float | None, control: float | None) -> Verdict:
    """Return what a sign check says, by the number of pairs with both scores and the ends of the interval.

    With fewer than `fewest_pairs` the interval is little more than the range of the pairs and decides nothing. It must
    lie beyond `LEAST_SHARE` of `control`, the real prompts' difference (0 if unknown).
    """
    if pairs < fewest_pairs():
        return TOO_FEW
    least = LEAST_SHARE * abs(control or 0.0)
    if low is not None and low > least:
        return RIGHT
    return BACKWARDS if high is not None and high < -least else NOT_CLEAR


class Interval(Strict):
    """The mean of a change in the judge's score over pairs, with its 95 % interval; None where undefined."""

    mean: Number | None
    low: Number | None
    high: Number | None

    @model_validator(mode="after")
    def _ordered(self) -> "Interval":
        if (self.low is None) != (self.high is None) or (self.mean is None and self.low is not None):
            raise ValueError("an interval must have both ends and a mean")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"the interval from {self.low:g} to {self.high:g} must rise")
        return self


class Effect(Interval):
    """The change from the unsteered run at a strength."""

    strength: Number


class Sign(Interval):
    """The change from the strength `minus`, 0 for the unsteered run, to `plus`, in pairs with both scores."""

    minus: Number
    plus: Number
    pairs: int = Field(ge=0)
    verdict: Verdict


class Control(Interval):
    """The positive control: the difference between the real prompts with the positive and the negative value.

    The judge can be interpreted if the whole interval is above 0.
    """

    pairs: int = Field(ge=0)
    interpretable: bool

    @model_validator(mode="after")
    def _concluded(self) -> "Control":
        if self.interpretable != (self.low is not None and self.low > 0):
            raise ValueError("interpretable must be true if its interval is above 0, and false otherwise")
        return self


class Check(Strict):
    """What one judge says of a vector, on `pairs` of prompts that the vector was not computed from."""

    scorer: Line
    identity: Line
    pairs: int = Field(ge=1)
    effects: list[Effect] = Field(min_length=1)
    sign: Sign
    control: Control

    @model_validator(mode="after")
    def _agreeing(self) -> "Check":
        strengths = [effect.strength for effect in self.effects]
        if 0 in strengths or not rises(strengths):
            raise ValueError("strengths must be rising numbers other than 0")
        if (self.sign.minus, self.sign.plus) != compared(strengths):
            raise ValueError("its sign must compare the smallest strengths")
        if max(self.sign.pairs, self.control.pairs) > self.pairs:
            raise ValueError(f"it has scores of more than its {self.pairs} pairs")
        follows = sign_verdict(self.sign.pairs, self.sign.low, self.sign.high, self.control.mean)
        if self.sign.verdict != follows:
            raise ValueError(f"its verdict is '{self.sign.verdict}', but its numbers say '{follows}'")
        return self

    @property
    def words(self) -> str:
        """What the judge says, in a few words."""
        if self.sign.verdict != TOO_FEW and not self.control.interpretable:
            return NOT_INTERPRETABLE
        if self.sign.verdict == RIGHT and any(
            effect.strength < 0 and effect.low is not None and effect.low > 0 for effect in self.effects
        ):
            return BOTH_WAYS
        return _WORDS[self.sign.verdict]


def _of_different_scorers(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    names = [check.scorer for check in checks]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"the scorer '{name}' is given twice")
    return checks


Checks = Annotated[tuple[Check, ...], AfterValidator(_of_different_scorers)]
"""What each judge says of a vector; empty if it was not judged."""
