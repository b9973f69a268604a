"""Tasks of our own for lm-evaluation-harness, and a tiny model with skills that knows their words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.models import D_VOCAB
from tests.support.skills import SKILLS, WIDTH, skilled_model

HEAD = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
  cache_dir: {cache}
test_split: test
output_type: {kind}
metadata: {{version: 3}}
"""
CHOICE = """doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
"""
ROLLING = """doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: bits_per_byte}
"""
LIKELIHOOD = """doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
"""
WRITING = """doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 4, do_sample: false}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
BODIES = {
    "multiple_choice": CHOICE,
    "loglikelihood_rolling": ROLLING,
    "loglikelihood": LIKELIHOOD,
    "generate_until": WRITING,
}


def write_task(folder: Path, name: str, kind: str, documents: list[dict[str, Any]], extra: str = "") -> None:
    """A task with its documents beside it."""
    folder.mkdir(exist_ok=True)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents))
    head = HEAD.format(name=name, data=data, cache=folder.parent / "datasets", kind=kind)
    (folder / f"{name}.yaml").write_text(head + BODIES[kind] + extra)


def skilled_reader() -> Any:
    """`skilled_model` with a tokenizer of words, t0 to t49."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({f"t{number}": number for number in range(D_VOCAB)}, unk_token="t49"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    model = skilled_model()
    model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="t48", pad_token="t47")
    return model


def write_skill_task(folder: Path, skill: str, documents: int = 12) -> None:
    """Whose answer the skilled model knows: after tokens of a skill its first one, and not the token without skill."""
    first = SKILLS.index(skill) * WIDTH
    write_task(
        folder,
        skill,
        "multiple_choice",
        [
            {
                "question": f"t{first + 1 + number % 9} t{first + 1 + number % 7}",
                "choices": [f"t{D_VOCAB - 1}", f"t{first}"][:: 1 - 2 * (number % 2)],
                "answer": 1 - number % 2,
            }
            for number in range(documents)
        ],
    )
