"""The quality table: small models of equal size, one for each way to share caches, trained on the same bytes.

Imports torch, except for `results`, `variants` and `page`. `docs/quality.md` says what the table can show.
"""
