"""Print one of the README's two command lines (`demo` or `test`), so that CI runs what users read."""

import pathlib
import re
import sys

README = pathlib.Path(__file__).parents[1] / "README.md"


def command(which: str) -> str:
    """The first shell line of the README that holds the wanted word."""
    needle = {"demo": "dynjax demo", "test": "-m pytest"}[which]
    blocks = re.findall(r"^```(?:bash|sh|shell)\n(.*?)^```", README.read_text(encoding="utf-8"), re.M | re.S)
    for block in blocks:
        for line in block.splitlines():
            if needle in line:
                return line.strip()
    raise SystemExit(f"README.md has no shell line with `{needle}`.")


if __name__ == "__main__":
    print(command(sys.argv[1]))
