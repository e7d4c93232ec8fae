"""Durations as a person writes them: "90s", "15m", "1h30m", "2w". Imports nothing."""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# The longest that sshd_config(5), TIME FORMATS, can hold: an int of seconds.
LONGEST = 2**31 - 1


def seconds(text: str) -> int:
    """Return the seconds of a duration, the sum of its parts. Raises ValueError."""
    total, number = 0, ""
    for character in text:
        if character.isascii() and character.isdecimal():
            number += character
        elif not number or character not in UNITS or len(number) > len(str(LONGEST)):
            raise ValueError("no duration")
        else:
            total += int(number) * UNITS[character]
            number = ""
    if not text or number or total > LONGEST:
        raise ValueError("no duration")
    return total
