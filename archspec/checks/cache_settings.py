"""E0405: what is done to keys and values is done once, where they are made."""

from collections.abc import Iterator

from archspec.checks.context import Context, cache_name
from archspec.diagnostics import Diagnostic, Edit, Help, Label, zero_based
from archspec.source import Span
from archspec.spec.elaborate import display_key
from archspec.spec.spans import without

_KEYS = ("v_norm", "values_from_keys")


class ReaderChangesValues(Diagnostic):
    """A reader that says how values are made.

    What: `v-norm` and `values-from-keys` act where keys and values are written; a reader has queries only.
    Why it is bad: the setting would do nothing, and whoever reads it believes in another model.
    Example:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2, v-norm rms(1e-6, no weight)
    Mended:
        layers 1-2 attend, v-norm rms(1e-6, no weight)
        layers 3-4 cross-attend to cache@2
    """

    code = "E0405"
    setting: str
    cache: str
    layer: int
    cache_span: Span
    removal: Edit | None

    def message(self) -> str:
        return f"a reader makes no values: `{self.setting}` would do nothing to those in {self.cache}"

    def remark(self) -> str:
        return "drop this"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.cache_span, f"{zero_based(self.layer)}: {self.cache} is made here"),)

    def helps(self) -> tuple[Help, ...]:
        return (
            Help(f"leave `{self.span.text}` out", self.removal),
            Help(f"or write it where {self.cache} is made, for all of its readers"),
        )


def check(context: Context) -> Iterator[Diagnostic]:
    """Settings of values in statements of readers, once a statement."""
    for idx, groups in context.readers_by_statement.items():
        cache = next((readers.cache for readers in groups if readers.cache is not None), None)
        if cache is None:
            continue
        places = context.places(idx).settings
        for key in (key for key in _KEYS if key in places):
            yield ReaderChangesValues(
                span=places[key],
                setting=display_key(key),
                cache=cache_name(cache),
                layer=cache.layer,
                cache_span=context.head(cache.statement),
                removal=without(places[key]),
            )
