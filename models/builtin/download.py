"""Fetches the packages that ``sources.tsv`` allows, with ``apt-get download`` and ``pip download``.

    python models/builtin/download.py CORPUS

``CORPUS/packages`` gets the files. A version that the distribution no longer has is replaced by its present one, whose
copyright file must then be read again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from corpus import HERE, read_tsv

AT_ONCE = 20  # packages a call
PYTHON = "pypi-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    folder = parser.parse_args().corpus / "packages"
    folder.mkdir(parents=True, exist_ok=True)
    present = {file.name.split("_")[0] for file in folder.glob("*.deb")}
    rows = [row for row in read_tsv(HERE / "sources.tsv") if row["verdict"] != "leave"]
    debian = [row for row in rows if not row["package"].startswith(PYTHON) and row["package"] not in present]
    for start in range(0, len(debian), AT_ONCE):
        part = debian[start : start + AT_ONCE]
        exact = [f"{row['package']}={row['version']}" for row in part]
        if subprocess.run(["apt-get", "-qq", "download", *exact], cwd=folder, check=False).returncode:
            for row in part:
                subprocess.run(["apt-get", "-qq", "download", row["package"]], cwd=folder, check=False)
    for row in rows:
        if row["package"].startswith(PYTHON) and not list(folder.glob(f"{row['package'][len(PYTHON) :]}-*.whl")):
            name = f"{row['package'][len(PYTHON) :]}=={row['version']}"
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", name]
            subprocess.run(command, cwd=folder, check=False)
    print(f"{len(list(folder.iterdir()))} packages")


if __name__ == "__main__":
    main()
