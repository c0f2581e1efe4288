"""A prompt in a neutral, a positive and a negative version, whose words all tiny models know."""

from workbench.engine.runs import Clip

NEUTRAL, POSITIVE, NEGATIVE = (Clip(f"a {tempo} happy song", 7) for tempo in ("the", "fast", "slow"))
VERSIONS = {"positive": POSITIVE, "negative": NEGATIVE}
