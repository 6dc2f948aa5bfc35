"""Other libraries: their records in and out, and our parts in their shapes."""
