"""Process: settings of a command's own process, made before torch loads."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1  # of mallopt, in glibc's malloc.h


def settle() -> None:
    """Threads that yield to others, and memory that is kept when it is freed.

    OpenMP's threads spin while they wait, which brings a second process on the same cores to a
    crawl (two spectra at once took over 60 s instead of 15 s). glibc gives each large tensor back
    to the system as soon as it is freed, and the page faults of the next one cost a fifth of a
    Hessian-vector product.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another libc
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(MMAP_THRESHOLD, 2**30)
            libc.mallopt(TRIM_THRESHOLD, 2**31 - 1)
