"""The header of DEMON's packs, with its policies: at which steps a pack acts."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workbench.engine.settings import MOST_STEPS

KEY = "steering_pack"
"""The metadata entry of the header."""
PARTS = {"post_block_residual": "block", "cross_attn_output": "cross_attn"}
"""The part of a block at each of DEMON's hooks."""
FAMILIES = {"acestep": "ACE-Step 1.5"}
"""The architecture of each of DEMON's families that the workbench has."""
METHODS = {"tada_caa": "caa", "caa_diff_means": "caa", "auscore": "austeer"}
LARGEST = 3e38
"""DEMON's numbers are in single precision."""
FILE = "DEMON's pack must be given by its path, such as 'bright.safetensors'"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Range(_Strict):
    """The steps whose position (step / number of steps) is in [start, end)."""

    kind: Literal["range"] = "range"
    start: float = 0.0
    end: float = 1.0

    def weights(self, n: int) -> list[float]:
        """Return the weight of each of `n` steps."""
        return [float(self.start <= step / n < self.end) for step in range(n)]


class OneStep(_Strict):
    """The step at the position of step `step` of `of`; `of` is by default the number of steps of the run."""

    kind: Literal["step"]
    step: int = Field(0, ge=0, le=MOST_STEPS)
    of: int | None = Field(None, ge=1, le=MOST_STEPS)

    def weights(self, n: int) -> list[float]:
        """Return the weight of each of `n` steps."""
        chosen = min(n - 1, round(self.step / (self.of or n) * n))
        return [float(step == chosen) for step in range(n)]


class Curve(_Strict):
    """Weights, of which each step takes the one at its position."""

    kind: Literal["curve"]
    numbers: list[float] = Field(min_length=1, alias="weights")

    def weights(self, n: int) -> list[float]:
        """Return the weight of each of `n` steps."""
        last = len(self.numbers) - 1
        return [self.numbers[min(last, step * len(self.numbers) // n)] for step in range(n)]


class DemonHeader(_Strict):
    """DEMON's header. The last fields describe a pack without changing what it does."""

    format: Literal[1, 2]
    family: str
    checkpoint: str
    hook: str
    block: int | None = Field(None, ge=0)
    blocks: list[Annotated[int, Field(ge=0)]] = []
    hidden_size: int = Field(ge=1)
    name: str
    method: str
    norm: float = Field(0.0, ge=0)
    norms: list[float] = []
    magnitude: float = 1.0
    policy: Annotated[Range | OneStep | Curve, Field(discriminator="kind")] = Range()
    cond_only: bool = False
    renorm: bool = False
    label: str = ""
    pos_anchor: str = ""
    neg_anchor: str = ""
    provenance: dict[str, Any] = {}
    blurb: Any = None
    category: Any = None
    applies_to: Any = None
    seeds: Any = None
    variant: Any = None
    description: Any = None
