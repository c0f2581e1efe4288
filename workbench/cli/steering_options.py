"""Options that commands with steering vectors share."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analyses.steering_spec import OPERATIONS, PASS_MODES

if TYPE_CHECKING:
    OperationName = str
    PassMode = str
else:
    OperationName = Literal[OPERATIONS]
    PassMode = Literal[PASS_MODES]

Unit = Annotated[
    Literal["difference", "norm"],
    typer.Option(help="What a strength of 1 adds: the mean difference, or a vector of length 1."),
]
Passes = Annotated[PassMode, typer.Option(help="Passes that are steered.")]
Schedule = Annotated[
    str,
    typer.Option(
        help="Course of the strength: constant, linear, cosine, early, late, or a weight for each step: 1,1,0.5,0."
    ),
]
Over = Annotated[
    Literal["steps", "sigmas"], typer.Option(help="What a named schedule follows: steps or sigmas.")
]
StartStep = Annotated[int, typer.Option(min=0, help="First step that is steered.")]
KeepNorm = Annotated[bool, typer.Option("--keep-norm", help="Keep the norm of every token.")]
Operation = Annotated[
    OperationName,
    typer.Option(
        help="Add the vector; clamp every token's projection onto it to the strength times its length; or steer back: "
        "take the strength's share out of projections on the other side."
    ),
]
Resample = Annotated[
    Literal["sigma"] | None,
    typer.Option(help="Use vectors of other steps: each step gets the direction of the nearest sigma."),
]
IgnoreGate = Annotated[
    bool,
    typer.Option(
        "--ignore-gate",
        help="Use vectors of SAE features also at steps that the gate of their autoencoder closes.",
    ),
]
