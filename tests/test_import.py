"""`import dynjax` is light, changes nothing, and offers what it promises."""

import subprocess
import sys

import pytest

import dynjax as dj

HEAVY = ("matplotlib", "xarray", "zarr", "tyro", "sklearn", "tqdm")


def _python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_import_loads_nothing_heavy_and_changes_no_setting():
    code = (
        "import jax; before = dict(jax.config.values); import sys, dynjax as dj; "
        "dj.hessian, dj.eigsh, dj.TrainingMap, dj.MLP, dj.sweep, dj.report, dj.data, dj.experiments; "
        f"print([m for m in {HEAVY!r} if m in sys.modules], dict(jax.config.values) == before)"
    )
    done = _python(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[] True"


def test_the_bare_import_does_not_even_load_jax():
    done = _python("import sys, dynjax; print('jax' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize("name", dj.__all__)
def test_every_public_name_has_a_docstring(name):
    value = getattr(dj, name)
    assert value.__doc__
    assert name in dir(dj)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dj.nothing


def test_the_lazy_table_and_the_type_checkers_view_agree():
    import ast
    import pathlib

    tree = ast.parse(pathlib.Path(dj.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {alias.asname for node in block.body for alias in node.names}
    assert seen == set(dj.__all__)
