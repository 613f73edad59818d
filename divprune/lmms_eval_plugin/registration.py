"""What lmms-eval loads whenever it starts: the entry point `lmms_eval.models`, so it imports nothing heavy."""

from typing import Any


def manifests() -> list[Any]:
    """Return the model `divprune`, in conversations or, with `--force_simple`, with words and media apart."""
    from lmms_eval.models.registry_v2 import ModelManifest

    package = "divprune.lmms_eval_plugin.models"
    chat, simple = f"{package}.chat.DivPruneChat", f"{package}.simple.DivPruneSimple"
    return [ModelManifest(model_id="divprune", chat_class_path=chat, simple_class_path=simple)]
