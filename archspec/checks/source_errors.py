"""E0201 to E0204, E0211 and E0214: which caches exist, and which layers have one."""

from archspec.checks.range_errors import count_of
from archspec.diagnostics import Diagnostic, Edit, Help, Label, listing, zero_based
from archspec.source import Span

Named = tuple[tuple[str, Span], ...]


class CacheBeyondModel(Diagnostic):
    """A cache of a layer that does not exist.

    What: `cache@N` is the K/V that exist once layer N has run, N from 1 to the header's total.
    Why it is bad: there is nothing to read; a number that wraps around, as in Python, would read another layer.
    Example: in a model of 4 layers
        layers 1-2 attend
        layers 3-4 cross-attend to cache@20
    Mended:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2
    """

    code = "E0201"
    number: int
    total: int
    total_span: Span
    stack: str = "model"

    def message(self) -> str:
        if self.number == 0:
            return "`cache@0` does not exist: layers are counted from 1"
        return f"`cache@{self.number}` does not exist: the {self.stack} has {count_of(self.total)}"

    def remark(self) -> str:
        return "0 is the first layer in HF" if self.number == 0 else f"the last layer is {self.total}"

    def labels(self) -> tuple[Label, ...]:
        return () if self.number == 0 else (Label(self.total_span, f"{count_of(self.total)} stated here"),)

    def helps(self) -> tuple[Help, ...]:
        if self.number == 0:
            text = self.span.text
            edit = Edit(self.span, f"{text[:-1]}1") if text.endswith("@0") else None
            return (Help("counting from 0? then write `cache@1`", edit),)
        return (Help(f"name a layer from 1 to {self.total}; `cache@last` is the last one's"),)


class UnknownCache(Diagnostic):
    """A cache name that no statement declares.

    What: `cache main` is a cache that a statement `cache main@N: ...` declares.
    Why it is bad: there is nothing to read.
    Example:
        layers 1-2 attend
        cache main@2: kv heads 2
        layers 3-4 cross-attend to cache mian
    Mended:
        layers 1-2 attend
        cache main@2: kv heads 2
        layers 3-4 cross-attend to cache main
    """

    code = "E0202"
    name: str
    known: Named
    """Some of the caches that have a name."""
    guess: str | None
    sure: bool = False
    """No other name is near."""

    def message(self) -> str:
        return f"there is no cache named `{self.name}`"

    def remark(self) -> str:
        return "not declared" if self.known else "no cache has a name"

    def labels(self) -> tuple[Label, ...]:
        shown = [pair for pair in self.known if pair[0] == self.guess] if self.guess else self.known
        return tuple(Label(span, f"`{name}` is declared here") for name, span in shown)

    def helps(self) -> tuple[Help, ...]:
        if self.guess is not None:
            return (Help(f"did you mean `cache {self.guess}`?", Edit(self.span, f"cache {self.guess}"), self.sure),)
        if self.known:
            names = tuple(f"cache {name}" for name, _ in self.known)
            return (Help(f"name one that is declared, such as {listing(names)}"),)
        return (Help(f"declare it, for example `cache {self.name}@12: kv heads 8 x 128`"),)


class SourceWithoutAttention(Diagnostic):
    """A reader of a layer that has no attention.

    What: only `attend` layers have keys and values of their own.
    Why it is bad: there is nothing to read; the nearest layer that has some is another model.
    Example:
        layers 1 attend
        layers 2 ffn-only
        layers 3-4 cross-attend to cache@2
    Mended:
        layers 1 attend
        layers 2 ffn-only
        layers 3-4 cross-attend to cache@1
    """

    code = "E0203"
    readers: str
    number: int
    source_span: Span
    nearest: tuple[int, ...]

    def message(self) -> str:
        return (
            f"{self.readers} {reads(self.readers)} cache@{self.number}, but layer {self.number} has no keys and values"
        )

    def remark(self) -> str:
        return "nothing to attend to"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.source_span, f"{zero_based(self.number)}: `ffn-only` has no attention"),)

    def helps(self) -> tuple[Help, ...]:
        project = f"project keys and values from layer {self.number}'s output: `cache@{self.number}: kv heads ...`"
        if not self.nearest:
            return (Help(project),)
        caches = tuple(f"cache@{number}" for number in self.nearest)
        return (
            Help(f"the nearest layers with keys and values of their own: {listing(caches, 'and')}"),
            Help(f"or {project}"),
        )


class SourceKeepsState(Diagnostic):
    """A reader of a layer that keeps a recurrent state.

    What: retention keeps a state of constant size; there are no keys and values to attend to. YOCO projects keys and
    values from the retention layer's output.
    Why it is bad: a model that reads the state as if it were K/V computes something else, or crashes.
    Example:
        layers 1-2 retention
        layers 3-4 cross-attend to cache@2
    Mended:
        layers 1-2 retention
        cache@2: kv heads 2 x 16
        layers 3-4 cross-attend to cache@2
    Source: YOCO, arXiv 2405.05254, section 2.
    """

    code = "E0204"
    readers: str
    number: int
    source_span: Span
    insertion: tuple[str, Edit | None]

    def message(self) -> str:
        number = self.number
        return f"{self.readers} {reads(self.readers)} cache@{number}, but layer {number} keeps no keys and values"

    def remark(self) -> str:
        return "nothing to attend to"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.source_span, f"{zero_based(self.number)}: retention keeps a recurrent state"),)

    def helps(self) -> tuple[Help, ...]:
        line, edit = self.insertion
        text = f"project keys and values from layer {self.number}'s output (this is what YOCO does)"
        return (Help(f"{text}:", edit),) if edit is not None else (Help(f"{text}: `{line}`"),)


class CacheDeclaredTwice(Diagnostic):
    """The same cache declared by two statements.

    What: one statement declares a cache; two caches of the same layer have names.
    Why it is bad: one of the two projections would be ignored.
    Example:
        layers 1-2 attend
        cache@2: kv heads 2
        cache@2: kv heads 4
        layers 3-4 cross-attend to cache@2
    Mended:
        layers 1-2 attend
        cache@2: kv heads 4
        layers 3-4 cross-attend to cache@2
    """

    code = "E0211"
    cache: str
    number: int
    first: Span

    def message(self) -> str:
        shown = self.cache if "@" in self.cache else f"cache {self.cache}"
        return f"`{shown}` is declared twice; which one counts? neither"

    def remark(self) -> str:
        return "declared again here"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.first, "declared first here"),)

    def helps(self) -> tuple[Help, ...]:
        if "@" in self.cache:
            return (Help(f"two caches of one layer need names: `cache main@{self.number}: ...`"),)
        return (Help("leave one of them out, or give it another name"),)


class AmbiguousCache(Diagnostic):
    """`cache@N` where layer N has several named caches.

    What: `cache@N` is the cache of layer N if there is one; several are told apart by their names.
    Why it is bad: the reader would get one of them by chance.
    Example:
        layers 1-2 ffn-only
        cache a@2: kv heads 2
        cache b@2: kv heads 4
        layers 3 cross-attend to cache@2
        layers 4 cross-attend to cache b
    Mended:
        layers 1-2 ffn-only
        cache a@2: kv heads 2
        cache b@2: kv heads 4
        layers 3 cross-attend to cache a
        layers 4 cross-attend to cache b
    """

    code = "E0214"
    number: int
    candidates: Named
    """Some of the caches."""
    count: int

    def message(self) -> str:
        return f"`cache@{self.number}` could be any of {self.count} caches"

    def labels(self) -> tuple[Label, ...]:
        return tuple(Label(span, f"`cache {name}`") for name, span in self.candidates)

    def helps(self) -> tuple[Help, ...]:
        names = tuple(f"cache {name}" for name, _ in self.candidates)
        return (Help(f"say which: {listing(names)}"),)


def reads(layers: str) -> str:
    """The verb for `layer 12` or `layers 13-24`."""
    return "read" if layers.startswith("layers") else "reads"
