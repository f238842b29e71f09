from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from posterion import ConfigError, Problem
from posterion.config import (
    EngineSection,
    FinetuneRecipe,
    LastLayersPooling,
    Section,
    did_you_mean,
    dump_yaml,
    fingerprint,
    json_schema,
    load,
    nearest,
    parse,
)

MINIMAL = """\
job: finetune
task: regression
data:
  source: path:table.csv
model: {source: "path:encoder"}
"""


class Circle(Section):
    kind: Literal["circle"] = "circle"
    radius: Annotated[float, Field(gt=0)]


class Square(Section):
    kind: Literal["square"] = "square"
    side: Annotated[float, Field(gt=0)]
    corners: Literal["round", "sharp"] = "sharp"


class Drawing(Section):
    shorthands = {"shape": "kind"}

    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    title: str = ""
    size: tuple[int, int] = (1, 1)
    layers: list[Square] = []
    names: dict[str, str] = {}
    width: int | str = 1


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "file.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def problems(path: Path, model: type[Section] = FinetuneRecipe, *overrides: str) -> list[Problem]:
    with pytest.raises(ConfigError) as caught:
        load(model, path, overrides=overrides)
    for problem in caught.value.problems:
        assert "\n" not in str(problem)
    return list(caught.value.problems)


def test_minimal_recipe_gets_every_default(tmp_path: Path) -> None:
    recipe = load(FinetuneRecipe, write(tmp_path, MINIMAL))
    assert recipe.task.kind == "regression"
    assert recipe.data.source == "path:table.csv"
    assert recipe.trust.coverage == 0.9


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("5e-5", 5e-5),
        ("5.0e-5", 5e-5),
        ("1E-3", 1e-3),
        (".5", 0.5),
        ("+0.25", 0.25),
        ('"1e-3"', 1e-3),
    ],
)
def test_numbers_as_people_write_them(tmp_path: Path, written: str, value: float) -> None:
    text = MINIMAL + f"optimization: {{learning_rate: {written}}}\n"
    assert load(FinetuneRecipe, write(tmp_path, text)).optimization.learning_rate == value


@pytest.mark.parametrize("word", ["no", "on", "off", "2024-01-31", "12:30:45", "5e", "0b1"])
def test_words_stay_words(tmp_path: Path, word: str) -> None:
    path = write(tmp_path, f"shape: {{kind: circle, radius: 1}}\ntitle: {word}\n")
    assert load(Drawing, path).title == word


def test_all_problems_at_once_each_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\
job: finetun
task: regression
learning_rate: 3
data:
  source: "path:${POSTERION_UNSET_VARIABLE}/a.csv"
  validation: {kfold: 5, fold: 9}
  test: 5
model:
  source: path:encoder
  pooling: attentoin
  dropout: 1.5
optimization:
  learnig_rate: 5.0e-5
  epochs: ten
  betas: [0.9]
engine: {workers: 2.5}
""",
    )
    found = {(p.source.rpartition(":")[2], p.location): p.message for p in problems(path)}
    assert list(found) == [
        ("1", "job"),
        ("3", "learning_rate"),
        ("5", "data.source"),
        ("6", "data.validation"),
        ("7", "data.test"),
        ("10", "model.pooling"),
        ("11", "model.dropout"),
        ("13", "optimization.learnig_rate"),
        ("14", "optimization.epochs"),
        ("15", "optimization.betas.1"),
        ("16", "engine.workers"),
    ]
    assert "Did you mean 'finetune'?" in found["1", "job"]
    assert "Did you mean 'optimization.learning_rate'?" in found["3", "learning_rate"]
    assert "POSTERION_UNSET_VARIABLE is not set" in found["5", "data.source"]
    assert "no fold 9" in found["6", "data.validation"]
    assert found["7", "data.test"].startswith("5 is not allowed; expected null (nothing), or a")
    assert "Did you mean 'attention'?" in found["10", "model.pooling"]
    assert "weighted_layers" in found["10", "model.pooling"]
    assert "1.5" in found["11", "model.dropout"]
    assert "at least 0 and less than 1" in found["11", "model.dropout"]
    assert "Did you mean 'learning_rate'?" in found["13", "optimization.learnig_rate"]
    assert '"ten" is not allowed; expected a number' in found["14", "optimization.epochs"]


@pytest.mark.parametrize(
    ("workers", "least", "most"),
    [(0, 0, 0), (3, 3, 3), ({"max": 8}, 1, 8), ({"min": 2, "max": 4}, 2, 4)],
)
def test_workers_are_a_number_or_a_range(workers: object, least: int, most: int) -> None:
    engine = parse(EngineSection, {"workers": workers})
    assert (engine.min_workers, engine.max_workers) == (least, most)
    assert parse(EngineSection, engine.model_dump(mode="json")) == engine


@pytest.mark.parametrize(
    "engine",
    [
        {"zero": 1, "offload": {"optimizer": "cpu"}},
        {"zero": 3, "offload": {"optimizer": "nvme", "parameters": "cpu", "path": "/nvme"}},
        {"zero": 3, "precision": "bf16", "offload": {"parameters": "nvme", "path": "/nvme"}},
    ],
)
def test_state_can_be_offloaded(engine: dict[str, object]) -> None:
    section = parse(EngineSection, engine)
    assert section.offload.nvme == ("path" in engine["offload"])  # type: ignore[operator]
    assert parse(EngineSection, section.model_dump(mode="json")) == section


@pytest.mark.parametrize(
    ("engine", "location", "message"),
    [
        ({"offload": {"optimizer": "cpu"}}, "", "optimizer cpu needs zero 1, 2 or 3; zero is 0"),
        ({"zero": 2, "offload": {"parameters": "cpu"}}, "", "parameters cpu needs zero 3"),
        (
            {"zero": 2, "offload": {"optimizer": "nvme", "path": "/nvme"}},
            "",
            "offload.optimizer nvme needs zero 3; zero is 2",
        ),
        ({"zero": 3, "offload": {"optimizer": "nvme"}}, "offload", "nvme needs path"),
        (
            {"zero": 3, "offload": {"parameters": "nvme", "path": "/nvme"}},
            "",
            "offload.parameters nvme needs precision bf16; precision is auto",
        ),
        (
            {"zero": 3, "offload": {"optimizer": "nvme", "path": "swap"}},
            "offload",
            "path 'swap' is relative",
        ),
        ({"offload": {"path": "/nvme"}}, "offload", "path '/nvme' is only for nvme"),
        ({"offload": {"optimizer": "disk"}}, "offload.optimizer", "disk"),
    ],
)
def test_what_cannot_be_offloaded_is_refused(
    engine: dict[str, object], location: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(EngineSection, engine)
    (problem,) = caught.value.problems
    assert problem.location == location
    assert message in problem.message


@pytest.mark.parametrize(
    ("workers", "location", "message"),
    [
        (-1, "workers", "at least 0 and at most 4096, or a section with min, max, settle_seconds"),
        ({"min": 3}, "workers.max", "missing"),
        ({"min": 0, "max": 4}, "workers.min", "at least 1"),
        ({"min": 5, "max": 4}, "workers", "min 5 is more than max 4"),
        ({"max": 4, "most": 5}, "workers.most", "Known here: min, max, settle_seconds."),
    ],
)
def test_wrong_workers_are_named(workers: object, location: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(EngineSection, {"workers": workers})
    (problem,) = caught.value.problems
    assert problem.location == location
    assert message in problem.message


def test_every_line_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "job: finetune\n")
    assert {p.source for p in problems(path)} == {f"{path}:1"}


@pytest.mark.parametrize(
    ("text", "location", "words"),
    [
        ("shape: cirle", "shape", "Did you mean 'circle'?"),
        ("shape: {kind: cirle}", "shape.kind", "Did you mean 'circle'?"),
        ("shape: {}", "shape.kind", "missing; expected one of circle, square."),
        ("shape: circle", "shape.radius", "missing; expected a number, greater than 0"),
        ("shape: {kind: square, sid: 1, side: 2}", "shape.sid", "Did you mean 'side'?"),
        ("shape: {kind: square, side: 0}", "shape.side", "0 is not allowed; expected a number"),
    ],
)
def test_tagged_union_without_noise(tmp_path: Path, text: str, location: str, words: str) -> None:
    (problem,) = problems(write(tmp_path, text), Drawing)
    assert problem.location == location
    assert words in problem.message


def test_plain_union_is_one_problem(tmp_path: Path) -> None:
    path = write(tmp_path, "shape: {kind: circle, radius: 1}\nwidth: [1]\n")
    (problem,) = problems(path, Drawing)
    assert problem.location == "width"
    assert problem.message == "[1] is not allowed; expected a whole number, or text."


def test_places_inside_lists_and_mappings(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "shape: {kind: circle, radius: 1}\nlayers:\n- side: 1\n- side: 1\n  corners: rond\n"
        "names:\n  a: b\n  c: 5\n",
    )
    first, second = problems(path, Drawing)
    assert (first.location, first.source) == ("layers.1.corners", f"{path}:5")
    assert (second.location, second.source) == ("names.c", f"{path}:8")
    assert 'Put it in quotes if text is meant: "5"' in second.message


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (b"", 1, "the file is empty"),
        (b"# only a comment\n", 1, "the file is empty"),
        (b"- a\n- b\n", 1, "holds a list"),
        (b"\n\njust words\n", 3, "holds a single value"),
        (b"a: 1\nb: [1, 2\n", 3, "not valid YAML"),
        (b"a: 1\nb: \xff\n", 2, "byte 0xff is not UTF-8"),
        (b"a: 1\n\tb: 2\n", 2, "never with tabs"),
        (b"a: 1\nb: \x07\n", 2, "U+0007"),
        (b"a: 1\n---\nb: 2\n", 2, "single document"),
        (b"a: {b: ${X}}\n", 1, "put text that holds ${...} in quotes"),
    ],
)
def test_unreadable_files(tmp_path: Path, text: bytes, line: int, words: str) -> None:
    path = write(tmp_path, text)
    (problem,) = problems(path)
    assert problem.source == f"{path}:{line}"
    assert words in problem.message


def test_missing_file_and_folder(tmp_path: Path) -> None:
    assert "no such file" in problems(tmp_path / "none.yaml")[0].message
    assert "directory" in problems(tmp_path)[0].message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title: a\ntitle: b\n", "given twice; first on line 2"),
        ("title: !!python/object:os.system {}\n", "tag"),
        ("layers: &a [*a]\n", "endless"),
        ("? [1]\n: 2\n", "a name must be plain text"),
        ("title: ${9}\n", "not a reference"),
        ('title: "\\ud800"\n', "cannot be read as str"),
        ("<<: 5\n", "takes a mapping"),
    ],
)
def test_traps_of_yaml(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, "shape: {kind: circle, radius: 1}\n" + text)
    assert words in " ".join(problem.message for problem in problems(path, Drawing))


def test_aliases_that_multiply_are_stopped(tmp_path: Path) -> None:
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    messages = " ".join(p.message for p in problems(write(tmp_path, "\n".join(rows)), Drawing))
    assert "endless" in messages


def test_anchors_and_merges_work(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "shape: &s {kind: square, side: 2}\nlayers:\n- *s\n- {<<: *s, side: 3}\n",
    )
    drawing = load(Drawing, path)
    assert [layer.side for layer in drawing.layers] == [2, 3]


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_DIR", "/data: x")
    monkeypatch.setenv("SOME_NUMBER", "7")
    monkeypatch.setenv("SOME_NOTHING", "")
    path = write(
        tmp_path,
        'shape: {kind: circle, radius: "${SOME_NUMBER}"}\ntitle: ${SOME_DIR}/$${HOME}\n'
        "width: ${SOME_NUMBER}\nnames: {a: '${SOME_NOTHING:-b c}', d: \"x${SOME_NOTHING}\"}\n",
    )
    drawing = load(Drawing, path)
    assert drawing.shape == Circle(radius=7)
    assert drawing.title == "/data: x/${HOME}"
    assert drawing.width == 7
    assert drawing.names == {"a": "b c", "d": "x"}


def test_overrides_reach_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_NUMBER", "7")
    path = write(tmp_path, "shape: square\nlayers: [{side: 1}]\n")
    overrides = [
        "shape.side=5e-1",
        "layers.0.side=2",
        "names.x=y",
        "size=[3, 4]",
        "width=${SOME_NUMBER}",
    ]
    drawing = load(Drawing, path, overrides=overrides)
    assert drawing.shape == Square(side=0.5)
    assert drawing.layers == [Square(side=2)]
    assert drawing.names == {"x": "y"}
    assert drawing.size == (3, 4)
    assert drawing.width == 7


def test_shorthand_of_a_section_within(tmp_path: Path) -> None:
    text = MINIMAL.replace('"path:encoder"', '"path:encoder", pooling: last_layers')
    recipe = load(FinetuneRecipe, write(tmp_path, text), overrides=["model.pooling.layers=2"])
    assert recipe.model.pooling == LastLayersPooling(kind="last_layers", layers=2)
    assert load(FinetuneRecipe, write(tmp_path, dump_yaml(recipe))) == recipe
    overrides = ["model.pooling.kind=mean", "model.pooling.layers=2"]
    (problem,) = problems(write(tmp_path, text), FinetuneRecipe, *overrides)
    assert problem.source == "--set model.pooling.layers"
    assert "unknown name" in problem.message


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("model.source=new:roberta",), "has no tokenizer; name the folder of one with tokenizer"),
        (("model.source=new:bert", "model.tokenizer=new:bert"), "would be made of nothing"),
        (("model.pooling.kind=last_layers", "model.pooling.layers=1"), "at least 2"),
        (("model.pooling.kind=last_layers", "model.pooling.tokens=attention"), "one of cls, max"),
    ],
)
def test_models_that_cannot_be(tmp_path: Path, overrides: list[str], words: str) -> None:
    (problem,) = problems(write(tmp_path, MINIMAL), FinetuneRecipe, *overrides)
    assert problem.location.startswith("model")
    assert words in problem.message


def test_last_override_wins_and_mends_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, 'shape: {kind: circle, radius: 1}\ntitle: "${POSTERION_UNSET}"\n')
    assert load(Drawing, path, overrides=["title=a", "title=b"]).title == "b"


@pytest.mark.parametrize(
    ("override", "source", "words"),
    [
        ("titel=x", "--set titel", "Did you mean 'title'?"),
        ("shape.radios=2", "--set shape.radios", "Did you mean 'radius'?"),
        ("title.x=2", "--set title.x", "title is a single value"),
        ("layers.3.side=2", "--set layers.3.side", "a list of 0 values"),
        ("size=[1", "--set size", "not valid YAML"),
        ("title", "--set title", "write --set section.field=value"),
        (".=1", "--set .", "write --set section.field=value"),
        ("title=${POSTERION_UNSET}", "--set title", "POSTERION_UNSET is not set"),
        ("width=[1]", "--set width", "[1] is not allowed"),
    ],
)
def test_wrong_overrides(tmp_path: Path, override: str, source: str, words: str) -> None:
    path = write(tmp_path, "shape: {kind: circle, radius: 1}\ntitle: t\nlayers: []\n")
    (problem,) = problems(path, Drawing, override)
    assert problem.source == source
    assert words in problem.message


def test_parse_has_the_same_messages_without_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Drawing, {"shape": {"kind": "circle", "radius": -1}, 5: 1}, source="request")
    assert {problem.source for problem in caught.value.problems} == {"request"}
    assert "shape.radius: -1 is not allowed" in str(caught.value)
    with pytest.raises(ConfigError, match="not list"):
        parse(Drawing, [])  # type: ignore[arg-type]


def test_parse_takes_references_literally() -> None:
    drawing = parse(Drawing, {"shape": {"kind": "circle", "radius": 1}, "title": "${HOME}"})
    assert drawing.title == "${HOME}"


def test_fingerprint_ignores_spelling_but_no_value(tmp_path: Path) -> None:
    first = load(FinetuneRecipe, write(tmp_path, MINIMAL))
    spelled = load(FinetuneRecipe, write(tmp_path, dump_yaml(first)))
    other = load(FinetuneRecipe, write(tmp_path, MINIMAL + "seed: 1\n"))
    assert spelled == first
    assert fingerprint(spelled) == fingerprint(first) != fingerprint(other)
    assert len(fingerprint(first)) == 64


def test_schema_offers_the_shorthand_and_documents_fields() -> None:
    schema = json_schema(Drawing)
    assert {"type": "string", "enum": ["circle", "square"]} in schema["properties"]["shape"][
        "anyOf"
    ]
    section = json_schema(FinetuneRecipe)["$defs"]["OptimizationSection"]["properties"]
    assert section["epochs"]["description"].startswith("Passes over")


def test_nearest() -> None:
    names = ["learning_rate", "layer_decay", "warmup"]
    assert nearest("learnig-rate", names) == "learning_rate"
    assert nearest("LAYER DECAY", names) == "layer_decay"
    assert nearest("warm", names) == "warmup"
    assert nearest("rate", names) == "learning_rate"
    assert nearest("xyz", names) is None
    assert nearest("", names) is None
    assert did_you_mean("warmpu", names) == " Did you mean 'warmup'?"
    assert did_you_mean("xyz", names) == ""
