"""Figures about the code itself: lengths, names, forms, and words that the glossary replaces."""
