"""What a lack of memory looks like."""

from __future__ import annotations


def is_out_of_memory(error: Exception) -> bool:
    """torch and OpenCV have words for it, not a type."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in said for words in ("can't allocate memory", "insufficient memory", "out of memory")
    )
