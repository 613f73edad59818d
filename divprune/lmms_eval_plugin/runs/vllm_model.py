"""vLLM in this process, with answers as long as the tasks say."""

from typing import Any

from lmms_eval.models.chat.vllm import VLLM


class TasksLengthVLLM(VLLM):
    """lmms-eval's model of vLLM, which would lengthen a task's longest answer to a setting of its own."""

    def _select_max_new_tokens(self, request_max_new_tokens: Any) -> int:
        return int(request_max_new_tokens or self.max_new_tokens)
