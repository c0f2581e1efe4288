"""Find the models of scorers in the Hugging Face cache, and load them without the network."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from cache.errors import UserError

_WEIGHTS = "model.safetensors", "pytorch_model.bin"


class HubModel(NamedTuple):
    """A model's files: a folder with `config.json` and the weights beside it."""

    config: Path
    weights: Path

    @property
    def folder(self) -> Path:
        """Return the folder of both."""
        return self.config.parent


@contextmanager
def optional_package(package: str, scorer: str, extra: str) -> Iterator[None]:
    """Import an optional package inside the block.

    Raises:
        UserError: if it cannot be imported: it is missing, or its compiled part does not fit torch.
    """
    try:
        yield
    except (ImportError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"The scorer {scorer!r} needs the package {package}, which cannot be imported ({reason}). Run"
            f" `pip install 'audio-diffusion-workbench[{extra}]'`, with a torchaudio for the same devices as torch's."
        ) from error


def find_model(scorer: str, source: str | Path, also: Sequence[str] = ()) -> HubModel:
    """Find a model in a folder, or by its hub id in the cache, without downloading.

    `also` are hub ids that loading it needs, for the error's command.

    Raises:
        UserError: if it is not there, with the commands that download it.
    """
    from huggingface_hub import try_to_load_from_cache  # only needed when a scorer is loaded

    folder = Path(source)
    for name in _WEIGHTS:
        if folder.is_dir():
            paths: list[str | Path] = [folder / "config.json", folder / name]
        else:
            cached = [try_to_load_from_cache(str(source), each) for each in ("config.json", name)]
            paths = [path for path in cached if isinstance(path, str)]
        if len(paths) == 2 and all(Path(path).is_file() for path in paths):
            return HubModel(*map(Path, paths))
    raise missing_model(scorer, (str(source), *also))


def missing_model(scorer: str, ids: Sequence[str]) -> UserError:
    """Return the error for a scorer some of whose models are missing or incomplete."""
    commands = " && ".join(f"hf download {name}" for name in ids)
    return UserError(f"The model of the scorer {scorer!r} is missing or incomplete. Run `{commands}`.")


@contextmanager
def without_network() -> Iterator[None]:
    """Let Hugging Face libraries look into the cache only: without a network they would try for minutes."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
