"""The model of lmms-eval that is asked in conversations: `--model divprune`."""

from typing import Any

from lmms_eval.api.instance import Instance

from divprune.lmms_eval_plugin.models.conversations import from_messages
from divprune.lmms_eval_plugin.models.pruned import HarnessModel
from divprune.prompting import Conversation


class DivPruneChat(HarnessModel):
    """Any supported Hugging Face family with any method, asked in conversations."""

    is_simple = False

    def conversation_of(self, request: Instance) -> Conversation:
        _, doc_to_messages, _, doc_id, task, split = request.args
        messages = doc_to_messages(self.task_dict[task][split][doc_id])
        return from_messages(messages, self.videos, self._system_prompt)

    def loglikelihood(self, requests: Any) -> list[tuple[float, bool]]:
        """Refuse: lmms-eval gives no conversations for it."""
        raise NotImplementedError("conversations have no log-likelihoods in lmms-eval; use --force_simple")
