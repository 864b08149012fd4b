"""Figures of an architecture: one model of what is drawn, derived from the plan, and renderers that know only that.

`drawing.figure_of` derives a `model.Figure`; `terminal`, `svg`, `mermaid`, `dot` and `page` render it. No torch.
"""
