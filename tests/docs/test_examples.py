"""Every example of README and the pages is run as it stands, or says why not and is parsed.

Stand-ins make that a matter of seconds: a tiny random Llama in the cache of models, in the place of `smollm2-135m`; the
same as the folder `my-model`; text files in `notes/`; and, except in `make test-long`, the beginnings of some texts for
each of the long corpora, and a quarter of the tokens.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import re
import shutil
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import dissect
from dissect.cli.main import COMMANDS, main
from dissect.data.corpora import Corpus
from dissect.data.sources import Texts
from dissect.models.architectures import ARCHITECTURES
from tests.docs.pages import NOT_RUN, PAGES, ROOT, examples, name_of
from tests.support import tiny
from tests.support.templates import ZEPHYR

REGISTRIES = (
    dissect.CORPORA,
    dissect.IMPORTANCE,
    dissect.METRICS,
    dissect.MODELS,
    dissect.SITES,
    ARCHITECTURES,
)
# 64 heads, so that 2% of them is one; as many positions as the longest windows on the pages.
TINY = {
    "vocab_size": tiny.VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 4,
    "max_position_embeddings": 1_024,
}

LONG_CORPORA = ("python-stdlib", "wiki-en")
TOKENS = re.compile(r"(?<=tokens[= ])[\d_]{4,}")

each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "model"
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**TINY, initializer_range=0.2)).save_pretrained(folder)
    tokenizer = tiny.tiny_tokenizer(folder)
    tokenizer.chat_template = ZEPHYR
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def short_corpora():
    found = {name: itertools.islice(dissect.CORPORA[name].source.documents(0), 500) for name in LONG_CORPORA}
    texts = {name: {str(number): text[:1_000] for number, text in enumerate(found[name])} for name in found}
    return {name: Corpus(Texts(texts[name].copy), f"some of {name}") for name in texts}


@pytest.fixture
def reader(tiny_model, short_corpora, tmp_path, monkeypatch, long):
    """Where a reader of the pages is: an empty folder but for the stand-ins; registries are put back afterwards."""
    cached = f"smollm2-135m-{dissect.MODELS['smollm2-135m'].gguf_sha256[:8]}"
    shutil.copytree(tiny_model, tmp_path / "cache" / "models" / cached)
    shutil.copytree(tiny_model, tmp_path / "my-model")
    (tmp_path / "notes").mkdir()
    for number in range(60):
        (tmp_path / "notes" / f"{number}.txt").write_text(f"Note {number}: the river rose above the town. " * 5)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DISSECT_CACHE", str(tmp_path / "cache"))
    before = [dict(registry) for registry in REGISTRIES]
    if not long:
        dissect.CORPORA.update(short_corpora)
    yield tmp_path
    for registry, entries in zip(REGISTRIES, before, strict=True):
        registry.clear()
        registry.update(entries)


@each_page
def test_every_example_is_run_or_says_why_not(page):
    for example in examples(page):
        where = f"{name_of(page)}:{example.line}"
        assert example.language in ("python", "sh"), f"{where}: a block is python or sh, so that it can be run"
        assert example.runs or NOT_RUN.fullmatch(example.options), f'{where}: write title="not run: the reason"'


@each_page
def test_the_examples_of_a_page_run(page, reader, long):
    """In order, those in Python in one namespace, as in a notebook."""
    names = {"__name__": "__page__"}
    for example in filter(lambda example: example.runs, examples(page)):
        if not long:
            example = replace(example, code=TOKENS.sub(lambda number: str(int(number[0]) // 4), example.code))
        if example.language == "python":
            exec(compile("\n" * example.line + example.code, page, "exec"), names)
            continue
        for program, *arguments in example.commands():
            assert program == "dissect", f"{name_of(page)}:{example.line}: {program} cannot be run here; say why"
            assert main(arguments) == 0, f"{name_of(page)}:{example.line}: dissect {' '.join(arguments)}"


@pytest.fixture
def parsing(monkeypatch):
    """The command line, which now reads its arguments and does nothing."""
    for name, command in list(COMMANDS.items()):
        monkeypatch.setitem(COMMANDS, name, functools.wraps(command)(lambda *_, **__: None))


@each_page
def test_what_is_not_run_is_at_least_parsed(page, parsing):
    for example in filter(lambda example: not example.runs, examples(page)):
        if example.language == "python":
            compile("\n" * example.line + example.code, page, "exec")
            continue
        for words in example.commands():
            check_words(words)


def check_words(words):
    """The command, Make target, module or extra that a line names is there, and its options are known."""
    if "dissect" in words:
        assert main(words[words.index("dissect") + 1 :]) == 0
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.M), words
    elif words[:2] == ["python", "-m"]:
        assert importlib.util.find_spec(words[2]), words
    elif words[:2] == ["pip", "install"]:
        for extra in re.search(r"\[(.+)\]", words[-1])[1].split(","):
            assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.M), extra


def test_an_option_that_is_not_there_is_noticed(parsing):
    with pytest.raises(SystemExit):
        check_words("torchrun -m dissect prune --model m --forget a --retain b --no-such-option 3".split())
    with pytest.raises(AssertionError):
        check_words(["make", "no-such-target"])
    with pytest.raises(AssertionError):
        check_words(["pip", "install", "-e", ".[no-such-extra]"])
