"""Text that cannot command the terminal."""


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with its control characters escaped; `lines` keeps newlines."""
    return "".join(c if c.isprintable() or (lines and c == "\n") else ascii(c)[1:-1] for c in text)
