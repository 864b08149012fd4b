"""Diagnostics for people (`text`), for programs (`json`), for code scanners (`sarif`) and for GitHub's log (`github`).

All of them are made of the same facts. `sarif` and `github` are imported where they are asked for.
"""

from archspec.render.json import to_json
from archspec.render.text import render_text, segments

__all__ = ["render_text", "segments", "to_json"]
