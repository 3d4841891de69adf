"""Settings of a process before torch loads, and how other processes ended."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.process import BaseProcess

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of mallopt, in glibc's malloc.h


def configure_process() -> None:
    """Threads that yield to others, and memory that is kept when it is freed.

    OpenMP's threads spin while they wait, which brings a second process on the same cores to a
    crawl (two spectra at once took over 60 s instead of 15 s). glibc gives each large tensor back
    to the system as soon as it is freed, and the page faults of the next one cost a fifth of a
    Hessian-vector product.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if sys.__stderr__ and not faulthandler.is_enabled():  # a crash tells where it was
        with suppress(OSError, ValueError):
            faulthandler.enable(sys.__stderr__)
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another libc
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(MMAP_THRESHOLD, 2**30)
            libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)


def describe_exit(processes: Iterable[BaseProcess]) -> str:
    """Return how the first process ended that did not end by itself, and what to do about it."""
    codes = []
    for process in processes:
        process.join(5)
        codes.append(process.exitcode or 0)
    code = next((c for c in codes if c not in (0, -signal.SIGTERM)), 0)  # others are terminated
    if code == -signal.SIGKILL:
        return "it was killed (SIGKILL), most likely because the memory ran out; use fewer jobs"
    if code < 0:
        return (
            f"it crashed with {signal.Signals(-code).name} in compiled code, which is no lack of "
            "memory; another version of torch, or other sizes, may not crash"
        )
    return f"it ended with exit code {code}" if code else "its end left no trace"
