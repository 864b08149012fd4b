"""What an editor asks about a spec, and the language server that answers (LSP 3.17).

`words`, `places`, `navigate`, `hover` and `complete` are editor-neutral: an analysis and an offset go in, plain values
come out. `convert`, `documents` and `server` speak the protocol; only they import pygls and lsprotocol.
"""
