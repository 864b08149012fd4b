"""E0205 to E0209: readers of what is not written yet, or of what other readers only read themselves."""

from archspec.checks.source_errors import reads
from archspec.diagnostics import MAX_LABELS, Diagnostic, Edit, Help, Label, zero_based
from archspec.source import Span


class ReaderBeforeSource(Diagnostic):
    """A layer that reads a cache which a later layer writes.

    What: layers run from first to last; at layer 2 the keys and values of layer 4 do not exist yet. `iterate` makes
    it legal: the layers run several times, and each pass reads what the pass before it wrote.
    Why it is bad: the reader would see nothing, or what another token left there.
    Example: in a model of 4 layers
        layers 1, 4 attend
        layers 2-3 cross-attend to cache@4
    Mended:
        layers 1, 4 attend
        layers 2-3 cross-attend to cache@4
        iterate layers 2-4: 7 forward, 2 backward
    Source: LCKV, arXiv 2405.10637, section 2.2.
    """

    code = "E0205"
    readers: str
    first: int
    cache: str
    layer: int
    source_span: Span
    own_output: bool
    whole: bool
    iterate: tuple[str, Edit | None]

    def message(self) -> str:
        if self.own_output:
            return f"layer {self.layer} reads a projection of its own output, which does not exist while it runs"
        return f"layer {self.first} runs before layer {self.layer}, whose keys and values it reads"

    def remark(self) -> str:
        return f"{self.readers} {reads(self.readers)} {self.cache} before it is written"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.source_span, f"{self.cache} is written by {zero_based(self.layer)}"),)

    def helps(self) -> tuple[Help, ...]:
        if not self.whole:
            return (
                Help(f"read `{self.cache}` from layer {self.layer + 1} on, and say what the layers before that are"),
            )
        if self.own_output:
            return (Help(f"read `{self.cache}` from layer {self.layer + 1} on, or write `attend` here"),)
        line, edit = self.iterate
        if edit is None:
            return (Help(f"LCKV resolves this by iterating: add `{line}`"),)
        return (Help("LCKV resolves this by iterating:", edit),)


class NothingBelow(Diagnostic):
    """`cache@below` where no layer below writes a cache.

    What: `cache@below` is the nearest keys and values that a lower layer has: its own, or a projection of its output.
    Why it is bad: there is nothing to read.
    Example:
        layers 1 cross-attend to cache@below
        layers 2-4 attend
    Mended:
        layers 1 attend
        layers 2-4 cross-attend to cache@below
    """

    code = "E0215"
    readers: str

    def message(self) -> str:
        return f"{self.readers} {reads(self.readers)} the cache below, but no layer below has keys and values"

    def helps(self) -> tuple[Help, ...]:
        return (Help("write `attend` for the first of them"),)


class ReadsItself(Diagnostic):
    """A layer that cross-attends to its own cache.

    What: a layer that uses its own keys and values is written `attend`; a reader has none.
    Why it is bad: there is nothing to read, or the layer is no reader.
    Example:
        layers 1 attend
        layers 2 cross-attend to cache@2
        layers 3-4 cross-attend to cache@1
    Mended:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@1
    """

    code = "E0206"
    number: int
    alone: bool
    mixer: Span

    def message(self) -> str:
        return f"layer {self.number} reads its own cache, but a reader has no keys and values"

    def helps(self) -> tuple[Help, ...]:
        if self.alone:
            return (Help("write `attend`", Edit(self.mixer, "attend")),)
        return (Help(f"take layer {self.number} out of this range and write `layers {self.number} attend`"),)


class ReaderCycle(Diagnostic):
    """Readers that name one another, with no keys and values anywhere.

    What: every chain of readers must end at a layer or a projection that has keys and values.
    Why it is bad: nobody writes what these layers read.
    Example:
        layers 1, 4 attend
        layers 2 cross-attend to cache@3
        layers 3 cross-attend to cache@2
    Mended:
        layers 1, 2, 4 attend
        layers 3 cross-attend to cache@2
    """

    code = "E0207"
    reads: tuple[tuple[int, int, Span], ...]

    def message(self) -> str:
        names = [f"layer {reader}" for reader, _, _ in self.reads]
        if len(names) > MAX_LABELS:
            names = [*names[: MAX_LABELS - 1], "..."]
        return f"{' -> '.join([*names, names[0]])}: these layers read one another, and none has keys and values"

    def remark(self) -> str:
        return f"layer {self.reads[0][0]} reads cache@{self.reads[0][1]}"

    def labels(self) -> tuple[Label, ...]:
        return tuple(
            Label(span, f"{zero_based(reader)} reads cache@{source}")
            for reader, source, span in self.reads[1:MAX_LABELS]
        )

    def helps(self) -> tuple[Help, ...]:
        return (Help("write `attend` for the layer that shall own the keys and values"),)


class ReadsReader(Diagnostic):
    """A reader of a reader.

    What: a layer that cross-attends has queries only, so that it has no cache for others.
    Why it is bad: a chain that is followed silently hides who owns the keys and values.
    Example:
        layers 1-2 attend
        layers 3 cross-attend to cache@2
        layers 4 cross-attend to cache@3
    Mended:
        layers 1-2 attend
        layers 3 cross-attend to cache@2
        layers 4 cross-attend to cache@2
    """

    code = "E0208"
    readers: str
    number: int
    source_span: Span
    named: str
    """What layer `number` itself names as source."""
    root: str | None

    def message(self) -> str:
        text = f"{self.readers} {reads(self.readers)} cache@{self.number}, but layer {self.number} has none"
        return f"{text}: it only reads {self.named} itself"

    def remark(self) -> str:
        return "no keys and values here"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.source_span, f"{zero_based(self.number)} is a reader"),)

    def helps(self) -> tuple[Help, ...]:
        if self.root is None:
            return ()
        return (Help(f"say `{self.root}`", Edit(self.span, self.root), safe=True),)


class UnusedOwnKeys(Diagnostic):
    """A reader that states kv heads because others read "its" cache.

    What: the layer would compute keys and values that it never uses itself (`0_2_1` in LCKV's notation).
    Why it is bad: a reader owns queries only; keys and values that a layer makes for others are a projection.
    Example:
        layers 1-2 attend
        layers 3 cross-attend to cache@2, kv heads 2
        layers 4 cross-attend to cache@3
    Mended:
        layers 1-2 attend
        layers 3 cross-attend to cache@2
        cache@3: kv heads 2
        layers 4 cross-attend to cache@3
    """

    code = "E0209"
    readers: str
    number: int
    owner_source: str
    kv_span: Span

    def message(self) -> str:
        return f"layer {self.number} reads {self.owner_source} and would make keys and values only for {self.readers}"

    def remark(self) -> str:
        return f"{self.readers} {reads(self.readers)} them"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.kv_span, f"{zero_based(self.number)} is a reader and owns queries only"),)

    def helps(self) -> tuple[Help, ...]:
        return (
            Help(f"write `attend` for layer {self.number}, and it uses them itself"),
            Help(f"or project them from its output: `cache@{self.number}: kv heads ...`"),
        )
