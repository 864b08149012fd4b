"""Kernels of the runtime's own, and which calls they serve.

Legend: B batch, S query tokens, T keys in a view, N heads, K kv heads, E head_dim of queries, H of keys, D of values.
"""

from archspec.runtime.kernels.rows import (
    MOST_ROWS,
    attend_row,
    library,
    linear,
    linear_of_many,
    load_rows,
    serves,
    use_library,
)

__all__ = ["MOST_ROWS", "attend_row", "library", "linear", "linear_of_many", "load_rows", "serves", "use_library"]
