"""Many settings of one spec: `let`s take several values each, and every combination is planned and measured."""
