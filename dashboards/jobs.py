"""What the dashboard computes in the background: jobs of the lab, in a queue for all pages.

One thread, which owns the model, renders them; another has judges hear clips that can be played already, so that no
sound waits for a score. torch is imported by the first job.
"""

import logging
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from analyses.lab.request import LabRequest
from cache.errors import UserError
from workbench.studies.study import Study
from workbench.system_errors import refusal

if TYPE_CHECKING:
    from analyses.lab.lab import Rendered, Report
    from analyses.lab.scores import Scores

MOST_WAITING = 32
MOST_KEPT = 256
"""Finished jobs that are remembered; their clips stay in the study."""
CLOSE_SECONDS = 10.0
QUIET_SECONDS = 0.3
"""Judges listen when nothing has been rendered for so long."""
NO_MEMORY = (
    "There is not enough memory for this clip. Make it shorter or with fewer edits, or run the dashboard on a machine "
    "with more memory."
)
FAULT = "This is a bug in the workbench. The traceback is in the terminal that runs the dashboard."

State = Literal["waiting", "rendering", "scoring", "done", "failed", "cancelled"]
_log = logging.getLogger(__name__)


@runtime_checkable
class Renders(Protocol):
    """What renders requests and has them scored: `analyses.lab.lab.Lab`."""

    def load(self, study: Study, report: "Report") -> object: ...
    def held(self, study: Study, request: LabRequest) -> "Rendered | None": ...
    def check(self, study: Study, request: LabRequest) -> None: ...
    def render(self, study: Study, request: LabRequest, report: "Report") -> "Rendered": ...
    def score(self, study: Study, request: LabRequest, report: "Report") -> "Scores": ...


@dataclass(frozen=True)
class Job:
    """A request and what has become of it.

    `pages` are the open pages that ask for it, each of which has one clip at a time. The clips can be heard as soon as
    there is `rendered`, while they are scored. `error` is a sentence if it failed.
    `progress` is the part of the rendering that is done, from 0 to 1, and `message` says what is being done.
    `is_replaced` tells that its page has asked for another clip, which cancelled it.
    """

    id: str
    study: Study
    request: LabRequest
    pages: frozenset[str] = frozenset()
    state: State = "waiting"
    message: str = "Waiting"
    progress: float = 0.0
    rendered: "Rendered | None" = None
    scores: "Scores | None" = None
    error: str = ""
    is_replaced: bool = False

    @property
    def is_over(self) -> bool:
        """Whether nothing more will become of it."""
        return self.state in ("done", "failed", "cancelled")


class _Cancelled(Exception):
    """Ends a cancelled job before its next denoising step, or its next judge."""


class Jobs:
    """The queue of one server, whatever pages are open; `close` ends its threads."""

    def __init__(self, device: str = "cpu", lab: Renders | None = None) -> None:
        self._device, self._lab = device, lab
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._to_render: deque[str] = deque()
        self._to_score: deque[str] = deque()
        self._to_load: Study | None = None
        self._changed = threading.Condition()
        self._making = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._is_closed = False

    def submit(self, study: Study, request: LabRequest, page: str = "") -> Job:
        """Queue a request in place of the earlier one of its page, which is cancelled unless others ask for it.

        Who asks for a clip that is being made, also for another page, gets its job. Raise UserError if too many wait,
        the dashboard is ending, or `check` refuses.
        """
        self.check(study, request)
        with self._changed:
            joined = self._joined(study, request, page)
            for job in self._of_page(page):
                if joined is None or job.id != joined.id:
                    self._leave(job, page)
            job = Job(secrets.token_hex(8), study, request, _names(page))
            return joined or self._add(job, self._to_render)

    def recall(self, study: Study, request: LabRequest, page: str = "") -> Job | None:
        """Return the job of a clip that is being made, or that the study has, which judges then hear; or None."""
        with self._changed:
            if (joined := self._joined(study, request, page)) is not None:
                return joined
        if (rendered := self._labs.held(study, request)) is None:
            return None
        job = Job(secrets.token_hex(8), study, request, _names(page), "scoring", "Scoring", 1.0, rendered)
        with self._changed:
            return self._add(job, self._to_score)

    def check(self, study: Study, request: LabRequest) -> None:
        """Raise UserError, before it is queued, for a request that is known to be impossible."""
        self._labs.check(study, request)

    def _of_page(self, page: str) -> list[Job]:
        """The jobs of a page that are not over; the lock must be held."""
        return [job for job in self._jobs.values() if page in job.pages and not job.is_over]

    def _joined(self, study: Study, request: LabRequest, page: str) -> Job | None:
        """The job of a request that is not made yet, which a page asks for as well; the lock must be held."""
        for job in self._jobs.values() if page else ():
            if job.state in ("waiting", "rendering") and (job.study, job.request) == (study, request):
                return self._set(job.id, pages=job.pages | {page})
        return None

    def _leave(self, job: Job, page: str) -> None:
        """Cancel a job that a page asks for no more, unless others do; the lock must be held."""
        if others := job.pages - {page}:
            self._set(job.id, pages=others)
        else:
            self._set(job.id, is_replaced=True)
            self.cancel(job.id)

    def _add(self, job: Job, queue: deque[str]) -> Job:
        """Keep a job and queue it; the lock must be held."""
        if self._is_closed:
            raise UserError("The dashboard is ending. Start it again.")
        if len(queue) >= MOST_WAITING:
            raise UserError(f"{MOST_WAITING} clips are waiting already. Wait until some are done.")
        self._jobs[job.id] = job
        self._forget()
        queue.append(job.id)
        self._start()
        return job

    def prepare(self, study: Study) -> None:
        """Load a study's model, so that the first clip need not wait for it; nothing if there has been any job."""
        with self._changed:
            if not (self._threads or self._is_closed):
                self._to_load = study
                self._start()

    def get(self, id: str) -> Job | None:
        """Return a job as it is now; None for an unknown or forgotten one."""
        with self._changed:
            return self._jobs.get(id)

    def ahead(self, id: str) -> int:
        """Return how many jobs are rendered before a waiting one."""
        with self._changed:
            if id not in self._to_render:
                return 0
            return self._to_render.index(id) + any(job.state == "rendering" for job in self._jobs.values())

    @property
    def _is_rendering(self) -> bool:
        return bool(self._to_render) or any(job.state == "rendering" for job in self._jobs.values())

    def cancel(self, id: str) -> None:
        """Cancel a job: a waiting one is not begun, one that is rendered ends before its next denoising step."""
        with self._changed:
            job = self._jobs.get(id)
            if job is None or job.is_over:
                return
            for queue in (self._to_render, self._to_score):
                if id in queue:
                    queue.remove(id)
            self._set(id, state="cancelled", message="Cancelled")

    def cancel_page(self, page: str) -> None:
        """Cancel what a page has asked for, also what it does not know of yet, for every page that asks for it."""
        with self._changed:
            for job in self._of_page(page):
                self.cancel(job.id)

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Cancel all jobs, and wait until the threads have ended, for each at most so many seconds."""
        with self._changed:
            self._is_closed = True
            for id in list(self._jobs):
                self.cancel(id)
            self._changed.notify_all()
            threads = self._threads
        for thread in threads:
            thread.join(timeout)

    def wait(self, id: str, timeout: float | None = None) -> Job | None:
        """Return a job when it is over, or as it is after a time in seconds."""
        with self._changed:
            self._changed.wait_for(lambda: id not in self._jobs or self._jobs[id].is_over, timeout)
            return self._jobs.get(id)

    def _start(self) -> None:
        """Have the threads see what is to be done; the lock must be held."""
        if not self._threads:
            self._threads = [self._started(self._render_all), self._started(self._score_all)]
        self._changed.notify_all()

    @staticmethod
    def _started(work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name="lab", daemon=True)
        thread.start()
        return thread

    def _forget(self) -> None:
        over = [id for id, job in self._jobs.items() if job.is_over]
        for id in over[: max(0, len(over) - MOST_KEPT)]:
            del self._jobs[id]

    def _set(self, id: str, **changes: Any) -> Job:
        """Change a job; the lock must be held."""
        self._jobs[id] = job = replace(self._jobs[id], **changes)
        self._changed.notify_all()
        return job

    def _render_all(self) -> None:
        if self._to_load is not None:
            try:
                self._labs.load(self._to_load, lambda *_: None)
            except Exception as error:  # noqa: BLE001 - the first job meets it again, and its page says it
                _log.warning("The lab's model was not loaded: %s", _sentence(error, self._to_load))
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._to_render or self._is_closed)
                if self._is_closed:
                    return
                job = self._set(self._to_render.popleft(), state="rendering", message="Preparing")
            if self._ends(job, self._render, "scoring", "Scoring"):
                with self._changed:
                    self._to_score.append(job.id)
                    self._changed.notify_all()

    def _score_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: (self._to_score and not self._is_rendering) or self._is_closed)
                # While a strength is moved, judges would slow the next clip down.
                self._changed.wait_for(lambda: self._is_rendering or self._is_closed, QUIET_SECONDS)
                if self._is_closed:
                    return
                if self._is_rendering or not self._to_score:
                    continue
                job = self._jobs[self._to_score.popleft()]
            self._ends(job, self._score, "done", "Done")

    def _ends(self, job: Job, act: Callable[[Job], dict[str, Any]], state: State, message: str) -> bool:
        """Do a part of a job, and keep what becomes of it; return whether it was done and the job is not cancelled."""
        try:
            changes = act(job)
        except _Cancelled:
            return False
        except Exception as error:  # noqa: BLE001 - the thread must live on, and the page says what happened
            changes, state, message = {"error": _sentence(error, job.study)}, "failed", "Failed"
        with self._changed:
            if self._jobs[job.id].state == "cancelled":
                return False
            self._set(job.id, state=state, message=message, **changes)
        return state != "failed"

    @property
    def _labs(self) -> Renders:
        with self._making:
            if self._lab is None:
                from analyses.lab.lab import Lab  # imports torch

                self._lab = Lab(self._device)
            return self._lab

    def _render(self, job: Job) -> dict[str, Any]:
        def report(message: str, progress: float) -> None:
            self._go_on(job)
            with self._changed:
                self._set(job.id, message=message, progress=progress)

        return {"rendered": self._labs.render(job.study, job.request, report), "progress": 1.0}

    def _score(self, job: Job) -> dict[str, Any]:
        return {"scores": self._labs.score(job.study, job.request, lambda *_: self._go_on(job))}

    def _go_on(self, job: Job) -> None:
        """Raise _Cancelled if a job is cancelled."""
        with self._changed:
            if self._jobs[job.id].state == "cancelled":
                raise _Cancelled


def _names(page: str) -> frozenset[str]:
    """The pages of a new job: the one that asked for it, if any."""
    return frozenset({page} if page else ())


def _sentence(error: Exception, study: Study) -> str:
    """Return what a page says about an error; what no user can fix is logged as well."""
    if isinstance(error, UserError):
        return str(error)
    if (
        isinstance(error, MemoryError) or "memory" in str(error).lower()
    ):  # torch raises RuntimeError on the CPU
        _log.error("Not enough memory for a clip of the lab: %s", error)
        return NO_MEMORY
    if isinstance(error, OSError) and (sentence := refusal(error)):
        return sentence
    if isinstance(error, FileNotFoundError) and not study.is_there:
        return f"{study.path} is not there any more: put it back, or open another study."
    _log.error("A job of the lab failed.", exc_info=error)
    return FAULT
