"""E03xx: head counts and sizes, and settings that every layer needs."""

from archspec.diagnostics import Diagnostic, Edit, Help, Label, listing, zero_based
from archspec.records import Facts
from archspec.source import Span

_MOST_HEADS = 4096
"""Beyond this, legal head counts are not enumerated."""


class ReaderStatesKvHeads(Diagnostic):
    """A reader with kv heads.

    What: kv heads belong to the cache; a reader has queries only.
    Why it is bad: the setting would do nothing, and whoever reads it believes in another model.
    Example:
        layers 1-2 attend, kv heads 2
        layers 3-4 cross-attend to cache@2, kv heads 4
    Mended:
        layers 1-2 attend, kv heads 2
        layers 3-4 cross-attend to cache@2
    """

    code = "E0301"
    cache: str
    cache_heads: int
    layer: int
    cache_span: Span
    removal: Edit | None

    def message(self) -> str:
        return f"a reader has no kv heads of its own: the {self.cache_heads} of {self.cache} count"

    def remark(self) -> str:
        return "drop this"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.cache_span, f"{zero_based(self.layer)}: {self.cache} has {self.cache_heads} kv heads"),)

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"leave `{self.span.text}` out", self.removal),)


class HeadsAndKeys(Facts):
    """The two sides of a comparison of queries with keys. No cache is named if both sides are in the header."""

    heads: int
    head_dim: int
    kv_heads: int
    kv_head_dim: int
    cache: str
    layer: int
    heads_span: Span
    kv_span: Span

    def labels(self, span: Span, queries: str, keys: str) -> tuple[Label, ...]:
        """The side at which the message itself does not point."""
        if self.heads_span == self.kv_span:
            return ()
        if span == self.heads_span:
            owner = f"{zero_based(self.layer)}: {self.cache} has " if self.cache else ""
            return (Label(self.kv_span, f"{owner}{keys}"),)
        return (Label(self.heads_span, queries),)


class HeadsNotMultiple(Diagnostic):
    """Query heads that kv heads do not divide.

    What: each kv head serves the same number of query heads.
    Why it is bad: there is no way to share them evenly; some heads would have to be left out.
    Example:
        layers 1-4 attend, heads 4 x 16, kv heads 3
    Mended:
        layers 1-4 attend, heads 4 x 16, kv heads 2
    Source: grouped-query attention, arXiv 2305.13245.
    """

    code = "E0302"
    facts: HeadsAndKeys

    def message(self) -> str:
        return f"{self.facts.heads} query heads cannot share {self.facts.kv_heads} kv heads evenly"

    def remark(self) -> str:
        return f"{self.facts.heads} is not a multiple of {self.facts.kv_heads}"

    def labels(self) -> tuple[Label, ...]:
        facts = self.facts
        return facts.labels(self.span, f"{facts.heads} query heads", f"{facts.kv_heads} kv heads")

    def helps(self) -> tuple[Help, ...]:
        heads, kv_heads = self.facts.heads, self.facts.kv_heads
        below, above = heads - heads % kv_heads, heads - heads % kv_heads + kv_heads
        counts = f"{below} or {above}" if below else str(above)
        even = Help(f"with {kv_heads} kv heads, heads may be {counts}")
        if heads > _MOST_HEADS:
            return (even,)
        divisors = ", ".join(str(count) for count in range(1, heads + 1) if heads % count == 0)
        return (Help(f"with {heads} heads, kv heads may be {divisors}"), even)


class HeadDimDiffers(Diagnostic):
    """Queries of another size than the keys they are compared with.

    What: a score is the inner product of a query and a key, so that both have the same size.
    Why it is bad: there is no such product.
    Example:
        layers 1-2 attend, heads 4 x 16
        layers 3-4 cross-attend to cache@2, heads 4 x 32
    Mended:
        layers 1-2 attend, heads 4 x 16
        layers 3-4 cross-attend to cache@2, heads 4 x 16
    """

    code = "E0303"
    facts: HeadsAndKeys

    def message(self) -> str:
        facts = self.facts
        return f"queries of head_dim {facts.head_dim} cannot be compared with keys of head_dim {facts.kv_head_dim}"

    def remark(self) -> str:
        facts = self.facts
        return f"head_dim {facts.head_dim if self.span == facts.heads_span else facts.kv_head_dim}"

    def labels(self) -> tuple[Label, ...]:
        facts = self.facts
        return facts.labels(
            self.span, f"queries have head_dim {facts.head_dim}", f"keys and values of head_dim {facts.kv_head_dim}"
        )

    def helps(self) -> tuple[Help, ...]:
        facts = self.facts
        return (
            Help(
                f"write `heads {facts.heads} x {facts.kv_head_dim}`, or `kv heads {facts.kv_heads} x {facts.head_dim}`"
            ),
        )


class OddRotation(Diagnostic):
    """RoPE over an odd number of dimensions.

    What: rotary embeddings turn pairs of dimensions.
    Why it is bad: one dimension would be left without a partner.
    Example:
        layers 1-4 attend, heads 4 x 15
    Mended:
        layers 1-4 attend, heads 4 x 16
    Source: arXiv 2104.09864, section 3.2.
    """

    code = "E0306"
    head_dim: int
    rotated: int

    def message(self) -> str:
        if self.rotated == self.head_dim:
            return f"rope rotates pairs of dimensions, but head_dim {self.head_dim} is odd"
        return f"rope rotates pairs of dimensions, but {self.rotated} of {self.head_dim} is not a positive even number"

    def helps(self) -> tuple[Help, ...]:
        return (Help("choose an even head_dim, or write `no rope`"),)


class WidthNotDivisible(Diagnostic):
    """`heads N` without a size, where N does not divide the width.

    What: `heads 4` without a size splits the width into 4 equal parts.
    Why it is bad: rounding would make a model of another size.
    Example: in a model of width 64
        layers 1-4 attend, heads 3
    Mended:
        layers 1-4 attend, heads 3 x 16
    """

    code = "E0307"
    heads: int
    width: int

    def message(self) -> str:
        return f"{self.heads} heads do not divide the width {self.width}"

    def helps(self) -> tuple[Help, ...]:
        size = self.width // self.heads
        state = Help(f"state the size: `heads {self.heads} x {max(2, size - size % 2)}`")
        if self.width > _MOST_HEADS:
            return (state,)
        counts = [count for count in range(1, self.width // 2 + 1) if self.width % (2 * count) == 0]
        near = sorted(sorted(counts, key=lambda count: abs(count - self.heads))[:4])
        shown = listing([f"heads {count}" for count in near]) if near else ""
        return (state, Help(f"or write {shown}, which divide{'' if len(near) > 1 else 's'} it")) if near else (state,)


class LacksSetting(Diagnostic):
    """A layer without heads or ffn, a cache without kv heads.

    What: `heads`, `kv heads` and `ffn` come from the statement or from the header; `no ffn` says that there is none.
    Why it is bad: a size made up by the compiler would be a model that nobody wrote.
    Example:
        model m {
          layers 4, width 64, vocab 100, heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    Mended:
        model m {
          layers 4, width 64, vocab 100, heads 4 x 16, rope 10000, ffn swiglu(128)
          layers 1-4 attend
        }
    """

    code = "E0308"
    who: str
    setting: str
    example: str
    others: tuple[Label, ...]

    def message(self) -> str:
        verb = "do" if self.who.startswith("layers") else "does"
        return f"{self.who} {verb} not say {self.setting}, nor does the header"

    def labels(self) -> tuple[Label, ...]:
        return self.others

    def helps(self) -> tuple[Help, ...]:
        return (Help(f"add for example `{self.example}` here or in the header"),)


class EmptyLayer(Diagnostic):
    """A layer with neither mixer nor ffn.

    What: `ffn-only` layers consist of their ffn.
    Why it is bad: the layer would do nothing, and the model is one layer shorter than it says.
    Example:
        layers 1-3 attend
        layers 4 ffn-only, no ffn
    Mended:
        layers 1-3 attend
        layers 4 ffn-only
    """

    code = "E0309"
    layers: str

    def message(self) -> str:
        return f"{self.layers} would do nothing: no mixer and no ffn"

    def helps(self) -> tuple[Help, ...]:
        return (Help("leave the layer out and lower the total"),)


class NoNormToShare(Diagnostic):
    """One norm for mixer and ffn where there is none before them.

    What: with `residual parallel-one-norm` mixer and ffn see the layer's input through the same norm; with `post norms`
    they see the input itself.
    Why it is bad: one of the two settings would do nothing, and which one is anybody's guess.
    Example:
        layers 1-4 attend, residual parallel-one-norm, post norms
    Mended:
        layers 1-4 attend, residual parallel, post norms
    """

    code = "E0311"
    layers: str
    placement: Span

    def message(self) -> str:
        return f"{self.layers}: mixer and ffn cannot share the norm before them, since there is none"

    def labels(self) -> tuple[Label, ...]:
        return (Label(self.placement, "norms stand behind mixer and ffn"),)

    def helps(self) -> tuple[Help, ...]:
        edit = Edit(self.span, "residual parallel")
        return (Help("write `residual parallel`: with post norms it is the same", edit), Help("or choose `pre norms`"))
