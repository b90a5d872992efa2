from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from gillnet.core.errors import ModelError
from gillnet.serving import ModelRegistry, registry

from .conftest import SIGNATURE


@pytest.fixture
def packaged(tmp_path, monkeypatch, model_path):
    """A package that ships fraud@1 as its champion."""
    place = tmp_path / "package"
    (place / "models" / "fraud" / "1").mkdir(parents=True)
    shutil.copy(model_path, place / "models" / "fraud" / "1" / "model.ubj")
    (place / "models" / "fraud" / "aliases.json").write_text('{"champion": 1}')
    monkeypatch.setattr(registry.importlib.resources, "files", lambda _: place)
    return place / "models"


@pytest.fixture
def models(tmp_path, packaged):
    return ModelRegistry(tmp_path / "models")


def refusal(function, *args, **kwargs) -> str:
    with pytest.raises(ModelError) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_packaged_champion_is_found_without_a_registry_of_ones_own(packaged):
    model = ModelRegistry().load("fraud@champion")
    assert (model.name, model.version, model.label) == ("fraud", 1, "fraud@1")
    assert model.path == packaged / "fraud" / "1" / "model.ubj"
    assert ModelRegistry().load("fraud") == model


def test_versions_go_on_above_the_packaged_ones(models, booster, tmp_path):
    assert models.publish(booster, "fraud", signature=SIGNATURE, metadata={"day": 3}) == 2
    assert models.publish(booster, "fraud", signature=SIGNATURE) == 3
    assert models.publish(booster, "bots", signature=SIGNATURE) == 1
    assert models.versions("fraud") == [1, 2, 3]
    assert models.names() == ["bots", "fraud"]
    assert models.load("fraud@2").metadata == {"day": 3}
    # Publishing moves no alias.
    assert models.load("fraud@champion").version == 1


def test_an_alias_moves_and_wins_over_the_packages(models, booster):
    models.publish(booster, "fraud", signature=SIGNATURE)
    models.set_alias("fraud", "champion", 2)
    models.set_alias("fraud", "fallback", 1)
    assert models.aliases("fraud") == {"champion": 2, "fallback": 1}
    assert models.load("fraud@champion").version == 2
    assert models.load("fraud@fallback").version == 1
    models.set_alias("fraud", "champion", 1)
    assert models.load("fraud").version == 1


def test_a_path_is_a_reference_too(models, model_path):
    assert models.load(str(model_path)).path == model_path


def test_what_is_not_there_is_refused_with_what_is(models, booster):
    assert "Of 'fraud' there are: 1, champion." in refusal(models.load, "fraud@challenger")
    assert "Of 'fraud' there are: 1, champion." in refusal(models.load, "fraud@9")
    assert "Known models: fraud." in refusal(models.load, "froud")
    models.publish(booster, "bots", signature=SIGNATURE)
    assert "there are: 1." in refusal(models.load, "bots")
    assert "there are: 1" in refusal(models.set_alias, "bots", "champion", 4)


@pytest.mark.parametrize("name", ["", "..", "../fraud", "/etc", "Fraud", "a/b", ".hidden", "a" * 65, "a\n"])
def test_names_that_could_leave_the_registry_are_refused(models, booster, name):
    assert "not valid" in refusal(models.resolve, f"{name}@1")
    assert "not valid" in refusal(models.publish, booster, name, signature=SIGNATURE)
    assert "not valid" in refusal(models.set_alias, "fraud", name, 1)


def test_an_alias_that_reads_as_a_version_is_refused(models):
    assert "would read as a version" in refusal(models.set_alias, "fraud", "7", 1)


def test_a_failed_publish_leaves_nothing_behind(models, booster, tmp_path):
    refusal(models.publish, booster, "fraud", signature=SIGNATURE[:2])
    assert [entry.name for entry in (tmp_path / "models" / "fraud").iterdir()] == [".lock"]
    assert models.versions("fraud") == [1]


def test_publishing_at_once_gives_every_model_its_own_version(models, booster):
    with ThreadPoolExecutor(4) as pool:
        versions = list(pool.map(lambda _: models.publish(booster, "fraud", signature=SIGNATURE), range(8)))
    assert sorted(versions) == list(range(2, 10))


def test_a_broken_aliases_file_is_refused(models, booster, tmp_path):
    models.publish(booster, "fraud", signature=SIGNATURE)
    for text in ("{", "[1]", '{"champion": "x"}'):
        (tmp_path / "models" / "fraud" / "aliases.json").write_text(text)
        assert "aliases.json is broken" in refusal(models.load, "fraud@champion")


def test_a_registry_without_a_directory_or_without_rights_cannot_be_written(booster, tmp_path):
    assert "give ModelRegistry a directory" in refusal(ModelRegistry().publish, booster, "fraud", signature=SIGNATURE)
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(ModelRegistry(tmp_path / "file").publish, booster, "x", signature=SIGNATURE)
