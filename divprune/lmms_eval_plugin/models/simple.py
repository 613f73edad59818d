"""The model of lmms-eval that is given words and media apart: `--model divprune --force_simple`."""

from collections.abc import Sequence
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance
from torch import Tensor

from divprune.lmms_eval_plugin.models.conversations import from_context
from divprune.lmms_eval_plugin.models.pruned import HarnessModel
from divprune.lmms_eval_plugin.models.weighing import weighed
from divprune.prompting import Conversation, build_batch, placeholder


class DivPruneSimple(HarnessModel):
    """Any supported Hugging Face family with any method, for tasks that give words and media apart."""

    is_simple = True

    def conversation_of(self, request: Instance) -> Conversation:
        context, _, doc_to_visual, doc_id, task, split = request.args
        return self._conversation(context, doc_to_visual, self.task_dict[task][split][doc_id])

    def loglikelihood(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """Weigh continuations, one by one, with the visual tokens pruned as in `generate`.

        Returns:
            For each, the mean negative log-likelihood of its tokens (lmms-eval takes the least), and whether greedy
            decoding would have said it, as `weighed` wraps them.

        Raises:
            EvaluationError: a document cannot be asked; the message names it.
        """
        return [self.named(request, self._weighed) for request in requests]

    def _conversation(self, context: str, doc_to_visual: Any, doc: Any) -> Conversation:
        visuals = doc_to_visual(doc) if doc_to_visual else []
        tokens = (placeholder(self.loaded, kind) for kind in ("image", "video"))
        stand_ins = [token for token in tokens if token is not None]
        return from_context(context, visuals or [], self.videos, stand_ins, self._system_prompt)

    @torch.inference_mode()
    def _weighed(self, request: Instance) -> GenerationResult:
        context, continuation, doc_to_visual, doc_id, task, split = request.args
        doc = self.task_dict[task][split][doc_id]
        self.draw_for(request)
        words = continuation if isinstance(continuation, str) else continuation(doc)
        inputs = build_batch(self.loaded, [self._conversation(context, doc_to_visual, doc)])
        tokenizer: Any = self.loaded.processor.tokenizer
        ids = tokenizer(words, add_special_tokens=False, return_tensors="pt")["input_ids"].to(self.device)
        logits = self.loaded.model(**_continued(inputs, ids)).logits[0]
        # The prompt is shorter than what was given, but its end is there.
        scores = logits[-ids.shape[1] - 1 : -1].float().log_softmax(dim=-1)
        chosen = scores.gather(1, ids[0, :, None])
        return weighed(float(-chosen.mean()), bool((scores.argmax(dim=-1) == ids[0]).all()))


def _continued(inputs: dict[str, Any], ids: Tensor) -> dict[str, Any]:
    """Return the inputs with text behind the prompt: it is seen, and of no other type than text."""
    length = inputs["input_ids"].shape
    behind = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {
        name: torch.cat([value, behind.get(name, torch.zeros_like(ids)).to(value.dtype)], dim=1)
        if value.shape == length
        else value
        for name, value in inputs.items()
    }
