"""Language-model losses at labelled positions: the models' own losses and gradients, for less."""

import numpy as np
import pytest
import torch
import transformers

from posterion import DataError, ModelSourceError, models
from posterion.data.packing import (
    Documents,
    Frame,
    PairOptions,
    TokenRows,
    next_sentence_pairs,
    pack_sentences,
    sentence_order_pairs,
)
from posterion.objectives.pretraining import (
    CausalLanguageModelling,
    MaskedLanguageModelling,
    MaskingOptions,
    PermutationLanguageModelling,
    PermutationOptions,
    labelled_scores,
    word_head,
)

PAD, CLS, SEP, MASK, SIZE = 1, 2, 3, 4, 48
SPECIAL = (0, PAD, CLS, SEP, MASK)
FRAME = Frame((CLS,), (SEP,), (SEP,))
MASKING = MaskingOptions(vocabulary_size=SIZE, mask_id=MASK, special_ids=SPECIAL, share=0.3)
SIZES = {
    "vocab_size": SIZE,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 44,
    "pad_token_id": PAD,
    "initializer_range": 0.3,
}
DISTIL = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
CONFIGS = {
    "Bert": transformers.BertConfig(**SIZES),
    "Roberta": transformers.RobertaConfig(**SIZES),
    "DistilBert": transformers.DistilBertConfig(
        vocab_size=SIZE,
        max_position_embeddings=44,
        initializer_range=0.3,
        pad_token_id=PAD,
        **DISTIL,
    ),
    "Albert": transformers.AlbertConfig(**SIZES, embedding_size=8),
    "XLNet": transformers.XLNetConfig(
        vocab_size=SIZE, d_model=16, n_layer=2, n_head=2, d_inner=24, initializer_range=0.3
    ),
}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CAUSAL = ("BertLMHeadModel", "RobertaForCausalLM")


def build(name, **changes):
    architecture = next(each for each in CONFIGS if name.startswith(each))
    config = CONFIGS[architecture].__class__(**{**CONFIGS[architecture].to_dict(), **changes})
    torch.manual_seed(0)
    model = getattr(models, name)(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def documents():
    generator = np.random.default_rng(0)
    return Documents.of(
        [
            [generator.integers(5, SIZE, size).tolist() for size in generator.integers(2, 9, 7)]
            for _ in range(3)
        ]
    )


def rows():
    packed = pack_sentences(documents(), 20, FRAME)
    return packed.rectangle(PAD, length=24)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def check_equal(model, batch, **labels):
    """Loss and gradients are those of the model's own forward pass."""
    mine = batch.loss(model)
    my_gradients = gradients(model, mine.loss)
    reference = model(**batch.inputs, **(labels or {"labels": batch.labels}))
    expected = gradients(model, reference.loss)
    torch.testing.assert_close(mine.loss, reference.loss, rtol=2e-6, atol=1e-6)
    assert my_gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(my_gradients[name], gradient, rtol=1e-4, atol=2e-6, msg=name)
    return mine


@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert", "Albert", "XLNet"])
def test_masked_words(name):
    model = build(name + ("LMHeadModel" if name == "XLNet" else "ForMaskedLM"))
    batch = MaskedLanguageModelling(MASKING).batch(rows(), seed=0, step=0)
    mine = check_equal(model, batch)
    assert mine.num_labels == batch.num_labels == (batch.labels != -100).sum()
    scores = model(**batch.inputs).logits
    at = batch.labels != -100
    assert mine.num_correct == (scores[at].argmax(-1) == batch.labels[at]).sum()
    assert mine.sentences is None
    assert not mine.words.requires_grad


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("isolate", [False, True])
def test_following_words(name, isolate):
    model = build(name, is_decoder=True)
    batch = CausalLanguageModelling(isolate).batch(rows(), seed=0, step=0)
    if name.startswith("Roberta") and isolate:
        batch.inputs["position_ids"] += PAD + 1
    check_equal(model, batch)


def test_isolated_documents_see_nothing_of_each_other():
    model = build("BertLMHeadModel", is_decoder=True)
    packed = rows()
    row = int((packed.documents.max(axis=1) > packed.documents[:, 0]).argmax())
    packed = TokenRows(
        packed.input_ids[[row]], packed.attention_mask[[row]], documents=packed.documents[[row]]
    )
    second = packed.documents[0] == packed.documents[0].max()
    alone = TokenRows(packed.input_ids[:, second], packed.attention_mask[:, second])
    objective = CausalLanguageModelling(isolate_documents=True)
    with torch.no_grad():
        together = model(**objective.batch(packed).inputs).logits[:, second]
        torch.testing.assert_close(together, model(**objective.batch(alone).inputs).logits)


def test_drawn_orders():
    model = build("XLNetLMHeadModel")
    objective = PermutationLanguageModelling(PermutationOptions(one_in=3.0, functional_ids=SPECIAL))
    batch = objective.batch(rows(), seed=0, step=3)
    mine = check_equal(model, batch)
    assert mine.num_labels == batch.num_labels > 0
    again, later = (objective.batch(rows(), seed=0, step=step) for step in (3, 4))
    assert (again.inputs["perm_mask"] == batch.inputs["perm_mask"]).all()
    assert not torch.equal(later.inputs["perm_mask"], batch.inputs["perm_mask"])
    with pytest.raises(DataError, match="padding is filled with 1"):
        PermutationLanguageModelling().batch(rows(), seed=0, step=0)


@pytest.mark.parametrize(
    ("name", "make", "label"),
    [
        ("BertForPreTraining", next_sentence_pairs, "next_sentence_label"),
        ("AlbertForPreTraining", sentence_order_pairs, "sentence_order_label"),
    ],
)
def test_words_and_segments(name, make, label):
    model = build(name)
    pairs = make(documents(), PairOptions(max_length=24, frame=FRAME), seed=0, step=0)
    batch = MaskedLanguageModelling(MASKING).batch(pairs.rectangle(PAD), seed=0, step=0)
    assert batch.inputs["token_type_ids"].any()
    mine = check_equal(model, batch, **{"labels": batch.labels, label: batch.sentence_labels})
    torch.testing.assert_close(mine.loss.detach(), mine.words + mine.sentences)
    with pytest.raises(ModelSourceError, match="BertForMaskedLM cannot tell"):
        batch.loss(build("BertForMaskedLM"))


@pytest.mark.parametrize("name", ["Bert", "Roberta", "DistilBert", "Albert", "XLNet"])
def test_the_vocabulary_is_scored_at_labels_only(name):
    model = build(name + ("LMHeadModel" if name == "XLNet" else "ForMaskedLM"))
    scored = []
    model.get_output_embeddings().register_forward_hook(
        lambda module, given, result: scored.append(result.shape)
    )
    batch = MaskedLanguageModelling(MASKING).batch(rows(), seed=0, step=0)
    batch.loss(model)
    assert scored == [(batch.num_labels, SIZE)]


def test_parts_of_a_step_add_up_to_the_whole():
    model = build("BertForMaskedLM")
    objective, whole = MaskedLanguageModelling(MASKING), rows()
    batch = objective.batch(whole, seed=0, step=0)
    expected = gradients(model, batch.loss(model).loss)
    parts = []
    for chosen in (np.arange(2), np.arange(2, len(whole.input_ids))):
        part = TokenRows(
            whole.input_ids[chosen], whole.attention_mask[chosen], rows=whole.numbers[chosen]
        )
        parts.append(objective.batch(part, seed=0, step=0))
    # Two workers whose gradients are averaged.
    share = sum(part.num_labels for part in parts) / 2
    each = [gradients(model, part.loss(model, num_labels=share).loss) for part in parts]
    for name, gradient in expected.items():
        mean = (each[0][name] + each[1][name]) / 2
        torch.testing.assert_close(mean, gradient, rtol=1e-4, atol=1e-6)


def test_a_batch_without_labels_costs_nothing():
    model = build("BertForMaskedLM")
    only_special = TokenRows(np.array([[CLS, SEP, PAD]]), np.array([[True, True, False]]))
    batch = MaskedLanguageModelling(MASKING).batch(only_special, seed=0, step=0)
    loss = batch.loss(model)
    assert loss.loss == loss.words == loss.num_labels == 0
    assert all((gradient == 0).all() for gradient in gradients(model, loss.loss).values())


def test_reduced_precision_losses_are_single():
    model = build("BertForMaskedLM").bfloat16()
    batch = MaskedLanguageModelling(MASKING).batch(rows(), seed=0, step=0)
    loss = batch.loss(model).loss
    assert loss.dtype == torch.float32
    scores = labelled_scores(model, batch.inputs, batch.labels)
    expected = -scores.logits.float().log_softmax(-1)[range(len(scores.labels)), scores.labels]
    torch.testing.assert_close(loss, expected.mean())


def test_labels_on_padding_are_refused():
    model = build("BertForMaskedLM")
    batch = MaskedLanguageModelling(MASKING).batch(rows(), seed=0, step=0)
    batch.labels[0, 23] = 9
    with pytest.raises(DataError, match="row 0 has one at position 23"):
        batch.loss(model)
    decoder = build("BertLMHeadModel", is_decoder=True)
    batch = CausalLanguageModelling().batch(rows())
    batch.labels[1, 23] = 9
    with pytest.raises(DataError, match="row 1 has one at position 23"):
        batch.loss(decoder)


def test_models_without_words_are_refused():
    with pytest.raises(ModelSourceError, match="BertModel has no head"):
        word_head(build("BertModel"))


@pytest.mark.parametrize("name", ["BertForMaskedLM", "XLNetLMHeadModel"])
def test_a_model_learns(name):
    is_xlnet = name.startswith("XLNet")
    wide = (
        {"d_model": 32, "n_layer": 1, "d_inner": 64, "dropout": 0.0, "d_head": 16}
        if is_xlnet
        else {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64} | NO_DROPOUT
    )
    model = build(name, initializer_range=0.05, **wide).train()
    objective = (
        PermutationLanguageModelling(PermutationOptions(functional_ids=SPECIAL))
        if is_xlnet
        else MaskedLanguageModelling(MASKING)
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    generator = np.random.default_rng(0)
    losses = []
    for step in range(200):
        # Each token is the one before it, plus one.
        ids = 5 + (generator.integers(0, 20, (16, 1)) + np.arange(12)) % 20
        batch = objective.batch(TokenRows(ids, np.ones_like(ids, dtype=bool)), seed=0, step=step)
        loss = batch.loss(model).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # All words are alike frequent, so without the context the loss is that of twenty words.
    assert np.mean(losses[-5:]) < 0.6 * np.log(20)
