"""What notebooks show of specs and plans. The figures stand in a higher layer, which tells this one how to draw."""

from collections.abc import Callable, Collection
from typing import Any

Renderer = Callable[[Any], dict[str, str]]
"""A value -> MIME type -> text."""

_renderers: list[Renderer] = []


def use_renderer(renderer: Renderer) -> None:
    """From now on, values are shown as `renderer` says."""
    _renderers[:] = [renderer]


class Shown:
    """Base of values that a notebook shows as a figure (IPython's display protocol)."""

    def _repr_mimebundle_(
        self, include: Collection[str] | None = None, exclude: Collection[str] | None = None
    ) -> dict[str, str]:
        bundle = {"text/plain": repr(self), **(_renderers[0](self) if _renderers else {})}
        return {
            kind: text
            for kind, text in bundle.items()
            if (include is None or kind in include) and kind not in (exclude or ())
        }

    def _repr_html_(self) -> str | None:
        return self._repr_mimebundle_().get("text/html")
