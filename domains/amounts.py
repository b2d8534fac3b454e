"""Formats amounts for people. Facts and fields keep the exact numbers."""

_UNITS = ("KiB", "MiB", "GiB", "TiB")
_TIMES = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def bytes_told(count: float) -> str:
    """Format a number of bytes: `17 B`, `1.5 GiB`, with one decimal from KiB on."""
    size, unit = float(count), "B"
    for larger in _UNITS:
        # A value that would round to 1024.0 uses the next unit.
        if abs(size) < (1023.95 if unit != "B" else 1024):
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def compared(*counts: int) -> tuple[str, ...]:
    """Format amounts of bytes that are shown together; exact if different amounts would look the same."""
    told = tuple(map(bytes_told, counts))
    if len(set(told)) < len(set(counts)):
        return tuple(f"{count:,} bytes" for count in counts)
    return told


def time_told(seconds: float) -> str:
    """Format a duration: `12.0 s`, `1.5 h`, `8.0 d`, with one decimal."""
    size, unit = next(((size, unit) for size, unit in _TIMES if seconds >= size), (1.0, "s"))
    return f"{seconds / size:,.1f} {unit}"
