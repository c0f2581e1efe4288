"""Jobs in the background: their order and places, cancelling, errors, and a renderer that never stops the queue."""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import torch

from analyses.lab.folder import lab_study
from analyses.lab.lab import Lab, Rendered, Report
from analyses.lab.request import LabRequest, request_of
from analyses.lab.scores import Scores
from cache.errors import UserError
from dashboards.jobs import FAULT, MOST_WAITING, NO_MEMORY, Jobs, Renders
from workbench.models.ace_step import AceStep15
from workbench.studies.study import Study

SECONDS = 60.0
Start = Callable[[Renders], Jobs]


class Waits:
    """Renders nothing, step by step as it is allowed to, and keeps a record of what it was asked for."""

    def __init__(self) -> None:
        self.steps, self.begun = threading.Semaphore(0), threading.Semaphore(0)
        self.asked: list[str] = []
        self.scored: list[str] = []

    def load(self, study: Study, report: Report) -> None:
        del report
        self.asked.append(f"load {study.path.name}")

    def check(self, study: Study, request: LabRequest) -> None: ...

    def held(self, study: Study, request: LabRequest) -> Rendered | None:
        del study
        return Rendered("a.flac", "held.flac", 4.0) if request.prompt == "held" else None

    def render(self, study: Study, request: LabRequest, report: Report) -> Rendered:
        del study
        self.asked.append(request.prompt)
        for step in range(4):
            report(f"step {step}", step / 4)
            self.begun.release()
            assert self.steps.acquire(timeout=SECONDS)
        return Rendered("a.flac", f"{request.prompt}.flac", 4.0)

    def score(self, study: Study, request: LabRequest, report: Report) -> Scores:
        del study, report
        self.scored.append(request.prompt)
        return Scores((), 1.0)


class Deaf(Waits):
    """Its judges hear nothing until they are allowed to."""

    def __init__(self) -> None:
        super().__init__()
        self.hears = threading.Event()

    def score(self, study: Study, request: LabRequest, report: Report) -> Scores:
        assert self.hears.wait(SECONDS)
        return super().score(study, request, report)


class Fails(Waits):
    """Fails as its prompt says."""

    def render(self, study: Study, request: LabRequest, report: Report) -> Rendered:
        del study, report
        errors = {
            "user": UserError("Give another pack."),
            "memory": RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "cuda": torch.OutOfMemoryError("CUDA out of memory"),
            "bug": ZeroDivisionError("x"),
            "folder": FileNotFoundError("gone"),
        }
        if request.prompt in errors:
            raise errors[request.prompt]
        return Rendered("a.flac", "b.flac", 4.0)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts queues whose judges listen without a pause; their threads end with the test."""
    monkeypatch.setattr("dashboards.jobs.QUIET_SECONDS", 0.0)
    with ExitStack() as ending:

        def started(lab: Renders) -> Jobs:
            return ending.enter_context(closing(Jobs(lab=lab)))

        yield started


def ask(prompt: str) -> LabRequest:
    return LabRequest(prompt=prompt)


def test_two_users_queue_and_see_their_place(study: Study, start: Start) -> None:
    lab = Waits()
    jobs = start(lab)
    one, two, three = (jobs.submit(study, ask(name)) for name in ("one", "two", "three"))
    assert lab.begun.acquire(timeout=SECONDS)
    assert [jobs.ahead(job.id) for job in (one, two, three)] == [0, 1, 2]
    now = jobs.get(one.id)
    assert now is not None and (now.state, now.message, now.progress) == ("rendering", "step 0", 0.0)
    jobs.cancel(two.id)
    assert jobs.ahead(three.id) == 1
    for _ in range(8):
        lab.steps.release()
    done = [jobs.wait(job.id, SECONDS) for job in (one, two, three)]
    assert [job.state for job in done if job] == ["done", "cancelled", "done"]
    assert (lab.asked, lab.scored) == (["one", "three"], ["one", "three"])
    assert done[2] is not None and done[2].rendered == Rendered("a.flac", "three.flac", 4.0)
    assert jobs.get("nonsense") is None


def test_a_page_has_one_clip_at_a_time(study: Study, start: Start) -> None:
    lab = Waits()
    jobs = start(lab)
    mine = [jobs.submit(study, ask("mine"), "one") for _ in range(15)]
    assert len({job.id for job in mine}) == 1, "who asks again for what is being made gets the same job"
    assert lab.begun.acquire(timeout=SECONDS)
    other = jobs.submit(study, ask("other"), "two")
    assert jobs.ahead(other.id) == 1
    newer = jobs.submit(study, ask("newer"), "one")
    assert [job and job.state for job in map(jobs.get, (mine[0].id, newer.id))] == ["cancelled", "waiting"]
    assert (job := jobs.get(other.id)) is not None and job.state == "waiting", "another page keeps its own"
    jobs.cancel_page("one")
    assert (job := jobs.get(newer.id)) is not None and job.state == "cancelled"
    assert [job and job.is_replaced for job in map(jobs.get, (mine[0].id, newer.id))] == [True, False]
    for _ in range(5):
        lab.steps.release()
    done = jobs.wait(other.id, SECONDS)
    assert done is not None and done.state == "done" and lab.asked == ["mine", "other"]
    again = jobs.submit(study, ask("mine"), "one")
    assert again.id != mine[0].id, "a cancelled clip is made anew"


def test_a_page_takes_over_the_clip_that_its_address_asks_for(study: Study, start: Start) -> None:
    lab = Waits()
    jobs = start(lab)
    first, waits = jobs.submit(study, ask("first"), "one"), jobs.submit(study, ask("waits"), "two")
    assert lab.begun.acquire(timeout=SECONDS)
    for made in (first, waits):
        job = jobs.recall(study, made.request, "new")
        assert job is not None and job.id == made.id
    assert jobs.submit(study, ask("waits"), "new").id == waits.id, "and asks for it no second time"
    jobs.cancel_page("new")
    assert [job and job.state for job in map(jobs.get, (first.id, waits.id))] == ["rendering", "cancelled"]
    lab.steps.release()


def test_a_clip_that_two_pages_ask_for_is_made_until_neither_does(study: Study, start: Start) -> None:
    lab = Waits()
    jobs = start(lab)
    shared = jobs.submit(study, ask("shared"), "one")
    assert lab.begun.acquire(timeout=SECONDS)
    assert jobs.submit(study, ask("shared"), "two").id == shared.id
    jobs.submit(study, ask("another"), "one")
    assert (job := jobs.get(shared.id)) is not None and job.state == "rendering"
    jobs.submit(study, ask("a third"), "two")
    assert (job := jobs.get(shared.id)) is not None and job.state == "cancelled"
    lab.steps.release()


def test_the_model_is_loaded_once_before_the_first_job(study: Study, start: Start) -> None:
    lab = Waits()
    jobs = start(lab)
    jobs.prepare(study)
    jobs.prepare(study)
    for _ in range(4):
        lab.steps.release()
    done = jobs.wait(jobs.submit(study, ask("one")).id, SECONDS)
    assert done is not None and done.state == "done"
    jobs.prepare(study)
    assert lab.asked == [f"load {study.path.name}", "one"]


def test_no_sound_waits_for_judges(study: Study, start: Start) -> None:
    lab = Deaf()
    jobs = start(lab)
    for _ in range(8):
        lab.steps.release()
    first, second = jobs.submit(study, ask("first")), jobs.submit(study, ask("second"))
    for _ in range(8):
        assert lab.begun.acquire(timeout=SECONDS)
    lab.hears.set()
    for job in (first, second):
        done = jobs.wait(job.id, SECONDS)
        assert done is not None and done.state == "done"


def test_a_cancelled_rendering_ends_before_its_next_step(study: Study, start: Start) -> None:
    lab = Waits()
    jobs = start(lab)
    first = jobs.submit(study, ask("first"))
    assert lab.begun.acquire(timeout=SECONDS)
    jobs.cancel(first.id)
    lab.steps.release()
    after = jobs.submit(study, ask("after"))
    for _ in range(4):
        lab.steps.release()
    finished = jobs.wait(after.id, SECONDS)
    assert finished is not None and finished.state == "done"
    assert (lab.asked, lab.scored) == (["first", "after"], ["after"])
    assert (
        lab.begun.acquire(blocking=False)
        and [lab.begun.acquire(blocking=False) for _ in range(4)].count(True) == 3
    ), "one step of the first, four of the other"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("user", "Give another pack."), ("memory", NO_MEMORY), ("cuda", NO_MEMORY), ("bug", FAULT), ("folder", FAULT)],
)  # fmt: skip
def test_an_error_is_a_sentence_and_the_next_job_works(
    study: Study, start: Start, prompt: str, said: str
) -> None:
    jobs = start(Fails())
    failed = jobs.wait(jobs.submit(study, ask(prompt)).id, SECONDS)
    assert failed is not None and (failed.state, failed.error) == ("failed", said)
    good = jobs.wait(jobs.submit(study, ask("good")).id, SECONDS)
    assert good is not None and good.state == "done"


def test_a_study_that_was_removed_meanwhile_is_told(study: Study, start: Start, tmp_path: Path) -> None:
    gone = Study(study.path, study.spec, study.model)
    gone.path = tmp_path / "gone"
    jobs = start(Fails())
    failed = jobs.wait(jobs.submit(gone, ask("folder")).id, SECONDS)
    said = f"{gone.path} is not there any more: put it back, or open another study."
    assert failed is not None and failed.error == said


def test_the_queue_is_bounded(study: Study, start: Start) -> None:
    lab = Waits()
    jobs = start(lab)
    queued = [jobs.submit(study, ask("first"))]
    assert lab.begun.acquire(timeout=SECONDS)
    queued += [jobs.submit(study, ask("x")) for _ in range(MOST_WAITING)]
    with pytest.raises(UserError, match="32 clips are waiting already"):
        jobs.submit(study, ask("x"))
    for job in queued:
        jobs.cancel(job.id)
    lab.steps.release()


def test_clips_that_the_study_has_are_there_at_once_and_are_scored(study: Study, start: Start) -> None:
    lab = Waits()
    jobs = start(lab)
    assert jobs.recall(study, ask("other")) is None
    job = jobs.recall(study, ask("held"))
    assert job is not None and job.state == "scoring"
    assert job.rendered == Rendered("a.flac", "held.flac", 4.0)
    done = jobs.wait(job.id, SECONDS)
    assert done is not None and (done.state, done.scores) == ("done", Scores((), 1.0))
    assert (lab.asked, lab.scored) == ([], ["held"]), "nothing is rendered"


def test_closing_cancels_what_there_is_and_ends_the_threads(study: Study, start: Start) -> None:
    lab = Waits()
    jobs = start(lab)
    rendered, waits = jobs.submit(study, ask("first")), jobs.submit(study, ask("second"))
    assert lab.begun.acquire(timeout=SECONDS)
    threads = list(jobs._threads)
    assert len(threads) == 2 and all(thread.is_alive() for thread in threads)
    closing = threading.Thread(target=jobs.close, args=(SECONDS,))
    closing.start()
    assert jobs.wait(waits.id, SECONDS) is not None
    lab.steps.release()
    closing.join(SECONDS)
    assert not any(thread.is_alive() for thread in (closing, *threads))
    assert lab.asked == ["first"]
    states = [job.state for id in (rendered.id, waits.id) if (job := jobs.get(id))]
    assert states == ["cancelled", "cancelled"]
    jobs.prepare(study)
    with pytest.raises(UserError, match="The dashboard is ending"):
        jobs.submit(study, ask("third"))
    assert lab.asked == ["first"]


class Stops(Lab):
    """A real lab that is stopped at its third step, as if somebody had pressed Cancel then."""

    jobs: Jobs
    seen: list[str]

    def render(self, study: Study, request: LabRequest, report: Report) -> Rendered:
        def watched(message: str, progress: float) -> None:
            self.seen.append(message)
            if message.startswith("Denoising, step 3"):
                self.jobs.cancel(next(iter(self.jobs._jobs)))
            report(message, progress)

        return super().render(study, request, watched)


def test_a_cancelled_organism_leaves_no_file(
    organism_shared: AceStep15, start: Start, tmp_path: Path
) -> None:
    study = lab_study(organism_shared, tmp_path / "lab", settings={"duration": 1.0})
    lab = Stops(model=organism_shared)
    lab.seen = []
    lab.jobs = jobs = start(lab)
    before = sorted(study.path.rglob("*"))
    request = request_of({"prompt": "a slow song", "edits": [{"kind": "ablate", "sites": ["tf3.mlp"]}]})
    ended = jobs.wait(jobs.submit(study, request).id, SECONDS)
    assert ended is not None and ended.state == "cancelled"
    wrong = {"kind": "ablate", "sites": ["tf99.mlp"]}
    with pytest.raises(UserError, match="Block tf99 does not exist; this model has tf0 to tf7"):
        jobs.submit(study, request_of({"prompt": "x", "edits": [wrong]}))
    jobs.close()
    assert lab.seen[-1].startswith("Denoising, step 3 of")
    assert sorted(study.path.rglob("*")) == before
    assert {file.name for file in study.path.iterdir()} == {"study.json", "clips.parquet", "locks"}
