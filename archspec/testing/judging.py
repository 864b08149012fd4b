"""Whatever becomes of a text: findings with places inside it, or a plan; never an exception."""

from archspec.driver import Analysis, analyse_text
from archspec.render import render_text, to_json


def judged(text: str) -> Analysis:
    """Check `text`, render all findings in every form, and plan it if it is clean.

    Errors: AssertionError for a finding outside the text, an error that is not rendered, a clean text without a plan;
    and whatever the checker raises, which it never should.
    """
    analysis = analyse_text(text)
    rendered = render_text(analysis.diagnostics)
    assert bool(rendered) == bool(analysis.diagnostics), "findings that are not shown"
    for item in to_json(analysis.diagnostics):
        edits = [help_["edit"] for help_ in item["helps"] if "edit" in help_]
        for part in [item, *item["labels"], *edits]:
            start, end = part["span"]["start"]["offset"], part["span"]["end"]["offset"]
            assert 0 <= start <= end <= len(text), f"{item['code']} points outside the text"
    if analysis.has_spec:
        assert analysis.plan().num_parameters() > 0
    return analysis
