"""TRL's own trainers prepare our files: what they learn is what the model writes. `make test-train` installs TRL."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.exports.conftest import Export, path_of, rows_of

_MISSING = [name for name in ("torch", "transformers", "trl") if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_MISSING), reason=f"needs {', '.join(_MISSING)}: make test-train installs it"),
    pytest.mark.filterwarnings("default"),  # these are TRL's and torch's own
]
QUIET: dict[str, Any] = {"report_to": "none", "use_cpu": True, "max_steps": 1, "per_device_train_batch_size": 2}


@pytest.fixture(autouse=True)
def _no_telemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A tokenizer of single bytes with Qwen2.5's chat template, in the version that marks what the assistant wrote."""
    import trl

    from tests.byte_tokenizer import byte_tokenizer

    templates = Path(trl.__file__).parent / "chat_templates"
    return byte_tokenizer((templates / "qwen2_5_training.jinja").read_text())


@pytest.fixture
def model(tokenizer: Any, tmp_path: Path) -> Any:
    """A Llama of a few thousand random parameters; from a folder, because DPO loads its reference from there."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=32_768, num_key_value_heads=2, **size, **ids
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "model")
    return LlamaForCausalLM.from_pretrained(tmp_path / "model")


def loaded(export: Export, cache: str, form: str, template: str) -> Any:
    file = str(path_of(export(form, template)))
    return datasets.load_dataset("parquet", data_files=file, cache_dir=cache)["train"].select(range(8))


def learnt(row: dict[str, Any], tokenizer: Any) -> str:
    """The text of the tokens that carry a loss."""
    return str(tokenizer.decode([label for label in row["labels"] if label != -100]))


def test_sft_learns_the_assistants_turns_of_a_chat(
    export: Export, hub_cache: str, tokenizer: Any, model: Any, tmp_path: Path
) -> None:
    from trl import SFTConfig, SFTTrainer

    rows = loaded(export, hub_cache, "trl-sft", "tools")
    settings = SFTConfig(str(tmp_path), assistant_only_loss=True, max_length=None, **QUIET)
    trainer = SFTTrainer(model, settings, train_dataset=rows, processing_class=tokenizer)
    for row, ours in zip(trainer.train_dataset, rows_of(export("trl-sft", "tools")), strict=False):
        text = learnt(row, tokenizer)
        assert "<answer>" in text
        assert "tool_response" not in text
        for message in ours["messages"]:
            if message["role"] == "tool":
                assert message["content"] in tokenizer.decode(row["input_ids"])
                assert message["content"] not in text
            elif message["role"] == "assistant":
                assert message["content"] in text
                assert all(call["function"]["arguments"]["query"] in text for call in message.get("tool_calls", []))
    trainer.train()


def test_sft_learns_the_completions_of_tagged_text(
    export: Export, hub_cache: str, tokenizer: Any, model: Any, tmp_path: Path
) -> None:
    from trl import SFTConfig, SFTTrainer

    rows = loaded(export, hub_cache, "trl-sft", "musique")
    settings = SFTConfig(str(tmp_path), max_length=None, **QUIET)
    trainer = SFTTrainer(model, settings, train_dataset=rows, processing_class=tokenizer)
    for row, ours in zip(trainer.train_dataset, rows, strict=True):
        assert learnt(row, tokenizer) == ours["completion"] + tokenizer.eos_token
    trainer.train()


@pytest.mark.parametrize("template", ["musique", "tools"])
def test_dpo_trains_on_pairs(
    template: str, export: Export, hub_cache: str, tokenizer: Any, model: Any, tmp_path: Path
) -> None:
    from trl import DPOConfig, DPOTrainer

    rows = loaded(export, hub_cache, "trl-dpo", template)
    trainer = DPOTrainer(
        model, args=DPOConfig(str(tmp_path), max_length=None, **QUIET), train_dataset=rows, processing_class=tokenizer
    )
    for row in trainer.train_dataset:
        chosen, rejected = tokenizer.decode(row["chosen_ids"]), tokenizer.decode(row["rejected_ids"])
        assert chosen != rejected
        assert not re.search("information>|tool_response", chosen + rejected)
    trainer.train()


def test_grpo_hands_our_columns_to_the_rewards(
    export: Export, hub_cache: str, tokenizer: Any, model: Any, tmp_path: Path
) -> None:
    from trl import GRPOConfig, GRPOTrainer

    seen: list[dict[str, Any]] = []

    def reward(completions: list[Any], **columns: Any) -> list[float]:
        seen.append(columns)
        return [0.0] * len(completions)

    rows = loaded(export, hub_cache, "trl-grpo", "musique")
    settings = GRPOConfig(str(tmp_path), max_completion_length=2, num_generations=2, **QUIET)
    GRPOTrainer(model, reward, settings, rows, processing_class=tokenizer).train()
    assert seen[0]["target"][0] in rows["target"]
    assert all(isinstance(key, str) and len(key) > 1 for keys in seen[0]["search_keys"][0] for key in keys)
    assert set(seen[0]["support_docs"][0][0]) == {"title", "paragraph_text"}
