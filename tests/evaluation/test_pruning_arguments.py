"""What `--model_args` of lmms-eval say of the vision encoder."""

from typing import Any

import pytest

from divprune.encoder_options import TomeEncoder
from divprune.errors import EvaluationError
from divprune.lmms_eval_plugin.models.arguments import split_arguments


def test_the_encoder_is_that_of_prune_with_other_separators() -> None:
    given = {"method": "random:seed=3", "num_keep": 5, "encoder": "tome:r=8;schedule=decreasing"}
    config = split_arguments(given)[1].config()
    assert config is not None
    assert (config.encoder, config.num_keep) == (TomeEncoder(8, "decreasing"), 5)
    config = split_arguments({"keep_ratio": 0.5})[1].config()
    assert config is not None
    assert config.encoder is None


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"encoder": "tom:r=8"}, "encoder must be an option such as 'tome:r=8'"),
        ({"encoder": "tome:r=0"}, "r must be a whole number of patches"),
        ({"method": "unpruned", "encoder": "tome:r=8"}, "method=unpruned keeps all visual tokens; leave out encoder"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        split_arguments(given)[1].config()


def test_a_tuned_setting_takes_no_encoder_beside_it() -> None:
    model: Any = None
    with pytest.raises(EvaluationError, match="leave the other arguments of pruning out"):
        split_arguments({"tuned": "tuned.json", "encoder": "tome:r=8"})[1].for_model(model)
