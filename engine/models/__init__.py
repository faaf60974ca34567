"""Model bundles: what they are, how they are made, and how they run."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.models.bundle import Bundle
    from engine.models.packaging import package

__all__ = ["Bundle", "package"]


def __getattr__(name: str) -> object:
    """The public names, imported when asked for: whoever needs a signature does not pay for the converters."""
    if name == "Bundle":
        from engine.models.bundle import Bundle

        return Bundle
    if name == "package":
        from engine.models.packaging import package

        return package
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
