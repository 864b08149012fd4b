"""What all tests share."""

import os

from hypothesis import settings

# CI tries the same examples every time, so that a change is what makes it fail; elsewhere each run tries new ones.
settings.register_profile("ci", derandomize=True, print_blob=True)
if os.environ.get("CI"):
    settings.load_profile("ci")
