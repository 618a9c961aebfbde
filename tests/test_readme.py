"""The README's examples run, in order, in one namespace; its two command lines are complete."""

import importlib.util
import pathlib
import re
import shlex

import pytest

import dynjax.cli

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _blocks(kind):
    return re.findall(rf"^```{kind}\n(.*?)^```", README, re.M | re.S)


def test_the_examples_run_in_order(capsys):
    namespace = {}
    for block in _blocks("python"):
        exec(compile(block, "README.md", "exec"), namespace)
    assert "EigenResult" in capsys.readouterr().out
    assert 0 < float(namespace["track"].edge_ratio) < 10
    assert float(namespace["track"].residual) >= 0


def test_both_command_lines_make_their_own_environment():
    first, second = (block.strip() for block in _blocks("bash")[:2])
    assert first.startswith("python3 -m venv .venv && .venv/bin/python -m pip install")
    assert first.endswith(".venv/bin/dynjax demo --out demo")
    assert second.endswith("-m pytest")


@pytest.mark.parametrize(
    "line", [line for block in _blocks("bash")[2:] for line in block.splitlines() if line.startswith("dynjax edge")]
)
def test_the_command_lines_of_the_examples_parse(line, monkeypatch):
    seen = []
    monkeypatch.setattr(dynjax.cli, "_sweep", lambda *given: seen.append(given) or 0)
    assert dynjax.cli.main(shlex.split(line)[1:]) == 0
    assert seen[0][0] == "edge-of-stability"


def test_every_linked_file_exists():
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_table_of_ratios_is_that_of_the_results():
    """Remade by `benchmarks/run.py --table`."""
    script = ROOT / "benchmarks" / "run.py"
    specification = importlib.util.spec_from_file_location("run_benchmarks", script)
    run = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(run)
    assert run.replaced(README) == README
