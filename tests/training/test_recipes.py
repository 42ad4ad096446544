from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from ast_cli.errors import UsageError
from ast_cli.training.options import TrainOptions, settings
from ast_cli.training.recipes import options_of, read_recipe, recipe_names, to_toml


def test_the_recipes_of_the_original_project_have_its_settings() -> None:
    audioset, esc50, speech = (options_of(name) for name in ("audioset", "esc50", "speech-commands"))
    assert audioset.fixed_statistics() == (-4.2677393, 4.5689974)
    assert esc50.fixed_statistics() == (-6.6268077, 5.358466)
    assert speech.fixed_statistics() == (-6.845978, 5.5654526)
    assert [each.max_length for each in (audioset, esc50, speech)] == [1024, 512, 128]
    assert [each.learning_rate for each in (audioset, esc50, speech)] == [1e-5, 1e-5, 2.5e-4]
    assert [each.loss for each in (audioset, esc50, speech)] == ["bce", "cross-entropy", "bce"]
    assert [(each.frequency_mask, each.time_mask) for each in (audioset, esc50, speech)] == [
        (48, 192),
        (24, 96),
        (48, 48),
    ]
    assert [each.mixup for each in (audioset, esc50, speech)] == [0.5, 0.0, 0.6]
    assert [(each.epochs, each.batch_size) for each in (audioset, esc50, speech)] == [(5, 12), (25, 48), (30, 128)]
    assert audioset.balanced
    assert audioset.average == "epochs"
    assert speech.noise > 0


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_can_be_written_and_read_again(name: str, tmp_path: Path) -> None:
    options = options_of(name)
    file = tmp_path / "again.toml"
    file.write_text(to_toml(options))
    assert options_of(file) == options
    assert tomllib.loads(file.read_text()).keys() == {
        key for key, value in options.to_dict().items() if value is not None
    }


def test_flags_override_a_recipe() -> None:
    options = options_of("esc50", {"epochs": 3, "normalize": "data"})
    assert (options.epochs, options.normalize, options.time_mask) == (3, "data", 96)


def test_the_setting_names_of_version_0_1_are_still_read(tmp_path: Path) -> None:
    older = tmp_path / "older.toml"
    older.write_text("normalise = 'data'\noptimiser = 'muon'\naccumulate = 4\nvalidation_share = 0.2\n")
    options = options_of(older)
    assert (options.normalize, options.optimizer) == ("data", "muon")
    assert (options.gradient_accumulation, options.validation_fraction) == (4, 0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "there is no setting 'epoch'; there are loss, "),
        ("epochs = 0", "epochs must be from 1 to 1e\\+06, not 0"),
        ("epochs = 1.5", "epochs must be a whole number, not 1.5"),
        ("epochs = true", "epochs must be a whole number, not True"),
        ("mixup = nan", "mixup must be from 0 to 1, not nan"),
        ("balanced = 1", "balanced must be true or false, not 1"),
        ("schedule = 'linear'", "schedule must be one of cosine, step, constant, not 'linear'"),
        ("normalize = [1.0]", "--normalize must be base, data, or two numbers"),
        ("normalize = [1.0, 0.0]", "--normalize must be base, data, or two numbers"),
        ("keep = 'average'", "--keep average needs an average"),
        ("average = 'epochs'\naverage_start = 25", "--average-start must be below --epochs"),
        ("epochs =", "not valid TOML"),
        ("[training]\nepochs = 3", "there is no setting 'training'"),
    ],
)
def test_an_invalid_recipe_is_refused_with_its_name(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=rf"^recipe .*mine\.toml: {message}"):
        read_recipe(file)


def test_a_missing_or_unreadable_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match="there is no recipe 'esc-50': use audioset, default, esc50, scratch, speech-com"
    ):
        read_recipe("esc-50")
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path / "no.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_recipe(tmp_path / "binary.toml")


def test_every_setting_has_help_and_a_default_within_its_range() -> None:
    defaults = TrainOptions()
    for name, setting in settings().items():
        assert setting.about.help.endswith((".", "]")), name
        setting.check(name, getattr(defaults, name))
