"""Errors of composition: other files, and models that extend others. E0039 to E0041."""

from archspec.compose.errors import guesses
from archspec.diagnostics import Diagnostic, Help


class CannotUse(Diagnostic):
    """A file that cannot be used.

    What: `use` names a text file by a path that starts from the file that says it, and that stays inside of the
    folder of the spec, links included.
    Why it is bad: a spec from elsewhere must not be able to look around on this machine, and without the file its
    numbers and templates are missing.
    Example:
        use "/usr/share/common.arch"
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    Mended:
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    """

    code = "E0039"
    path: str
    problem: str
    hint: str | None = None

    def message(self) -> str:
        return f"cannot use `{self.path}`: {self.problem}"

    def helps(self) -> tuple[Help, ...]:
        return () if self.hint is None else (Help(self.hint),)


class UnknownBase(Diagnostic):
    """A model that extends one that is not there.

    What: the model behind `extends` stands above in the same file, or in a file that it uses.
    Why it is bad: everything that the model does not say itself is missing.
    Example:
        model a {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
        model b extends a {
          layers 3-4 attend, window 16
        }
        model c extends bb {
          vocab 200
        }
    Mended:
        model a {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
        model b extends a {
          layers 3-4 attend, window 16
        }
        model c extends b {
          vocab 200
        }
    """

    code = "E0040"
    word: str
    known: tuple[str, ...]

    def message(self) -> str:
        return f"there is no model `{self.word}` to extend"

    def helps(self) -> tuple[Help, ...]:
        return guesses(self.span, self.word, self.known)


class NothingToRemove(Diagnostic):
    """Something is taken away that is not there.

    What: `no layers 3-4`, `no cache@4`, `no iterate` and `no prefill exit` take away what the model would have from
    the one that it extends.
    Why it is bad: what was meant is still in the model.
    Example:
        model a {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
        model b extends a {
          no iterate
        }
    Mended:
        model a {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
        model b extends a {
          vocab 200
        }
    """

    code = "E0041"
    what: str
    base: str | None
    there: tuple[str, ...] = ()

    def message(self) -> str:
        if self.base is None:
            return f"`{self.what}` takes nothing away: this model extends no other"
        return f"`{self.what}` takes nothing away: `{self.base}` has none"

    def helps(self) -> tuple[Help, ...]:
        if self.base is None:
            return (Help("leave it out; `model b extends a { ... }` starts from another model"),)
        return (Help(f"`{self.base}` has {', '.join(self.there)}"),) if self.there else (Help("leave it out"),)
