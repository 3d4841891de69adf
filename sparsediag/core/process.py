"""Configure a process before torch loads, and describe how other processes ended."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import select
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing.process import BaseProcess

CLOSED_PIPE = 141  # exit code, that of a Unix tool whose reader has gone
MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of mallopt, in glibc's malloc.h


def configure_process() -> None:
    """Set up this process before torch loads: print stacks at crashes, set OpenMP and malloc.

    OpenMP's threads spin less: they spin while they wait, which slows a second process on the same
    cores (two spectra at once took over 60 s instead of 15 s). malloc keeps freed memory: glibc
    returns each large tensor to the system when it is freed, and the page faults of the next one
    cost a fifth of a Hessian-vector product.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if sys.__stderr__ and not faulthandler.is_enabled():  # print the stack at a crash
        with suppress(OSError, ValueError):
            faulthandler.enable(sys.__stderr__)
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another libc
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(MMAP_THRESHOLD, 2**30)
            libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)


def reader_is_gone() -> bool:
    """Return whether the reader of stdout, such as `head`, has closed it, and drop what is left."""
    if not hasattr(select, "poll"):  # Windows
        return False
    poll = select.poll()
    poll.register(sys.stdout, 0)
    gone = any(event & select.POLLERR for _, event in poll.poll(0))
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone


def describe_exit(processes: Iterable[BaseProcess]) -> str:
    """Return why the first process that failed ended, and what to do about it."""
    codes = []
    for process in processes:
        process.join(5)
        codes.append(process.exitcode or 0)
    code = next((c for c in codes if c not in (0, -signal.SIGTERM)), 0)  # the others get SIGTERM
    if code == -signal.SIGKILL:
        return "it was killed (SIGKILL), most likely out of memory; use fewer jobs"
    if code < 0:
        return (
            f"it crashed with {signal.Signals(-code).name} in compiled code, not for lack of "
            "memory; try another version of torch, or other sizes"
        )
    return f"it ended with exit code {code}" if code else "the reason is unknown"
