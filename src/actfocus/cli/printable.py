"""Text that cannot command the terminal."""


def printable(text: str, *, lines: bool = False) -> str:
    """`text` with all but printable characters escaped, and but for newlines too if it has `lines`."""
    return "".join(c if c.isprintable() or (lines and c == "\n") else ascii(c)[1:-1] for c in text)
