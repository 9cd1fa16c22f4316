"""Saying what a conformance check found."""

__all__ = ["expect"]


def expect(holds: object, sentence: str) -> None:
    """Raise AssertionError with ``sentence`` unless ``holds``; unlike ``assert`` it also checks under ``python -O``."""
    if not holds:
        raise AssertionError(sentence)
