"""What a judge says of a vector, made without a model."""

from analyses.statistics import fewest_pairs
from analyses.steering.checks import Check

PAIRS = fewest_pairs()


def check_of(
    upward: float = 0.4, control: float = 0.8, pairs: int = PAIRS, scorer: str = "embedded"
) -> Check:
    """A check at the strengths −1 and 1, whose intervals reach 0.1 to both sides."""
    verdicts = {True: "the right way", False: "not clear" if upward >= -0.1 else "backwards"}
    return Check(
        scorer=scorer,
        identity="ab" * 8,
        pairs=pairs,
        effects=[{"strength": strength, **interval(strength * upward / 2)} for strength in (-1.0, 1.0)],
        sign={
            "minus": -1.0,
            "plus": 1.0,
            "pairs": pairs,
            "verdict": verdicts[upward > 0.1] if pairs >= PAIRS else "too few pairs to tell",
            **interval(upward),
        },
        control={"pairs": pairs, "interpretable": control > 0.1, **interval(control)},
    )


def interval(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1}
