"""E01xx: which layers exist."""

from archspec.diagnostics import Diagnostic, Edit, Help, Label, zero_based
from archspec.source import Span


class RangeBeyondModel(Diagnostic):
    """A range that ends after the last layer.

    What: layers are counted from 1 to the header's total, both included.
    Why it is bad: slicing would cut the range silently, and the model would have fewer layers than the spec says.
    Example: in a model of 4 layers
        layers 1-2 attend
        layers 3-5 cross-attend to cache@2
    Mended:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2
    """

    code = "E0101"
    number: int
    total: int
    total_span: Span
    fixed: str | None
    stack: str = "model"

    def message(self) -> str:
        return f"layer {self.number} does not exist: the {self.stack} has {count_of(self.total)}"

    def remark(self) -> str:
        return f"the last layer is {self.total}"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.total_span, f"{count_of(self.total)} stated here"),)

    def helps(self) -> tuple[Help, ...]:
        deeper = f"`layers {self.number}` in the header, if the {self.stack} is that deep"
        if self.fixed is None:
            return (Help(f"state {deeper}"),)
        return (Help(f"write `{self.fixed}`", Edit(self.span, self.fixed)), Help(f"or state {deeper}"))


class LayerZero(Diagnostic):
    """Layer 0.

    What: layers are counted from 1, as in papers. HF and vLLM count from 0.
    Why it is bad: taken as it stands, every cache and every reader would be off by one.
    Example: in a model of 4 layers
        layers 0-3 attend
    Mended:
        layers 1-4 attend
    """

    code = "E0102"
    fixed: str
    others: bool = False
    """Other statements give layer numbers as well."""

    def message(self) -> str:
        return "there is no layer 0: layers are counted from 1"

    def remark(self) -> str:
        return "0 is the first layer in HF"

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"counting from 0? then write `{self.fixed}`", Edit(self.span, self.fixed)),)

    def notes(self) -> tuple[str, ...]:
        if not self.others:
            return ()
        return ("if the whole file counts from 0, every layer number and every `cache@N` of it is one more here",)


class ReversedRange(Diagnostic):
    """A range from high to low.

    What: a range names its first layer, then its last.
    Why it is bad: it is empty, so that the layers it was meant for are not declared.
    Example: in a model of 4 layers
        layers 4-1 attend
    Mended:
        layers 1-4 attend
    """

    code = "E0103"
    fixed: str

    def message(self) -> str:
        return f"the range `{self.span.text}` runs backwards and contains no layer"

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"write `{self.fixed}`", Edit(self.span, self.fixed), safe=True),)


class DeclaredTwice(Diagnostic):
    """A layer that is declared twice.

    What: every layer belongs to exactly one statement.
    Why it is bad: one of the two declarations would be ignored without a word.
    Example: in a model of 4 layers
        layers 1-2 attend
        layers 2-4 cross-attend to cache@1
    Mended:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@1
    """

    code = "E0104"
    layers: str
    first: Span
    cut: Edit | None

    def message(self) -> str:
        return f"{self.layers} {are(self.layers)} declared twice; which one counts? neither"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.first, f"{self.layers} declared first here"),)

    def remark(self) -> str:
        return f"{self.layers} declared again here"

    def helps(self) -> tuple[Help, ...]:
        if self.cut is None:
            return (Help(f"take {self.layers} out of one of the two"),)
        prefix = "layers " if self.cut.span.text.startswith("layers") else ""
        edit = Edit(self.cut.span, prefix + self.cut.text)
        return (Help(f"write `{edit.text}` here, if the first one counts", edit),)


class MissingLayers(Diagnostic):
    """A gap: a layer that no statement declares.

    What: the statements together declare every layer from 1 to the header's total.
    Why it is bad: a model with a hole has no data path; one that closes the hole is another model.
    Example: in a model of 4 layers
        layers 1-2 attend
        layers 4 cross-attend to cache@2
    Mended:
        layers 1-2 attend
        layers 3-4 cross-attend to cache@2
    """

    code = "E0105"
    layers: str
    declared: str
    following: Span | None
    fixed: str | None

    def message(self) -> str:
        return f"{self.layers} {are(self.layers)} declared nowhere"

    def remark(self) -> str:
        return f"declared: {self.declared}"

    def labels(self) -> tuple[Label, ...]:
        if self.following is None or self.following == self.span:
            return ()
        return (Label(self.following, f"after the gap: {self.layers} missing"),)

    def helps(self) -> tuple[Help, ...]:
        declare = Help(f"declare {self.layers}, or say `layers rest ...` for all that are not declared elsewhere")
        if self.fixed is None or self.following is None:
            return (declare,)
        return (Help(f"off by one? then write `{self.fixed}` here", Edit(self.following, self.fixed)), declare)


class TotalMismatch(Diagnostic):
    """Fewer layers declared than the header states.

    What: the declared layers end before the header's total.
    Why it is bad: without the total a missing tail could not be seen, and the model would be too short.
    Example: in a model of 4 layers
        layers 1-3 attend
    Mended:
        layers 1-4 attend
    """

    code = "E0106"
    total: int
    last: int
    last_span: Span | None

    def message(self) -> str:
        missing = f"layer {self.total}" if self.last + 1 == self.total else f"layers {self.last + 1}-{self.total}"
        return f"the header states {count_of(self.total)}, but {missing} {are(missing)} declared nowhere"

    def remark(self) -> str:
        return f"{count_of(self.total)} stated"

    def labels(self) -> tuple[Label, ...]:
        if self.last_span is None:
            return ()
        return (Label(self.last_span, f"the last declared layer is {zero_based(self.last)}"),)

    def helps(self) -> tuple[Help, ...]:
        if self.last_span is None:
            return (Help(f"declare them, for example `layers 1-{self.total} attend`"),)
        fixed = f"layers {self.last}"
        return (
            Help("declare the rest, for example with `layers rest ...`"),
            Help(f"or state `{fixed}`", Edit(self.span, fixed)),
        )


class UnevenStep(Diagnostic):
    """A step that does not reach the end of its range.

    What: `1-4 step 2` is 1, 3, and 5 would be next: the range ends at 3.
    Why it is bad: a pattern that is cut at the end is nearly always a wrong depth or a wrong step.
    Example: in a model of 4 layers
        layers 1-4 step 2 attend
        layers rest ffn-only
    Mended:
        layers 1-3 step 2 attend
        layers rest ffn-only
    """

    code = "E0107"
    numbers: tuple[int, ...]
    end: int
    reached: str
    next_: int

    def message(self) -> str:
        return f"`{self.span.text}` does not reach {self.end}"

    def remark(self) -> str:
        tail = ", ".join(map(str, self.numbers[-3:]))
        return f"{'..., ' if len(self.numbers) > 3 else ''}{tail}, and then {self.next_}"

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"write `{self.reached}` if this is what you mean", Edit(self.span, self.reached)),)


class EmptyRest(Diagnostic):
    """`layers rest` where no layer is left.

    What: `rest` is every layer that no other statement declares.
    Why it is bad: the statement would do nothing; usually another range reaches further than was meant.
    Example: in a model of 4 layers
        layers 1-4 attend
        layers rest ffn-only
    Mended:
        layers 1-3 attend
        layers rest ffn-only
    """

    code = "E0110"
    total: int

    def message(self) -> str:
        return f"no layer is left for `layers rest`: all {count_of(self.total)} are declared elsewhere"

    def helps(self) -> tuple[Help, ...]:
        return (Help("leave the statement out, or shorten another range"),)


def count_of(count: int) -> str:
    """`1 layer`, `24 layers`."""
    return f"{count} layer{'s' if count != 1 else ''}"


def are(layers: str) -> str:
    """The verb for `layer 12` or `layers 13-24`."""
    return "are" if layers.startswith("layers") else "is"
