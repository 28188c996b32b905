"""Thin shells: a message comes, a pure function decides, messages go."""
