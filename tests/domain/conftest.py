"""Property tests are bounded by their number of examples, not by a clock: other work may share the machine."""

from hypothesis import settings

settings.register_profile("domain", deadline=None, print_blob=True)
settings.load_profile("domain")
