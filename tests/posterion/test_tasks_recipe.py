import json

import pytest

from posterion import ArtifactError, ConfigError
from posterion.config import FinetuneRecipe, json_schema
from posterion.tasks import load_recipe, parse_recipe, read_task_model, recipe_models, task_classes
from posterion.tasks.regression import RegressionOptions

REST = {"job": "finetune", "data": {"source": "path:x.csv"}, "model": {"source": "path:encoder"}}


def test_discovery_finds_the_tasks_of_this_package():
    assert {"regression", "classification", "readability"} <= set(task_classes())
    for kind, task_class in task_classes().items():
        assert task_class.kind == kind
        assert task_class.Options(kind=kind).kind == kind


def test_a_task_may_be_a_name_or_a_mapping():
    by_name = parse_recipe({**REST, "task": "regression"})
    assert by_name.task == RegressionOptions()
    assert isinstance(by_name, FinetuneRecipe)
    mapping = {"kind": "regression", "likelihood": "squared_error"}
    assert parse_recipe({**REST, "task": mapping}).task.likelihood == "squared_error"


def test_recipe_survives_json():
    recipe = parse_recipe({**REST, "task": {"kind": "classification", "labels": ["a", "b"]}})
    assert parse_recipe(json.loads(json.dumps(recipe.model_dump(mode="json")))) == recipe


def test_recipe_from_a_file_with_overrides(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(
        "job: finetune\ntask: {kind: regression, target: score}\n"
        "data: {source: 'path:x.csv'}\nmodel: {source: 'path:encoder'}\n"
    )
    recipe = load_recipe(path, ["task.text=body", "optimization.epochs=1"])
    assert recipe.task.target == "score"
    assert recipe.task.text == "body"
    assert recipe.optimization.epochs == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "regresion"}, "regression"),
        ({"task": {"kind": "regression", "txt": "body"}}, "text"),
        ({"task": {"kind": "regression", "likelihood": "cauchy"}}, "gaussian"),
        ({"evaluation": {"metric": "rsme"}}, "'rmse'"),
        ({"evaluation": {"metric": "accuracy"}}, "not reported by the task regression"),
        ({"trust": {"calibration": "temperature"}}, "auto, none or conformal"),
    ],
)
def test_mistakes_are_told_with_what_is_right(change, message):
    with pytest.raises(ConfigError, match=message):
        parse_recipe({**REST, "task": "regression", **change})


def test_schema_lists_every_tasks_options():
    text = json.dumps(json_schema(recipe_models()))
    for task_class in task_classes().values():
        assert task_class.Options.__name__ in text
    assert "standard error of the target" in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no model folder of Posterion"),
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": 2}', "reads format 1"),
        ('{"format": 1, "task": {"options": {"kind": "dance"}, "state": {}}}', "damaged"),
    ],
)
def test_damaged_settings_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "posterion.json").write_text(content)
    with pytest.raises(ArtifactError, match=message):
        read_task_model(tmp_path)
