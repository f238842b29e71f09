"""RoBERTa equals ``transformers`` on drawn configurations, heads and inputs."""

import pytest
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from posterion import models
from posterion.testing import check_model_parity
from posterion.testing.drawn import model_cases, roberta_configs

CLASSES = (
    "RobertaForCausalLM",
    "RobertaForMaskedLM",
    "RobertaForMultipleChoice",
    "RobertaForQuestionAnswering",
    "RobertaForSequenceClassification",
    "RobertaForTokenClassification",
    "RobertaModel",
)


@pytest.mark.parametrize("class_name", CLASSES)
@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_equals_transformers(class_name, data):
    reference_class = getattr(transformers, class_name)
    cases = model_cases(roberta_configs(), [reference_class])
    case = data.draw(cases)
    ours = case.build(getattr(models, class_name))
    check_model_parity(ours, case.build(reference_class), case.inputs)
