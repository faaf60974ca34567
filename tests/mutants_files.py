"""Files that are nearly right: with some bytes, digits or pieces of text changed."""

import io
import random
import zipfile


def mutant(data: bytes, chance: random.Random) -> bytes:
    """The file with 1 to 20 changes; of an archive, half of the time one of its members changed and packed again."""
    if data[:2] == b"PK" and chance.random() < 0.5:
        return _repacked(data, chance)
    made = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        place = chance.randrange(len(made))
        kind = chance.randrange(5)
        if kind == 0:
            made[place] = chance.randrange(256)
        elif kind == 1:
            made[place] ^= 1 << chance.randrange(8)
        elif kind == 2:
            del made[place : place + chance.randrange(1, 40)]
        elif kind == 3:
            made[place:place] = made[place : place + chance.randrange(1, 40)]
        else:
            digits = [at for at in range(place, min(place + 200, len(made))) if 48 <= made[at] <= 57]
            if digits:
                made[digits[0]] = chance.choice(b"0123456789-")
        if not made:
            return b""
    return bytes(made)


def _repacked(data: bytes, chance: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(out, "w") as made:
        names = given.namelist()
        changed = chance.choice(names)
        for name in names:
            held = given.read(name)
            made.writestr(name, mutant(held, chance) if name == changed and held else held)
    return out.getvalue()
