"""Execute the notebooks: their py:percent sources are what is edited, the .ipynb files beside them are made here.

python notebooks/execute.py            # full sizes, rewrites the .ipynb files
python notebooks/execute.py --small    # small sizes, writes nothing: what CI runs
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

import jupytext
import nbclient
import nbformat

HERE = pathlib.Path(__file__).parent


def execute(source: pathlib.Path, *, small: bool, timeout: int = 1200) -> None:
    """Run one notebook in a scratch directory and, in full size, save it beside its source."""
    notebook = jupytext.read(source)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    os.environ["DYNJAX_SMALL"] = "1" if small else "0"
    with tempfile.TemporaryDirectory() as scratch:
        client = nbclient.NotebookClient(
            notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": scratch}}
        )
        client.execute()
    if small:
        return
    for cell in notebook.cells:  # no machine- or time-dependent noise in the stored file
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("jupytext", None)
    nbformat.write(notebook, source.with_suffix(".ipynb"))


def main() -> int:
    """Execute the sources named on the command line, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="*", type=pathlib.Path)
    parser.add_argument("--small", action="store_true", help="small sizes, write nothing")
    options = parser.parse_args()
    sources = options.sources or sorted(HERE.glob("[0-9]*.py"))
    for source in sources:
        start = time.perf_counter()
        execute(source, small=options.small)
        print(f"{source.name}: {time.perf_counter() - start:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
