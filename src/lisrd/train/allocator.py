"""Memory of a training on the CPU: every step asks for the same large blocks that the last one gave back."""

from __future__ import annotations

import ctypes

# Parameters of glibc's mallopt, from malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = -1  # a number of bytes would have to be an int: at most 2 GiB


def keep_freed_memory() -> bool:
    """Have the C library keep what is freed for the next request; False where it offers no such choice.

    By default glibc returns every block of 32 MiB or more to the system, which must then clear it page by page when
    the next one is asked for: an elementwise operation on such a tensor took 3 to 7 times as long, a training step
    one and a half times.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not glibc
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
