"""Every architecture that `transformers` knows as a causal language model, a few thousand weights of each."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedConfig

SIZES = {
    256: "max_position_embeddings n_positions n_ctx keep_window_size index_topk indexer_budget",
    128: "original_max_position_embeddings",
    64: "mamba_d_ssm",
    48: """intermediate_size ffn_dim ffn_hidden_size decoder_ffn_dim encoder_ffn_dim dff dim_ff d_inner
        feed_forward_size dense_intermediate_size""",
    32: """hidden_size d_model n_embd emb_dim embedding_size embedding_dim word_embed_proj_dim input_embedding_size
        output_embedding_size attention_hidden_size lru_width""",
    16: """moe_intermediate_size shared_expert_intermediate_size moe_shared_expert_intermediate_size q_lora_rank
        shared_intermediate_size kv_lora_rank o_lora_rank expert_ffn_hidden_size""",
    8: """head_dim attention_head_dim dim_head kv_channels attention_head_size qk_nope_head_dim qk_rope_head_dim
        v_head_dim linear_key_head_dim linear_value_head_dim linear_head_dim mamba_n_heads mamba_d_head mamba_d_state
        mamba_chunk_size mamba_num_heads mamba_head_dim ssm_state_size state_size chunk_size mamba_headdim
        sliding_window sliding_window_size attention_chunk_size attention_window_size local_attention window_size
        index_head_dim indexer_head_dim index_block_size laurel_rank block_size ple_embed_dim
        hidden_size_per_layer_input""",
    4: """num_hidden_layers n_layer n_layers num_layers num_attention_heads n_head n_heads decoder_attention_heads
        encoder_attention_heads num_decoder_attention_heads num_encoder_attention_heads rotary_dim num_experts
        num_local_experts n_routed_experts moe_num_experts linear_num_value_heads mamba_dt_rank time_step_rank
        adapter_rank indexer_compress_ratio""",
    2: """decoder_layers encoder_layers num_decoder_layers num_encoder_layers num_key_value_heads num_kv_heads moe_topk
        num_experts_per_tok moe_k linear_num_key_heads mamba_expand n_mamba_heads index_n_heads indexer_n_heads
        eos_token_id zero_expert_num""",
    1: "bos_token_id n_group topk_group mamba_n_groups n_groups mamba_ngroups n_shared_experts indexer_kv_heads",
    0: "pad_token_id",
}
"""Windows of 8 are smaller than any text; what selects the best tokens selects all, as it would jump with rounding."""

LINEAR = ["linear_attention", "full_attention"] * 2
OWN: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {"layer_types": ["sliding_attention", "full_attention"] * 2},
    "gemma3n_text": {"layer_types": ["sliding_attention", "full_attention"] * 2, "num_kv_shared_layers": 2},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": LINEAR},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "kimi_linear": {"layer_types": LINEAR},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 2},
    "mamba2": {"num_heads": 8},
    "reformer": {"is_decoder": True, "axial_pos_shape": [16, 16], "axial_pos_embds_dim": [16, 16], "num_buckets": 4},
    "xmod": {"default_language": "en_XX"},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}
"""What an architecture's validation or layers want besides."""


def tiny(name: str, vocabulary: int) -> Any:
    """A model of an architecture, whose random weights are large enough that nothing it does is lost in rounding."""
    config = CONFIG_MAPPING[name](**_values(CONFIG_MAPPING[name], vocabulary, OWN.get(name, {})))
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def _values(kind: type[PreTrainedConfig], vocabulary: int, own: dict[str, Any]) -> dict[str, Any]:
    sizes: dict[str, Any] = {name: size for size, names in SIZES.items() for name in names.split()}
    sizes |= dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "n_words", "ngram_vocab_size_base"), vocabulary)
    sizes |= {"initializer_range": 0.2, "init_std": 0.2}
    known = {field.name for field in fields(kind)} if is_dataclass(kind) else set()
    if "kv_lora_rank" in known:
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    values = {name: value for name, value in sizes.items() if name in known}
    whole = kind() if kind.sub_configs else None
    for name, stated in kind.sub_configs.items():
        part = type(getattr(whole, name)) if getattr(whole, name, None) is not None else stated
        if part is not AutoConfig:
            values[name] = {**_values(part, vocabulary, {}), "model_type": part.model_type}
    return values | own
