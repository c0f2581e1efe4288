"""How torch's threads wait for one another, where torch was loaded before the workbench."""

import threading

import torch


def share_processors() -> None:
    """Keep OpenMP threads from spinning for long, although OMP_WAIT_POLICY can no longer be set.

    GNU's OpenMP, which torch's builds for Linux bring, reads the variable once, when it is loaded. But it lets threads
    spin 1000 times instead of 300,000 while there are more of them than processors (GOMP_SPINCOUNT in its manual), and
    every thread of a program that computes in parallel has a team of its own. So a thread that has done so once, and
    then sleeps, is enough: idle threads cost nothing.
    """
    if torch.get_num_threads() > 1:
        ready = threading.Event()
        threading.Thread(target=_hold_a_team, args=(ready,), name="spare OpenMP team", daemon=True).start()
        ready.wait()


def _hold_a_team(ready: threading.Event) -> None:
    torch.ones(2**20).add_(1)  # large enough to be shared among threads
    ready.set()
    threading.Event().wait()
