"""The personal links of a listening study's listeners."""

from pathlib import Path

from cache.errors import UserError
from workbench.files import replacing
from workbench.listening.config import ListeningConfig
from workbench.listening.orders import steps_of
from workbench.listening.store import MOST_LISTENERS, AnswerStore

LINKS = "links.csv"


def write_links(folder: Path, config: ListeningConfig, store: AnswerStore, count: int, url: str) -> Path:
    """Write every listener's link, and who has finished; add listeners until there are `count`; return the file.

    Only its owner can read the file: who has a link can answer in its listener's place.

    Raises:
        UserError: if there are more listeners than a study can have.
    """
    for _ in range(count - len(store.listeners())):
        if store.add_listener(lambda number: steps_of(config, number)) is None:
            raise UserError(f"A listening study has at most {MOST_LISTENERS:,} listeners.")
    lines = [
        f"{listener.number},{url}listener/{listener.token}/,{'yes' if listener.finished else 'no'}"
        for listener in store.listeners()
    ]
    with replacing(folder / LINKS, folder) as partial:
        partial.touch()
        partial.chmod(0o600)
        partial.write_text("\n".join(["listener,link,finished", *lines, ""]), encoding="utf-8")
    return folder / LINKS
