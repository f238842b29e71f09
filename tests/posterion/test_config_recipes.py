from __future__ import annotations

from pathlib import Path

import pytest

from posterion import NotFoundError
from posterion.config import find_app, find_recipe, list_recipes, outline, recipes_dir
from posterion.tasks import load_recipe

ROOT = Path(__file__).resolve().parents[2]


def test_recipes_of_the_checkout_are_found_by_name() -> None:
    assert recipes_dir() == ROOT / "jobs" / "recipes"
    assert find_recipe("sentiment/vader") == ROOT / "jobs" / "recipes" / "sentiment" / "vader.yaml"
    assert find_recipe("sentiment/vader.yaml") == find_recipe("sentiment/vader")
    assert find_app("sentiment") == ROOT / "serve" / "apps" / "sentiment.yaml"


def test_recipe_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# About this.\njob: finetune\ntask: {kind: regression}\n")
    assert find_recipe(str(path)) == path
    monkeypatch.chdir(tmp_path)
    assert find_recipe("mine.yaml") == Path("mine.yaml")
    assert outline(path) == {"job": "finetune", "task": "regression", "about": "About this."}


@pytest.mark.parametrize("name", ["vader", "sentimen/vader", "vadr", "sentiment-vader"])
def test_near_recipes_are_named(name: str) -> None:
    with pytest.raises(NotFoundError, match="Did you mean 'sentiment/vader'"):
        find_recipe(name)


def test_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="is a folder"):
        find_recipe(str(tmp_path))


def test_broken_recipe_is_listed_with_its_fault(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("a: [")
    assert "not valid YAML" in outline(path)["about"]


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_that_come_along_are_right(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTERION_DATA", "/data")
    recipe = load_recipe(find_recipe(name))
    assert recipe.registry is not None
    assert outline(find_recipe(name))["about"]
