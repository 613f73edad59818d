"""Who answers: a Hugging Face model in this process, vLLM in this process, or a server.

A model is loaded once and pruned anew for each run where the backend can.
"""

import gc
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from divprune.embedded import EMBEDDED_FOLDERS
from divprune.errors import EvaluationError, MissingDependencyError
from divprune.evaluation.harness_options import HarnessOptions
from divprune.evaluation.runs import UNPRUNED, EvaluationRun

LONGEST_ANSWER = 1024  # where a task does not say, as in `ModelArguments`
SERVER_SECONDS = 600
SERVER_BACKOFF_SECONDS = 1.0


@dataclass
class ModelPool:
    """The model of the run at hand.

    Attributes:
        options: how runs are run.
        revisions: of each model, see `checkpoint_revision`.
    """

    options: HarnessOptions
    revisions: Mapping[str, str | None]
    _loaded: tuple[Any, ...] = ()
    _model: Any = field(default=None, repr=False)

    def model_for(self, run: EvaluationRun, is_simple: bool) -> Any:
        """Return lmms-eval's model of a run, pruned as it says.

        Args:
            run: says which checkpoint, method and budget.
            is_simple: whether the task gives words and media apart.

        Raises:
            EvaluationError: the backend cannot do that.
            DivpruneError: the checkpoint cannot be loaded, or not be pruned so.
        """
        if is_simple and self.options.backend != "hf":
            raise EvaluationError(f"task {run.task} weighs continuations, which only `backend` hf can")
        if self.options.backend == "hf":
            return self._hugging_face(run, is_simple)
        if self.options.backend == "vllm":
            return self._vllm(run)
        return self._server(run)

    def close(self) -> None:
        """Free the model."""
        self._loaded, self._model = (), None
        gc.collect()

    def _hugging_face(self, run: EvaluationRun, is_simple: bool) -> Any:
        from divprune.lmms_eval_plugin.models.chat import DivPruneChat
        from divprune.lmms_eval_plugin.models.simple import DivPruneSimple

        wanted = (run.model, is_simple)
        if self._loaded != wanted:
            self.close()
            kind = DivPruneSimple if is_simple else DivPruneChat
            names = ("dtype", "device", "batch_size", "num_frames", "system_prompt")
            given = {name: getattr(self.options, name) for name in names}
            self._model = kind(pretrained=run.model, method=UNPRUNED, revision=self._commit(run.model), **given)
            self._model.shows_progress = self.options.debug
            self._loaded = wanted
        self._model.set_pruning(
            run.method,
            keep_ratio=run.keep_ratio,
            num_keep=run.num_keep,
            positions=run.positions,
            order=run.order,
            scope=run.scope,
            newlines=run.newlines,
        )
        return self._model

    def _vllm(self, run: EvaluationRun) -> Any:
        if find_spec("vllm") is None:
            raise MissingDependencyError('`backend` vllm needs vLLM too: pip install "divprune[eval,vllm]"')
        from divprune.lmms_eval_plugin.runs.vllm_model import TasksLengthVLLM
        from divprune.vllm_plugin import pruned_overrides

        _refuse_options_of_prune(run, "vllm")
        wanted = (run.model, run.method, run.keep_ratio, run.num_keep, run.positions)
        if self._loaded != wanted:
            self.close()
            overrides = {}
            if run.method != UNPRUNED:
                overrides["hf_overrides"] = pruned_overrides(
                    run.model,
                    method=run.method,
                    keep_ratio=run.keep_ratio,
                    num_keep=run.num_keep,
                    positions=run.positions,
                )
            self._model = TasksLengthVLLM(
                model=run.model,
                dtype=self.options.dtype,
                max_new_tokens=LONGEST_ANSWER,
                batch_size=self.options.group_size,
                nframes=self.options.num_frames,
                trust_remote_code=False,
                revision=self._commit(run.model),
                disable_log_stats=True,
                **overrides,
            )
            self._loaded = wanted
        return self._model

    def _commit(self, model: str) -> str | None:
        """Return the commit of a hub's model, so that what is recorded is what is loaded."""
        is_local = model in EMBEDDED_FOLDERS or Path(model).expanduser().is_dir()
        return None if is_local else self.revisions[model]

    def _server(self, run: EvaluationRun) -> Any:
        from lmms_eval.models.chat.openai import OpenAICompatible

        _refuse_options_of_prune(run, "openai-server")
        if self.options.base_url is None:
            raise EvaluationError("`backend` openai-server needs `base_url`, such as http://127.0.0.1:8000/v1")
        return OpenAICompatible(
            model_version=self.options.served_model or run.model,
            base_url=self.options.base_url,
            api_key=os.environ.get("OPENAI_API_KEY", "none"),
            num_concurrent=self.options.num_concurrent,
            max_frames_num=self.options.num_frames,
            timeout=SERVER_SECONDS,
            max_retries=3,
            retry_backoff_s=SERVER_BACKOFF_SECONDS,
        )


def _refuse_options_of_prune(run: EvaluationRun, backend: str) -> None:
    if run.order != "sorted":
        raise EvaluationError(f"`backend` {backend} takes no order of its own")
    if run.sharing_title:
        raise EvaluationError(f"`backend` {backend} takes no scope and no newlines of its own")
