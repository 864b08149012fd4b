"""A name that cannot be given."""

from archspec.diagnostics import Diagnostic


class ReservedName(Diagnostic):
    """A number or a template with the name of something else.

    What: words of the language, and mixers, are no names for a `let` or a `define`.
    Why it is bad: `layers 1-4 attend` would no longer say what it says everywhere else.
    Example:
        let window = 16
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend
        }
    Mended:
        let W = 16
        model m {
          layers 4, width 64, vocab 100, ffn swiglu(128), heads 4 x 16, rope 10000
          layers 1-4 attend, window W
        }
    """

    code = "E0031"
    word: str
    what: str
    """`number` or `template`."""

    def message(self) -> str:
        return f"`{self.word}` is a word of the language and cannot name a {self.what}"
