"""Seconds of each pruning step of taker 1.2.3, the library of the paper's authors; run by `against_taker`.

It runs in an environment of its own and imports nothing of dissect. Arguments: a model folder, a JSON file of texts
`{"forget"|"retain": {"train"|"test": [...]}}`, predictions, tokens in a window, steps.
"""

import json
import os
import sys
import time

os.environ |= {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}

import taker.texts
import torch
from datasets import Dataset, DatasetDict
from taker import Model
from taker.data_classes import PruningConfig
from taker.eval import evaluate_all
from taker.prune import get_midlayer_data, score_and_prune

folder, texts, tokens, context, steps = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])
NAMES = {"forget": "pytest-code-local", "retain": "pytest-pile-local"}  # data sets that need no hub
with open(texts) as file:
    ours = {
        NAMES[side]: DatasetDict({split: Dataset.from_dict({"text": documents}) for split, documents in splits.items()})
        for side, splits in json.load(file).items()
    }
taker.texts.DatasetDict.load_from_disk = lambda path: ours[os.path.basename(path)]

torch.manual_seed(0)
config = PruningConfig(
    model_repo=folder,
    token_limit=context,
    ff_frac=0.02,
    ff_eps=1e-3,
    attn_frac=0.0,
    dtype="bfp16",
    use_accelerator=False,
    model_device="cpu",
    collection_sample_size=tokens,
    eval_sample_size=tokens,
    focus=NAMES["retain"],
    cripple=NAMES["forget"],
    n_steps=steps,
)
model = Model(config.model_size, limit=context, dtype=config.dtype, use_accelerator=False, model_device="cpu")
for _ in range(steps):
    start = time.perf_counter()
    retain, forget = (get_midlayer_data(model, name, tokens, "pre-out") for name in (config.focus, config.cripple))
    score_and_prune(model, retain, forget, config)
    with torch.no_grad():
        model.hooks.disable_all_collect_hooks()
        measured = evaluate_all(model, tokens, config.datasets, dataset_tokens_to_skip=0)
    seconds = time.perf_counter() - start
    accuracy = {side: measured["accuracy"][name]["base"] for side, name in NAMES.items()}
    print("STEP " + json.dumps({"seconds": seconds, "top1": accuracy}), flush=True)
