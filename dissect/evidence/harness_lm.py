"""A TransformerLens model as lm-evaluation-harness asks models. Importing this file takes the extra `eval`."""

from __future__ import annotations

import copy
import importlib
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from dissect.backend.forward import run_blocks, unembed
from dissect.base.progress import hidden
from dissect.evaluation.greedy import continue_greedily

HFLM: Any = importlib.import_module("lm_eval.models.huggingface").HFLM  # whose decorator hides its type


class ModelLM(HFLM):
    """`HFLM` with the logits of a TransformerLens model, as its hooks leave them.

    There is no second copy of the weights. Prompts, tokens, batches and answers are HFLM's own, with its option
    `softmax_dtype="float32"`: the log-probabilities of a bfloat16 model would otherwise be rounded to three digits.
    """

    def __init__(self, model: Any, batch_size: int, *, progress: bool) -> None:
        stand_in: Any = SimpleNamespace(device=torch.device(model.cfg.device), config=None)
        super().__init__(
            pretrained=stand_in,
            backend="causal",
            tokenizer=copy.deepcopy(model.tokenizer),  # HFLM gives it a padding token
            max_length=model.cfg.n_ctx,
            batch_size=batch_size,
            softmax_dtype="float32",
        )
        self._hooked, self._hidden = model, hidden(progress)

    @torch.no_grad()
    def _model_call(
        self, inps: Int64[Tensor, "window position"], attn_mask: None = None, labels: None = None
    ) -> Float[Tensor, "window position vocab"]:
        residual = run_blocks(self._hooked, inps)
        logits = torch.cat(list(unembed(self._hooked, residual.flatten(0, 1))))
        return logits.unflatten(0, tuple(inps.shape)).to(self.device)

    def _model_generate(
        self,
        context: Int64[Tensor, "window position"],
        max_length: int,
        stop: list[str],
        *,
        attention_mask: Int64[Tensor, "window position"],
        **options: Any,
    ) -> Int64[Tensor, "window longer"]:
        """Greedy, whatever `options` say: tasks that sample have been refused."""
        rows = [row[seen.bool()].tolist() for row, seen in zip(context, attention_mask, strict=True)]
        end = self.tokenizer.eos_token_id

        def ends(following: list[int]) -> bool:
            text = self.tokenizer.decode(following)
            return following[-1] == end or any(part in text for part in stop)

        found = continue_greedily(self._hooked, rows, max_length - context.shape[1], ends)
        longest = max(map(len, found))
        padded = [[*row, *[self.tokenizer.pad_token_id] * (longest - len(row))] for row in found]
        return torch.cat([context, torch.tensor(padded, dtype=torch.long, device=context.device)], 1)

    def loglikelihood(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return super().loglikelihood(requests, disable_tqdm=disable_tqdm or self._hidden)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm or self._hidden)

    def generate_until(self, requests: Any, disable_tqdm: bool = False) -> Any:
        return super().generate_until(requests, disable_tqdm=disable_tqdm or self._hidden)

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False, override_bs: int | None = None) -> Any:
        return super()._loglikelihood_tokens(requests, disable_tqdm or self._hidden, override_bs)
