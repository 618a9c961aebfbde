"""The configuration: what cannot work is said at once, and TOML goes round."""

import dataclasses

import pytest

from dynjax.experiments import config_from_toml, config_to_toml
from dynjax.experiments.edge_of_stability import Config


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"learning_rates": ()}, "`learning_rates` must hold at least one"),
        ({"learning_rates": (0.1, -0.2)}, "`learning_rates` must be positive and finite"),
        ({"learning_rates": (float("nan"),)}, "`learning_rates` must be positive and finite"),
        ({"learning_rates": (0.1, 0.1)}, "hold no rate twice"),
        ({"seeds": ()}, "`seeds` must hold at least one"),
        ({"seeds": (-1,)}, "`seeds` must lie in"),
        ({"seeds": (3, 3)}, "hold no seed twice"),
        ({"num_steps": 0}, "`num_steps` must be positive"),
        ({"num_steps": 100, "sharpness_every": 30}, "30 does not divide 100"),
        ({"optimizer": "lbfgs"}, "`optimizer` must be one of gd"),
        ({"precision": "float16"}, "`precision` must be float32 or float64"),
        ({"momentum": 1.0}, "`momentum` must lie in"),
        ({"density_order": 1}, "`density_order` must be at least 2"),
        ({"divergence": 0.5}, "`divergence` must exceed 1"),
        ({"batch_size": 0}, "`batch_size` must be positive"),
    ],
)
def test_impossible_settings_are_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence) as info:
        Config(**changes)
    assert len(str(info.value).splitlines()) == 1


@pytest.mark.parametrize(("num_steps", "interval"), [(2000, 20), (20_000, 200), (50, 1), (1, 1), (990, 10)])
def test_about_a_hundred_readings_are_taken_by_default(num_steps, interval):
    config = Config(num_steps=num_steps)
    assert config.reading_interval == interval
    assert num_steps % config.reading_interval == 0
    assert config.num_readings % config.segment_readings == 0


def test_toml_goes_round(tmp_path):
    config = Config(
        task="chebyshev", learning_rates=(0.1, 1.0), seeds=(3, 4), widths=(7,), batch_size=5, activation="relu"
    )
    path = tmp_path / "run.toml"
    path.write_text(config_to_toml(config))
    assert config_from_toml(Config, path) == config
    assert config_from_toml(Config, None) == Config()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("nonsense", "be a TOML file"),
        ("rates = [0.1]", "names rates"),
        ("learning_rates = 0.1", "`learning_rates` must be a list"),
        ('seeds = ["a"]', "`seeds` must be an integer"),
        ("num_steps = 1.5", "`num_steps` must be an integer"),
        ("task = 3", "`task` must be a string"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path, text, sentence):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        config_from_toml(Config, path)
    with pytest.raises(ValueError, match="readable file"):
        config_from_toml(Config, tmp_path / "missing.toml")


def test_flags_in_toml_may_be_written_with_hyphens(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("learning-rates = [1, 2]\nnum-steps = 10\n")
    assert config_from_toml(Config, path) == dataclasses.replace(Config(), learning_rates=(1.0, 2.0), num_steps=10)
