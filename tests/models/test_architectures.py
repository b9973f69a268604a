"""Every family: our model computes what transformers computes, its sites are where they should be, weights go back."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from dissect.backend.sites import SITES, Site, hook_points, sites_of
from dissect.base.errors import DissectError
from dissect.models.architectures import ARCHITECTURES, Architecture, get_architecture
from dissect.models.convert import hooked_model
from dissect.models.layout import hooked_name, write_layer
from dissect.models.parity import check_parity
from tests.support import tiny
from tests.support.models import SITES as DENSE_SITES

WRITTEN = (
    "mlp.W_in",
    "mlp.b_in",
    "mlp.W_gate",
    "mlp.W_out",
    "mlp.b_out",
    "attn.W_V",
    "attn.b_V",
    "attn.W_O",
    "attn.b_O",
)


def architecture_of(hf_model: Any) -> Architecture:
    return get_architecture([type(hf_model).__name__])


@cache
def pair(family: str) -> tuple[Any, Any]:
    """The tiny transformers model and ours of it. They share their weights: for reading only."""
    hf_model = tiny.FAMILIES[family]()
    return hf_model, hooked_model(hf_model, architecture_of(hf_model), name=family)


def tokens(length: int = 40) -> torch.Tensor:
    """Two windows, much longer than `tiny.WINDOW`, without special tokens."""
    return torch.randint(10, tiny.VOCAB, (2, length), generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def difference(model: Any, hf_model: Any, length: int = 40) -> float:
    """The largest difference of logits, relative to transformers' largest."""
    theirs, ours = hf_model(tokens(length)).logits, model(tokens(length))
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_logits_equal_those_of_transformers(family: str) -> None:
    hf_model, model = pair(family)
    assert difference(model, hf_model) < 1e-5
    assert difference(model, hf_model, length=100) < 1e-5


@pytest.mark.parametrize("family", tiny.FAMILIES)
@pytest.mark.parametrize("site", [SITES[name] for name in DENSE_SITES], ids=lambda site: site.name)
def test_the_sites_are_read_in_their_shape_and_cutting_a_unit_changes_the_logits(family: str, site: Site) -> None:
    _, model = pair(family)
    read = {}

    def cut_the_first(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        read[hook.name] = activation.shape[2:]
        cut = activation.clone()
        cut[(slice(None), slice(None), *(0 for _ in site.unit))] = 0
        return cut

    with torch.no_grad():
        before = model(tokens())
        for point in hook_points(model, site).values():
            after = model.run_with_hooks(tokens(), fwd_hooks=[(point.name, cut_the_first)])
            assert (after - before).abs().max() > 1e-3
    assert set(read.values()) == {site.read_shape(model.cfg)}
    assert len(read) == model.cfg.n_layers
    with torch.no_grad():
        assert torch.equal(model(tokens()), before)


def test_tiny_models_have_units_that_cannot_be_mixed_up() -> None:
    shapes = {name: SITES[name].mask_shape(pair("llama")[1].cfg) for name in DENSE_SITES}
    assert shapes == {"mlp": (3, 80), "value": (3, 2, 16), "pre_out": (3, 4, 16), "head": (3, 4)}
    assert SITES["value"].mask_shape(pair("llama-ungrouped")[1].cfg) == (3, 4, 16)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_changed_weights_are_written_back_exactly(family: str) -> None:
    hf_model = tiny.FAMILIES[family]()
    architecture = architecture_of(hf_model)
    # Ours shares its weights with the transformers model it was made from, so it is made from a second one.
    model = hooked_model(tiny.FAMILIES[family](), architecture, name=family)
    changed = {}
    for layer in range(model.cfg.n_layers):
        for name in architecture.layout.layer.keys() & WRITTEN:
            weight = model.get_parameter(hooked_name(model.cfg, layer, name))
            # A bias that is zero is one transformers does not have: it can be written only as zero.
            changed[layer, name] = weight.normal_(std=0.3) if weight.any() else weight
    assert difference(model, hf_model) > 0.1
    for (layer, name), weight in changed.items():
        write_layer(hf_model, architecture.layout, model.cfg, layer, name, weight)
    assert len(changed) >= 4 * model.cfg.n_layers
    assert difference(model, hf_model) < 1e-5


def test_writing_refuses_what_has_no_place() -> None:
    hf_model, model = pair("llama")
    layout = architecture_of(hf_model).layout
    with pytest.raises(DissectError, match=r"no self_attn.v_proj.bias"):
        write_layer(hf_model, layout, model.cfg, 0, "attn.b_V", torch.ones(2, 16))
    with pytest.raises(DissectError, match=r"shape \(2, 48, 16\), got \(4, 48, 16\)"):
        write_layer(hf_model, layout, model.cfg, 0, "attn.W_V", torch.ones(4, 48, 16))
    with pytest.raises(DissectError, match=r"no weight 'mlp.W_inn'.*mlp.W_in"):
        write_layer(hf_model, layout, model.cfg, 0, "mlp.W_inn", torch.ones(48, 80))


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_parity_notices_every_parameter(family: str) -> None:
    """The negative control: no weight, norm or bias of the model is one the check would not miss."""
    hf_model = tiny.FAMILIES[family]()
    model = hooked_model(tiny.FAMILIES[family](), architecture_of(hf_model), name=family)
    assert check_parity(model, hf_model) < 1e-5
    for name, parameter in model.named_parameters():
        if name.startswith(("pooler.", "nsp_head.", "blocks.1", "blocks.2")):
            continue  # heads that are not part of the function; a layer as good as the first
        if name.endswith(("attn.b_K", "attn._b_K")):
            continue  # it shifts all of a query's scores alike, unless positions are rotated
        original = parameter.clone()
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
        with pytest.raises(DissectError, match="logits differ"):
            check_parity(model, hf_model)
        parameter.copy_(original)


@pytest.mark.parametrize(
    ("family", "field", "value"),
    [
        ("llama3-rope", "use_NTK_by_parts_rope", False),
        ("llama", "rotary_base", 20_000),
        ("gpt-neox", "rotary_dim", 12),
        ("gpt-neox", "parallel_attn_mlp", False),
        ("mistral", "window_size", tiny.WINDOW + 1),
        ("qwen2-window", "attn_types", ["local", "local", "global"]),
        ("gemma2", "attn_scale", 4.0),
        ("gemma2", "attn_scores_soft_cap", -1.0),
        ("gemma2", "output_logits_soft_cap", -1.0),
        ("gemma3", "rotary_base_local", None),
        ("gemma3", "rotary_scaling_factor", 1.0),
        ("phi3", "use_local_attn", False),
        ("galactica", "act_fn", "relu"),
        ("roberta", "attention_dir", "causal"),
        ("roberta", "eps", 1e-5),
    ],
)
def test_no_config_field_is_without_effect(family: str, field: str, value: Any) -> None:
    """The tiny models tell a wrong configuration field from the right one."""
    hf_model = tiny.FAMILIES[family]()
    architecture = architecture_of(hf_model)
    right = architecture.fields(hf_model.config)
    assert right.get(field) != value
    wrong = replace(architecture, fields=lambda config: {**right, field: value})
    assert difference(hooked_model(hf_model, wrong, name=family), hf_model) > 1e-5


def _refusals() -> dict[str, tuple[str, dict[str, Any]]]:
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32}
    linear = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
    return {
        "do_layer_norm_before=False": ("opt", {"do_layer_norm_before": False}),
        "word_embed_proj_dim=32": ("opt", {"word_embed_proj_dim": 32}),
        "activation function='mish'": ("opt", {"activation_function": "mish"}),
        "add_cross_attention=True": ("gpt2", {"add_cross_attention": True}),
        "mlp_bias=True": ("llama", {"mlp_bias": True}),
        "rope_parameters.rope_type='yarn'": ("llama", {"rope_parameters": yarn}),
        "sliding_window with linear": ("mistral", {"rope_parameters": linear}),
        "layer_types=['chunked_attention']": ("qwen2-window", {"layer_types": ["chunked_attention"] * 3}),
        "qk_layernorm=True": ("phi", {"qk_layernorm": True}),
        "use_bidirectional_attention=True": ("gemma2", {"use_bidirectional_attention": True}),
        "full_attention.rope_type='yarn'": (
            "gemma3",
            {"rope_parameters": {"full_attention": yarn, "sliding_attention": {"rope_type": "default"}}},
        ),
        "is_decoder=True": ("roberta", {"is_decoder": True}),
        "type_vocab_size=3": ("roberta", {"type_vocab_size": 3}),
    }


@pytest.mark.parametrize("message", _refusals())
def test_what_transformer_lens_cannot_express_is_refused_by_name(message: str) -> None:
    family, changes = _refusals()[message]
    hf_model, _ = pair(family)
    architecture = architecture_of(hf_model)
    config = type(hf_model.config).from_dict(hf_model.config.to_dict())
    for field, value in changes.items():
        setattr(config, field, value)
    with pytest.raises(DissectError) as error:
        architecture.fields(config)
    assert message in str(error.value)


def test_a_weight_no_layout_mentions_is_refused() -> None:
    hf_model = tiny.FAMILIES["llama"]()
    hf_model.model.layers[1].mlp.up_proj.bias = torch.nn.Parameter(torch.zeros(80))
    with pytest.raises(DissectError, match=r"no place for: model.layers.1.mlp.up_proj.bias"):
        hooked_model(hf_model, architecture_of(hf_model), name="llama")


def test_a_matrix_the_model_lacks_is_refused() -> None:
    hf_model = tiny.FAMILIES["gpt2"]()
    architecture = architecture_of(hf_model)
    layer = {name: slot for name, slot in architecture.layout.layer.items() if name != "mlp.W_out"}
    hf_model.transformer.h[0].mlp.c_proj.weight = hf_model.transformer.h[1].mlp.c_proj.weight = None
    broken = replace(architecture, layout=replace(architecture.layout, layer=layer))
    with pytest.raises(DissectError, match=r"no weight for TransformerLens' blocks.0.mlp.W_out"):
        hooked_model(hf_model, broken, name="gpt2")


def test_the_embedding_is_not_tied_to_the_unembedding() -> None:
    hf_model, model = pair("llama-biases")
    assert hf_model.config.tie_word_embeddings
    assert model.W_E.data_ptr() != model.W_U.data_ptr()


def test_weights_are_shared_not_copied() -> None:
    hf_model, model = pair("phi3")
    fused = hf_model.model.layers[0].self_attn.qkv_proj.weight.untyped_storage().data_ptr()
    attention = model.blocks[0].attn
    storages = {w.untyped_storage().data_ptr() for w in (attention.W_Q, attention._W_K, attention._W_V)}
    assert storages == {fused}


def test_unknown_architectures_list_the_supported_ones() -> None:
    with pytest.raises(DissectError, match=r"'OPTForCausalLMs'; did you mean 'OPTForCausalLM'\?.*RobertaForMaskedLM"):
        get_architecture(["OPTForCausalLMs"])
    with pytest.raises(DissectError, match=r"no `architectures` entry.*LlamaForCausalLM"):
        get_architecture(None)


def _opt(layers: int, width: int, heads: int) -> tuple[str, str, dict[str, Any]]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "ffn_dim": 4 * width}
    return "OPTForCausalLM", "OPTConfig", {**sizes, "word_embed_proj_dim": width, "vocab_size": 50272}


def _galactica(layers: int, width: int, heads: int) -> tuple[str, str, dict[str, Any]]:
    model, config, sizes = _opt(layers, width, heads)
    plain = {"enable_bias": False, "layer_norm_elementwise_affine": False, "activation_function": "gelu"}
    return model, config, {**sizes, **plain, "vocab_size": 50000}


def _pythia(layers: int, width: int, heads: int, vocab: int) -> tuple[str, str, dict[str, Any]]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return "GPTNeoXForCausalLM", "GPTNeoXConfig", {**sizes, "intermediate_size": 4 * width, "vocab_size": vocab}


def _roberta(layers: int, width: int, heads: int) -> tuple[str, str, dict[str, Any]]:
    sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    fixed = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return "RobertaForMaskedLM", "RobertaConfig", {**sizes, **fixed, "intermediate_size": 4 * width}


# The published configurations of the paper's models, and what they must give: layers, d_mlp, heads, d_head, d_model.
PAPER = {
    "opt-125m": (_opt(12, 768, 12), (12, 3072, 12, 64)),
    "opt-1.3b": (_opt(24, 2048, 32), (24, 8192, 32, 64)),
    "opt-6.7b": (_opt(32, 4096, 32), (32, 16384, 32, 128)),
    "galactica-125m": (_galactica(12, 768, 12), (12, 3072, 12, 64)),
    "galactica-1.3b": (_galactica(24, 2048, 32), (24, 8192, 32, 64)),
    "galactica-6.7b": (_galactica(32, 4096, 32), (32, 16384, 32, 128)),
    "pythia-160m": (_pythia(12, 768, 12, 50304), (12, 3072, 12, 64)),
    "pythia-1.4b": (_pythia(24, 2048, 16, 50304), (24, 8192, 16, 128)),
    "pythia-6.9b": (_pythia(32, 4096, 32, 50432), (32, 16384, 32, 128)),
    "roberta-base": (_roberta(12, 768, 12), (12, 3072, 12, 64)),
    "roberta-large": (_roberta(24, 1024, 16), (24, 4096, 16, 64)),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_models_build_at_their_published_size(name: str) -> None:
    import transformers

    (model_class, config_class, config), (layers, d_mlp, heads, d_head) = PAPER[name]
    with torch.device("meta"):
        hf_model = getattr(transformers, model_class)(getattr(transformers, config_class)(**config))
        model = hooked_model(hf_model, ARCHITECTURES[model_class], name=name)
    assert {name: SITES[name].mask_shape(model.cfg) for name in sites_of(model)} == {
        "mlp": (layers, d_mlp),
        "value": (layers, heads, d_head),
        "pre_out": (layers, heads, d_head),
        "head": (layers, heads),
    }
    for name in DENSE_SITES:
        assert len(hook_points(model, SITES[name])) == layers


def test_opt_125m_at_full_size_has_the_logits_of_transformers() -> None:
    import transformers

    model_class, config_class, config = PAPER["opt-125m"][0]
    with torch.device("meta"):
        hf_model = getattr(transformers, model_class)(getattr(transformers, config_class)(**config))
    hf_model = hf_model.to_empty(device="cpu").eval()
    torch.manual_seed(0)
    for parameter in hf_model.parameters():
        torch.nn.init.normal_(parameter, std=0.03)
    model = hooked_model(hf_model, ARCHITECTURES[model_class], name="opt-125m")
    assert check_parity(model, hf_model) < 1e-5
    # The same weights, read by a second model that is then changed in one neuron's bias of the last layer.
    other = hooked_model(hf_model, ARCHITECTURES[model_class], name="opt-125m")
    other.blocks[11].mlp.b_in.data = other.blocks[11].mlp.b_in.clone()
    other.blocks[11].mlp.b_in[0] += 10
    with pytest.raises(DissectError, match="logits differ"):
        check_parity(other, hf_model)
