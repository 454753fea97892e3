"""Jane Austen's six novels as plain text, from Debian's package r-cran-janeaustenr.

The novels are in the public domain; the package (https://cran.r-project.org/package=janeaustenr, MIT licence) took them
from Project Gutenberg. Its data is a database of R, which is read here without R.
"""

import gzip
import re
import struct
import subprocess
import tempfile
import zlib
from pathlib import Path

PACKAGE = "r-cran-janeaustenr"
DATABASE = "usr/lib/R/site-library/janeaustenr/data/Rdata"
NOVELS = ["sensesensibility", "prideprejudice", "mansfieldpark", "emma", "northangerabbey", "persuasion"]
# The end of each novel is kept for validation.
VALIDATION_SHARE = 0.05


class RObject:
    """Reads what R's `serialize` wrote: vectors of strings and numbers, lists and their attributes."""

    NIL, PAIRS, CHARACTERS, LOGICALS, INTEGERS, STRINGS, LIST, NIL_VALUE = 0, 2, 9, 10, 13, 16, 19, 254
    SYMBOL, REFERENCE = 1, 255

    def __init__(self, data):
        self.data, self.at, self.symbols = data, 0, []
        if data[:2] != b"X\n":
            raise ValueError("not R's serialization in its binary form")
        self.at = 2
        version, _, _ = self.integers(3)
        if version == 3:
            (length,) = self.integers(1)
            self.at += length

    def integers(self, count):
        values = struct.unpack_from(f">{count}i", self.data, self.at)
        self.at += 4 * count
        return values

    def read(self):
        (flags,) = self.integers(1)
        kind, has_attributes, has_tag = flags & 255, flags & 512, flags & 1024
        if kind in (self.NIL, self.NIL_VALUE):
            return None
        if kind == self.SYMBOL:
            self.symbols.append(self.read())
            return self.symbols[-1]
        if kind == self.REFERENCE:
            return self.symbols[(flags >> 8) - 1]
        if kind == self.PAIRS:
            return self.pairs(has_attributes, has_tag)
        value = self.vector(kind)
        if has_attributes and kind != self.CHARACTERS:
            attributes = self.read()
            if kind == self.LIST:
                return dict(zip(attributes["names"], value))
        return value

    def pairs(self, has_attributes, has_tag):
        if has_attributes:
            self.read()
        tag = self.read() if has_tag else None
        first = {tag: self.read()}
        return first | (self.read() or {})

    def vector(self, kind):
        (length,) = self.integers(1)
        if kind == self.CHARACTERS:
            if length < 0:
                return None
            self.at += length
            return self.data[self.at - length : self.at].decode("utf-8")
        if kind in (self.INTEGERS, self.LOGICALS):
            return list(self.integers(length))
        if kind in (self.STRINGS, self.LIST):
            return [self.read() for _ in range(length)]
        raise ValueError(f"R objects of type {kind} are not expected here")


def unpacked(folder):
    subprocess.run(["apt-get", "download", PACKAGE], cwd=folder, check=True, capture_output=True)
    (package,) = Path(folder).glob(f"{PACKAGE}_*.deb")
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    return Path(folder) / DATABASE


def paragraphs(lines):
    text = re.sub(r"_", "", "\n".join(lines))
    blocks = (re.sub(r"\s+", " ", block).strip() for block in re.split(r"\n\s*\n", text))
    return [block for block in blocks if block]


def novels():
    """Lists of paragraphs, by the novels' names."""
    with tempfile.TemporaryDirectory() as folder:
        database = unpacked(folder)
        index = RObject(gzip.decompress(database.with_suffix(".rdx").read_bytes())).read()["variables"]
        data = database.with_suffix(".rdb").read_bytes()
    result = {}
    for name in NOVELS:
        start, length = index[name]
        # The uncompressed length comes first.
        result[name] = paragraphs(RObject(zlib.decompress(data[start + 4 : start + length])).read())
    return result


def training_and_validation():
    """Two texts."""
    parts = ([], [])
    for blocks in novels().values():
        cut = int(len(blocks) * (1 - VALIDATION_SHARE))
        parts[0].append("\n\n".join(blocks[:cut]))
        parts[1].append("\n\n".join(blocks[cut:]))
    return tuple("\n\n".join(part) for part in parts)


if __name__ == "__main__":
    for name, blocks in novels().items():
        print(f"{name}: {len(blocks)} paragraphs, {sum(map(len, blocks))} characters")
