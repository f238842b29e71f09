"""Students and teachers: what is compared, 0 for a student that is its teacher, and learning."""

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional as F

from posterion import RequestError, models
from posterion.data.packing import TokenRows
from posterion.objectives.distillation import (
    IntermediateDistillation,
    IntermediateOptions,
    TripleLossOptions,
    attention_mse,
    centred_scores,
    hidden_mse,
    triple_loss,
)
from posterion.objectives.pretraining import MaskedLanguageModelling, MaskingOptions

SIZE = 40
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
MASKING = MaskingOptions(vocabulary_size=SIZE, mask_id=4, special_ids=(0, 1, 2), share=0.3)


def bert(layers=4, width=16, heads=2, head="BertForMaskedLM", seed=0, **more):
    config = transformers.BertConfig(
        vocab_size=SIZE,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * width,
        max_position_embeddings=32,
        initializer_range=0.2,
        **(NO_DROPOUT | more),
    )
    torch.manual_seed(seed)
    return getattr(models, head)(config).eval()


def batch(step=0, num_rows=4, length=12):
    generator = np.random.default_rng(step)
    ids = generator.integers(5, SIZE, (num_rows, length))
    mask = np.arange(length)[None] < generator.integers(4, length + 1, (num_rows, 1))
    rows = TokenRows(np.where(mask, ids, 0), mask)
    return MaskedLanguageModelling(MASKING).batch(rows, seed=0, step=step)


def by_definition(student, teacher, examples, temperature, labels_only):
    """The three parts, from full logits of all tokens."""
    inputs, labels = examples.inputs, examples.labels
    mine = student(**inputs, output_hidden_states=True)
    other = teacher(**inputs, output_hidden_states=True)
    real = inputs["attention_mask"]
    chosen = (labels != -100) if labels_only else real
    soft = F.kl_div(
        (mine.logits[chosen] / temperature).log_softmax(-1),
        (other.logits[chosen] / temperature).softmax(-1),
        reduction="batchmean",
    )
    words = F.cross_entropy(mine.logits.flatten(0, 1), labels.flatten())
    states = mine.hidden_states[-1][real], other.hidden_states[-1][real].detach()
    cosine = F.cosine_embedding_loss(*states, torch.ones(int(real.sum())))
    return soft * temperature**2, words, cosine


@pytest.mark.parametrize("labels_only", [False, True])
@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "Albert"])
def test_the_triple_loss_is_its_definition(kind, labels_only):
    teacher = bert()
    if kind == "DistilBert":
        student = models.DistilBertForMaskedLM(
            transformers.DistilBertConfig(
                vocab_size=SIZE, dim=16, n_layers=2, n_heads=2, hidden_dim=32, dropout=0.0
            )
        )
    elif kind == "Albert":
        config = transformers.AlbertConfig(
            vocab_size=SIZE, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32, embedding_size=8,
        )  # fmt: skip
        student = models.AlbertForMaskedLM(config)
    else:
        student = bert(2, seed=1)
    student.eval()
    examples = batch()
    options = TripleLossOptions(
        soft_weight=3.0,
        words_weight=2.0,
        cosine_weight=0.5,
        temperature=4.0,
        labels_only=labels_only,
    )
    mine = triple_loss(student, teacher, examples.inputs, examples.labels, options)
    parts = by_definition(student, teacher, examples, 4.0, labels_only)
    for name, expected in zip(("soft", "words", "cosine"), parts, strict=True):
        torch.testing.assert_close(
            getattr(mine, name), expected.detach(), rtol=1e-4, atol=1e-6, msg=name
        )
    expected = 3.0 * parts[0] + 2.0 * parts[1] + 0.5 * parts[2]
    torch.testing.assert_close(mine.loss, expected, rtol=1e-4, atol=1e-6)
    names, weights = zip(*student.named_parameters(), strict=True)
    gradients = torch.autograd.grad(mine.loss, weights, allow_unused=True)
    others = torch.autograd.grad(expected, weights, allow_unused=True)
    for name, gradient, other in zip(names, gradients, others, strict=True):
        assert (gradient is None) == (other is None)
        if gradient is not None:
            torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-5, msg=name)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    teacher, examples = bert(), batch()
    options = TripleLossOptions(words_weight=0.0)
    mine = triple_loss(teacher, teacher, examples.inputs, examples.labels, options)
    assert abs(mine.soft) < 1e-6
    assert abs(mine.cosine) < 1e-6
    mine.loss.backward()
    assert all(
        parameter.grad is None or parameter.grad.abs().max() < 1e-5
        for parameter in teacher.parameters()
    )


def test_labels_only_scores_the_vocabulary_there_only():
    teacher, student, examples = bert(), bert(2, seed=1), batch()
    scored = []
    for model in (teacher, student):
        model.get_output_embeddings().register_forward_hook(
            lambda module, given, result: scored.append(len(result))
        )
    triple_loss(student, teacher, examples.inputs, examples.labels)
    triple_loss(
        student,
        teacher,
        examples.inputs,
        examples.labels,
        TripleLossOptions(labels_only=True),
    )
    num_real = int(examples.inputs["attention_mask"].sum())
    assert scored == [num_real] * 2 + [examples.num_labels] * 2


def test_a_narrower_student_learns_words_without_the_angle():
    teacher, student, examples = bert(), bert(2, width=8), batch()
    with pytest.raises(RequestError, match="project another width"):
        triple_loss(student, teacher, examples.inputs, examples.labels)
    options = TripleLossOptions(cosine_weight=0.0)
    loss = triple_loss(student, teacher, examples.inputs, examples.labels, options)
    assert loss.cosine == 0
    assert loss.loss > 0


def test_a_student_becomes_like_its_teacher():
    teacher, student = bert(4), bert(2, seed=1)
    optimizer = torch.optim.Adam(student.parameters(), 3e-3)
    losses = []
    for step in range(120):
        examples = batch(step, num_rows=8)
        parts = triple_loss(
            student,
            teacher,
            examples.inputs,
            examples.labels,
            TripleLossOptions(words_weight=0.0),
        )
        optimizer.zero_grad()
        parts.loss.backward()
        optimizer.step()
        losses.append((parts.soft.item(), parts.cosine.item()))
    first, last = np.mean(losses[:5], axis=0), np.mean(losses[-5:], axis=0)
    assert (last < 0.5 * first).all()


def outputs_of(distillation, student, teacher, inputs):
    with torch.no_grad():
        target = teacher(**inputs, **distillation.teacher_arguments())
    return student(**inputs, **distillation.student_arguments()), target


@pytest.mark.parametrize("attention", ["scores", "weights"])
@pytest.mark.parametrize("layers", ["uniform", "skip", "last", [1, 4]])
def test_layers_are_compared_by_the_map(layers, attention):
    teacher, student, inputs = bert(4), bert(2, width=8, seed=1), batch().inputs
    options = IntermediateOptions(
        embedding_weight=0.5, hidden_weight=2.0, attention_weight=3.0, attention=attention
    )
    torch.manual_seed(3)
    distillation = IntermediateDistillation(student.config, teacher.config, layers, options)
    mask = inputs["attention_mask"]
    mine = distillation(*outputs_of(distillation, student, teacher, inputs), mask)
    expected = {"uniform": (2, 4), "skip": (1, 3), "last": (3, 4)}
    places = tuple(layers) if isinstance(layers, list) else expected[layers]
    assert distillation.layers == places
    own = student(**inputs, output_hidden_states=True, output_attentions=True)
    other = teacher(**inputs, output_hidden_states=True, output_attentions=True)
    prepared = (lambda maps: centred_scores(maps, mask)) if attention == "scores" else (lambda m: m)
    embedding = hidden_mse(
        distillation.embedding_projection(own.hidden_states[0]), other.hidden_states[0], mask
    )
    hidden = sum(
        hidden_mse(
            distillation.hidden_projection(own.hidden_states[m + 1]), other.hidden_states[g], mask
        )
        for m, g in enumerate(places)
    )
    maps = sum(
        attention_mse(prepared(own.attentions[m]), prepared(other.attentions[g - 1]), mask)
        for m, g in enumerate(places)
    )
    for value, wanted in (
        (mine.embedding, embedding),
        (mine.hidden, hidden),
        (mine.attention, maps),
        (mine.loss, 0.5 * embedding + 2 * hidden + 3 * maps),
    ):
        torch.testing.assert_close(value.detach(), wanted.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("attention", ["scores", "weights"])
def test_layers_of_a_student_that_is_its_teacher_differ_in_nothing(attention):
    teacher, inputs = bert(3, head="BertModel"), batch().inputs
    distillation = IntermediateDistillation(
        teacher.config, teacher.config, options=IntermediateOptions(attention=attention)
    )
    assert not list(distillation.parameters())
    outputs = outputs_of(distillation, teacher, teacher, inputs)
    mine = distillation(*outputs, inputs["attention_mask"])
    # A state computed with and without gradient may be rounded otherwise.
    assert mine.loss < 1e-9


def student_of(kind):
    """A narrow one of another architecture."""
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}
    small = {"vocab_size": SIZE, "intermediate_size": 16, **NO_DROPOUT}
    configs = {
        "DistilBert": lambda: transformers.DistilBertConfig(
            vocab_size=SIZE, dim=8, n_layers=2, n_heads=2, hidden_dim=32, attention_dropout=0.0
        ),
        "Albert": lambda: transformers.AlbertConfig(**sizes, **small, embedding_size=4),
        "Roberta": lambda: transformers.RobertaConfig(**sizes, **small),
        "XLNet": lambda: transformers.XLNetConfig(
            vocab_size=SIZE, d_model=8, n_layer=2, n_head=2, d_inner=16, dropout=0.0
        ),
    }
    torch.manual_seed(0)
    return getattr(models, f"{kind}Model")(configs[kind]())


@pytest.mark.parametrize("kind", ["DistilBert", "Albert", "Roberta", "XLNet"])
@pytest.mark.parametrize("head", ["BertModel", "BertForSequenceClassification"])
def test_another_architecture_may_be_the_student(kind, head):
    teacher, student, inputs = bert(4, head=head), student_of(kind), batch().inputs
    distillation = IntermediateDistillation(student.config, teacher.config)
    outputs = outputs_of(distillation, student, teacher, inputs)
    distillation(*outputs, inputs["attention_mask"]).loss.backward()
    for name, parameter in (*student.named_parameters(), *distillation.named_parameters()):
        if "pooler" in name or name == "mask_emb" or "seg_" in name or name.endswith("r_s_bias"):
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_parts_without_weight_ask_for_nothing():
    configs = bert(2).config, bert(4).config
    distillation = IntermediateDistillation(
        *configs, options=IntermediateOptions(hidden_weight=0, attention_weight=0)
    )
    assert distillation.student_arguments() == {
        "output_hidden_states": [0],
        "output_attentions": False,
    }
    maps_only = IntermediateDistillation(
        *configs, options=IntermediateOptions(hidden_weight=0, embedding_weight=0)
    )
    assert maps_only.teacher_arguments()["output_hidden_states"] is False
    teacher, student, inputs = bert(4), bert(2), batch().inputs
    mine = maps_only(*outputs_of(maps_only, student, teacher, inputs), None)
    assert mine.hidden == mine.embedding == 0
    assert mine.attention > 0


def test_a_narrow_student_learns_layers():
    teacher, student = bert(4, head="BertModel"), bert(2, width=8, head="BertModel", seed=1)
    torch.manual_seed(2)
    distillation = IntermediateDistillation(student.config, teacher.config)
    parameters = [*student.parameters(), *distillation.parameters()]
    optimizer = torch.optim.Adam(parameters, 1e-2)
    losses = []
    for step in range(80):
        inputs = batch(step, num_rows=8).inputs
        outputs = outputs_of(distillation, student, teacher, inputs)
        loss = distillation(*outputs, inputs["attention_mask"]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:3])


def test_bad_input_is_named():
    examples = batch()
    with pytest.raises(RequestError, match=r"teacher.eval\(\)"):
        triple_loss(bert(2), bert(4).train(), examples.inputs, examples.labels)
    inputs = examples.inputs | {"attention_mask": torch.ones(4, 1, 12, 12)}
    with pytest.raises(RequestError, match="mask of pairs"):
        triple_loss(bert(2), bert(4), inputs, examples.labels)
    with pytest.raises(RequestError, match="none may be below 0"):
        TripleLossOptions(soft_weight=-1.0)
    with pytest.raises(RequestError, match="one must be above"):
        IntermediateOptions(embedding_weight=0, hidden_weight=0, attention_weight=0)
    with pytest.raises(RequestError, match="attention is 'maps'"):
        IntermediateOptions(attention="maps")
    with pytest.raises(RequestError, match="student has 2 heads and the teacher 4"):
        IntermediateDistillation(bert(2).config, bert(4, heads=4).config)
    dropping = bert(2, attention_probs_dropout_prob=0.1).config
    with pytest.raises(RequestError, match=r"dropout of attention is 0.1"):
        IntermediateDistillation(dropping, bert(4).config)
    IntermediateDistillation(
        dropping, bert(4).config, options=IntermediateOptions(attention="weights")
    )
    with pytest.raises(RequestError, match="from 1 to 2"):
        IntermediateDistillation(bert(4).config, bert(2).config)
