"""Configure how torch's threads wait if torch was imported before the workbench."""

import threading

import torch


def share_processors() -> None:
    """Keep OpenMP threads from spinning for long when it is too late to set OMP_WAIT_POLICY.

    GNU OpenMP, which torch's Linux builds include, reads the variable once, when it is loaded. But threads spin 1000
    times instead of 300,000 while there are more threads than processors (GOMP_SPINCOUNT in its manual), and every
    thread that computes in parallel has its own team. So it is enough to start one thread that computes in parallel
    once and then sleeps; idle threads cost nothing.
    """
    if torch.get_num_threads() > 1:
        ready = threading.Event()
        threading.Thread(target=_hold_a_team, args=(ready,), name="spare OpenMP team", daemon=True).start()
        ready.wait()


def _hold_a_team(ready: threading.Event) -> None:
    torch.ones(2**20).add_(1)  # large enough to be split among threads
    ready.set()
    threading.Event().wait()
