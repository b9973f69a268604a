"""Padding is read by nothing, on any side and in any kind of model, or refused."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import dissect
from dissect import DissectError, Windows, load_windows
from dissect.backend import fast
from tests.support.models import tiny_transformer

LENGTHS = torch.tensor([20, 9, 13, 2])
WIDTH, LOWEST, HIGHEST = 20, 5, 50
CAUSAL = {
    "absolute": {},
    "rotary": {"positional_embedding_type": "rotary", "rotary_dim": 4},
    "local rotary": {
        "positional_embedding_type": "rotary",
        "rotary_dim": 4,
        "use_local_attn": True,
        "window_size": 5,
        "attn_types": ["local", "global", "local"],
    },
    "alibi": {"positional_embedding_type": "alibi"},
    "shortformer": {"positional_embedding_type": "shortformer"},
    "log-n": {"positional_embedding_type": "rotary", "rotary_dim": 4, "use_logn_attn": True, "train_seq_length": 8},
}
KINDS = [*CAUSAL, "masked"]
SIDES = {"right": 0.0, "left": 1.0, "both": 0.5}  # the part of padding that is in front


@pytest.fixture(scope="module", params=KINDS)
def model(request, folder_of):
    if request.param == "masked":
        return dissect.load_model(folder_of("roberta"), dtype="float32")
    return tiny_transformer(**CAUSAL[request.param])


@pytest.fixture(scope="module")
def masked(folder_of):
    return dissect.load_model(folder_of("roberta"), dtype="float32")


def rows(lengths=LENGTHS, seed=0):
    """Texts of these lengths."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(LOWEST, HIGHEST, (int(length),), generator=generator) for length in lengths]


def padded(texts, side, fill=1, seed=None):
    """The texts in rows of `WIDTH`, and their attention mask; filled with one token, or with any."""
    tokens = torch.full((len(texts), WIDTH), fill)
    if seed is not None:
        tokens = torch.randint(LOWEST, HIGHEST, tokens.shape, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(tokens.shape, dtype=torch.int64)
    for row, text in enumerate(texts):
        begin = round(SIDES[side] * (WIDTH - len(text)))
        tokens[row, begin : begin + len(text)] = text
        mask[row, begin : begin + len(text)] = 1
    return tokens, mask


def marked(texts, side, **filling) -> Windows:
    tokens, mask = padded(texts, side, **filling)
    return Windows.from_tokens(tokens, attention_mask=mask)


def assert_close(found, expected, model):
    for site in expected:
        for name, sums in expected[site].moments.items():
            size = expected[site]["sum_abs"].max().item()
            torch.testing.assert_close(found[site][name], sums, rtol=1e-4, atol=1e-5 * size, msg=f"{site} {name}")


@pytest.mark.parametrize("first_position", [False, True])
@pytest.mark.parametrize("side", SIDES)
def test_statistics_are_those_of_each_text_alone(model, side, first_position):
    options = {"sites": ("mlp", "value", "pre_out"), "moments": ("sum", "sum_abs"), "progress": False}
    options["first_position"] = first_position
    texts = rows()
    alone = [dissect.collect(model, Windows.from_tokens(text[None]), **options) for text in texts]
    found = dissect.collect(model, marked(texts, side), **options)
    assert found["mlp"].count == int(LENGTHS.sum()) - (0 if first_position else len(texts))
    assert_close(found, sum(alone[1:], alone[0]), model)


@pytest.mark.parametrize("side", SIDES)
def test_what_fills_windows_up_changes_nothing(model, side):
    """Bit for bit, whatever it is; and where it is said to be text, it does."""
    texts = rows()
    first, second = (marked(texts, side, seed=seed) for seed in (1, 2))
    results = [dissect.collect(model, windows, progress=False)["mlp"]["sum"] for windows in (first, second)]
    assert torch.equal(*results)
    tokens, mask = padded(texts, "left")
    as_text = Windows.from_tokens(tokens, mask.bool() & (mask.cumsum(1) > 1), attention_mask=torch.ones_like(tokens))
    read = dissect.collect(model, as_text, progress=False)
    assert read["mlp"].count == int(LENGTHS.sum()) - len(texts)
    assert (read["mlp"]["sum"] - results[0]).abs().max() > 0.01 * results[0].abs().max()


@pytest.mark.parametrize("side", SIDES)
def test_evaluation_is_that_of_the_texts_alone(model, side):
    texts = rows(torch.full((6,), 13))  # of one length, so that a masked model is asked the same
    alone = Windows.from_tokens(torch.stack(texts))
    found, expected = (dissect.evaluate(model, each, progress=False) for each in (marked(texts, side), alone))
    assert found == pytest.approx(expected, rel=1e-4)
    with fast.disabled():
        assert dissect.evaluate(model, marked(texts, side), progress=False) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("side", SIDES)
def test_cards_are_those_of_the_texts_alone(model, side):
    texts = rows(torch.full((6,), 13))
    alone, with_pads = Windows.from_tokens(torch.stack(texts)), marked(texts, side)
    options = {"ablation_tokens": 20, "progress": False, "batch_size": 4}
    one, other = (dissect.neuron_card(model, ("mlp", 1, 7), each, each, **options) for each in (alone, with_pads))
    assert one.forget.n == other.forget.n == with_pads.n_kept
    for field in ("mean", "mean_abs", "lowest", "highest"):
        assert getattr(one.forget, field) == pytest.approx(getattr(other.forget, field), abs=1e-4)
    assert [(c.window, c.position) for c in one.forget.contexts] == [
        (c.window, c.position) for c in other.forget.contexts
    ]
    assert one.forget_effect.ablated == pytest.approx(other.forget_effect.ablated, rel=1e-4)
    one, other = (dissect.head_card(model, 1, 2, each, each, **options) for each in (alone, with_pads))
    for field in ("first", "previous", "entropy"):
        assert getattr(one.forget, field) == pytest.approx(getattr(other.forget, field), abs=1e-4)


def test_padding_agrees_with_transformers(folder_of):
    """Which counts positions from a text's first token, on whatever side its padding is."""
    import transformers

    for family in ("llama", "gpt2", "roberta"):
        folder = folder_of(family)
        tokens, mask = padded(rows(), "left")
        ours = dissect.load_model(folder, dtype="float32")
        architecture = "AutoModelForMaskedLM" if family == "roberta" else "AutoModelForCausalLM"
        theirs = getattr(transformers, architecture).from_pretrained(folder, dtype=torch.float32)
        places = {} if family == "roberta" else {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        with torch.no_grad():
            expected = theirs(tokens, attention_mask=mask, output_hidden_states=True, **places).hidden_states[-1]
            windows = Windows.from_tokens(tokens, attention_mask=mask)
            residual = dissect.backend.forward.run_blocks(ours, windows.tokens, windows.attention_mask)
        if family != "roberta":
            residual = ours.ln_final(residual)
        torch.testing.assert_close(residual[windows.attention_mask], expected[mask.bool()], rtol=1e-3, atol=1e-3)


def test_windows_begin_with_their_text():
    tokens = torch.tensor([[9, 9, 1, 2, 3], [4, 5, 6, 9, 9]])
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0]])
    documents = torch.tensor([[0, 0, 0, 1, 1], [2, 2, 2, 2, 2]])
    windows = Windows.from_tokens(tokens, documents=documents, attention_mask=mask)
    assert windows.tokens[:, :3].tolist() == [[1, 2, 3], [4, 5, 6]]
    assert windows.keep.tolist() == [[False, True, True, False, False]] * 2
    assert windows.documents[:, :3].tolist() == [[0, 1, 1], [2, 2, 2]]
    assert windows.attention_mask.tolist() == [[True] * 3 + [False] * 2] * 2
    kept = Windows.from_tokens(tokens, torch.tensor([[0, 0, 0, 0, 1], [0, 0, 1, 0, 0]]).bool(), attention_mask=mask)
    assert kept.keep.tolist() == [[False, False, True, False, False]] * 2
    assert kept[1:].attention_mask.tolist() == [[True] * 3 + [False] * 2]


def test_a_mask_that_masks_nothing_is_no_other_data():
    tokens = torch.arange(12).reshape(2, 6)
    whole, masked = Windows.from_tokens(tokens), Windows.from_tokens(tokens, attention_mask=torch.ones_like(tokens))
    some = torch.ones_like(tokens)
    some[1, 4:] = 0
    keep = torch.zeros(2, 6, dtype=torch.bool)
    keep[:, 1] = True
    assert whole.fingerprint == masked.fingerprint
    context, padding = Windows.from_tokens(tokens, keep), Windows.from_tokens(tokens, keep, attention_mask=some)
    assert context.fingerprint != padding.fingerprint


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 0, 1, 1]], "one stretch of tokens in each window.*window 0 has 2"),
        ([[0, 0, 0, 0]], "window 0 has 0"),
        ([[1, 1, 1, 2]], "0 or False at padding"),
        ([[1, 1, 1]], r"of tokens' shape \(1, 4\).*got torch.int64 of shape \(1, 3\)"),
    ],
)
def test_masks_that_are_none(mask, message):
    with pytest.raises(DissectError, match=message):
        Windows.from_tokens(torch.arange(4)[None], attention_mask=torch.tensor(mask))


def test_padding_that_counts_is_an_error():
    keep = torch.tensor([[False, True, True, True]])
    for mask, message in (([[1, 1, 1, 0]], "keep must be False at padding"), ([[0, 1, 1, 1]], "False at position 0")):
        with pytest.raises(DissectError, match=message):
            Windows.from_tokens(torch.arange(4)[None], keep, attention_mask=torch.tensor(mask))
    tokens, left = torch.arange(4)[None], torch.tensor([[False, True, True, True]])
    with pytest.raises(DissectError, match=r"from_tokens\(tokens, attention_mask=...\) moves it there"):
        Windows(tokens, torch.zeros_like(left), attention_mask=left)


@pytest.mark.parametrize("measure", [dissect.collect, dissect.evaluate])
@pytest.mark.parametrize("side", SIDES)
def test_padding_that_is_not_marked_is_refused_where_tokens_see_it(model, side, measure):
    tokens, mask = padded(rows(torch.full((4,), 9)), side)
    keep = mask.bool() & (mask.cumsum(1) > 1)
    if side == "right" and hasattr(model, "ln_final"):
        measure(model, Windows.from_tokens(tokens, keep), progress=False)  # nothing looks ahead
        return
    with pytest.raises(DissectError, match=r"window 0 seems to hold padding.*attention_mask"):
        measure(model, Windows.from_tokens(tokens, keep), progress=False)


def tokenizer(pad, **roles):
    return SimpleNamespace(padding_side="right", pad_token_id=pad, bos_token_id=0, eos_token_id=3, **roles)


@pytest.mark.parametrize(
    ("text", "pad", "refused"),
    [
        ([9, 5, 6, 7], 9, True),  # begins with a token that is for padding alone
        ([0, 5, 6, 7], 0, False),  # with BOS, which is for padding too
        ([3, 5, 6, 7], 3, False),
        ([0, 0, 6, 7], 0, True),
        ([5, 6, 9, 9], 9, True),  # counts padding
        ([5, 6, 3, 3], 3, True),
        ([5, 6, 7, 7], 9, False),  # a token that is there twice, and counts
        ([5, 6, 9, 7], 9, False),
    ],
)
def test_pad_tokens_of_the_tokenizer_are_known(text, pad, refused):
    model = tiny_transformer()
    model.tokenizer = tokenizer(pad)
    windows = Windows.from_tokens(torch.tensor([[1, 5, 6, 7], text]))
    if refused:
        with pytest.raises(DissectError, match="window 1 seems to hold padding"):
            dissect.collect(model, windows, progress=False)
        windows = Windows.from_tokens(windows.tokens, attention_mask=torch.ones(2, 4))  # it is text
    assert dissect.collect(model, windows, progress=False)["mlp"].count == 6


def test_context_that_does_not_count_is_read():
    """A prompt is context of the answer that counts."""
    model = tiny_transformer()
    tokens = torch.stack(rows(torch.full((4,), WIDTH)))
    keep = torch.arange(WIDTH).expand(4, WIDTH) >= 12
    _, cache = model.run_with_cache(tokens)
    found = dissect.collect(model, Windows.from_tokens(tokens, keep), sites="mlp", progress=False)
    expected = cache["blocks.2.mlp.hook_post"][:, 12:].sum((0, 1))
    torch.testing.assert_close(found["mlp"]["sum"][2].float(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_dir": "bidirectional"},
        {"positional_embedding_type": "rotary", "rotary_dim": 4, "use_dynamic_ntk_rope": True},
    ],
)
def test_models_that_cannot_leave_padding_out_refuse_it(changes):
    model = tiny_transformer(**changes)
    with pytest.raises(DissectError, match="windows have padding, which tiny would read"):
        dissect.collect(model, marked(rows(), "right"), progress=False)
    whole = Windows.from_tokens(torch.stack(rows(LENGTHS[:1])), attention_mask=torch.ones(1, WIDTH))
    assert dissect.collect(model, whole, progress=False)["mlp"].count == WIDTH - 1


@pytest.mark.parametrize("quick", [True, False])
def test_a_tokenizer_that_pads_left_makes_no_padding_of_text(quick):
    """TransformerLens takes leading pad tokens for padding then, BOS among them."""
    model, windows = tiny_transformer(), Windows.from_tokens(torch.tensor([[0, 5, 6, 7], [0, 8, 9, 5]]))
    expected = dissect.collect(model, windows, progress=False)["mlp"]["sum"]
    model.tokenizer = tokenizer(0)
    model.tokenizer.padding_side = "left"
    with torch.no_grad() if quick else fast.disabled():
        found = dissect.collect(model, windows, progress=False)["mlp"]["sum"]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert model.tokenizer.padding_side == "left"


def test_the_last_window_of_a_masked_model_is_not_read_beyond_its_text(masked, tmp_path):
    text = tmp_path / "text"
    text.mkdir()
    for number in range(12):
        (text / f"{number}.txt").write_text(f"The king of island {number} was an old man. " * (1 + number % 3))
    with pytest.raises(DissectError, match=r"has \d+ tokens") as error:
        load_windows(str(text), masked, tokens=100_000, context=32)
    available = int(str(error.value).split(" has ")[1].split()[0])
    windows = load_windows(str(text), masked, tokens=available, context=32)
    n_text = int(windows.attention_mask[-1].sum())
    assert n_text < 32
    assert windows.attention_mask[:-1].all()
    last = dissect.collect(masked, windows[len(windows) - 1 :], progress=False)
    cut = dissect.collect(masked, Windows.from_tokens(windows.tokens[-1:, :n_text]), progress=False)
    assert last["mlp"].count == cut["mlp"].count
    torch.testing.assert_close(last["mlp"]["sum"], cut["mlp"]["sum"], rtol=1e-4, atol=1e-4)


def test_a_run_of_padded_windows_goes_on_as_it_began(tmp_path):
    model = tiny_transformer()
    sides = {side: (marked(rows(seed=seed), "left"),) * 2 for seed, side in enumerate(("forget", "retain"))}
    runs = [dissect.prune(model, **sides, fraction=0.1, steps=2, out=tmp_path / "run", progress=False) for _ in "ab"]
    assert runs[0].history == runs[1].history
    assert runs[0].record["data"]["forget"]["train"]["kept"] == int(LENGTHS.sum()) - 4
