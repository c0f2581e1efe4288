"""Options of commands that make single clips: settings of the generation, and the dtype of the weights."""

from typing import Annotated

import typer

from cache.protocol import Dtype

Duration = Annotated[float | None, typer.Option(help="Clip duration in seconds.")]
NumSteps = Annotated[int | None, typer.Option(help="Denoising steps.")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale; 1 disables guidance.")]
ModelOptions = Annotated[
    list[str] | None, typer.Option(help="Option of the model, such as shift=3. Repeatable.")
]
ModelDtype = Annotated[Dtype, typer.Option(help="Dtype of the model weights.")]
