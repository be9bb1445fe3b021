"""Each recipe's model loads, plays and learns: random weights of its architecture, a tokenizer of its kind, on CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from transformers import AutoModelForCausalLM, AutoTokenizer

from stepsearch_data.core.errors import TrainError
from stepsearch_data.indexes import Choice
from stepsearch_data.pipeline.store import Store
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer import sft
from stepsearch_data.trainer.chat import ChatFormat
from stepsearch_data.trainer.data import demonstration, load_examples
from stepsearch_data.trainer.loading import encoders, load_policy, load_tokenizer
from stepsearch_data.trainer.recipe import SFT, Recipe, load_recipe
from stepsearch_data.trainer.sampler import end_tokens
from stepsearch_data.trainer.start import train
from tests.trainer.families import CONFIGS, FAMILIES, Family, config_of, named, save_tiny
from tests.trainer.test_steppo_trainer import metrics
from tests.trainer.tiny import load

RECIPES = Path(__file__).parents[2] / "recipes"
PARAMETERS = {
    "gemma-3-4b": 4_300_079_472,
    "llama-3.2-3b": 3_212_749_824,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-4b": 4_022_468_096,
}
"""As published."""
SMALLER = [
    "held_out=2", "bf16=false",
    "schedule.num_updates=1", "schedule.rollout_batch_size=4", "schedule.warmup_ratio=0", "schedule.learning_rate=1e-3",
    "ppo.mini_batch_size=4", "ppo.micro_batch_size=2",
    "limits.max_turns=2", "limits.topk=1", "limits.max_length=1200", "limits.max_new_tokens=12",
]  # fmt: skip
Save = Callable[[Family, bool], Path]


@pytest.fixture(scope="module")
def save(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Save:
    """Saves a family's model, base or instruct, once."""
    template, found = load_template("musique"), dict[tuple[str, bool], Path]()
    texts = [text for each in load_examples(Store.open(store), "train") for text, _ in demonstration(each, template)]

    def saved(family: Family, instruct: bool) -> Path:
        if (family.recipe, instruct) not in found:
            folder = tmp_path_factory.mktemp(family.recipe)
            save_tiny(family, texts, folder, instruct=instruct)
            found[family.recipe, instruct] = folder
        return found[family.recipe, instruct]

    return saved


def recipe_of(family: Family, *settings: str) -> Recipe:
    return load_recipe(RECIPES / f"{family.recipe}.toml", settings)


KINDS = pytest.mark.parametrize("instruct", [False, True], ids=["base", "instruct"])
FAMILY = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.recipe)


@pytest.mark.parametrize("name", PARAMETERS)
def test_configurations_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config_of(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name]
    assert {file.stem for file in CONFIGS.glob("*.json")} == set(PARAMETERS)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")  # transformers asks for it itself
@KINDS
@FAMILY
def test_a_recipes_model_learns(family: Family, instruct: bool, save: Save, store: Path, tmp_path: Path) -> None:
    """From the shipped recipe, sizes and lengths alone overridden; what is saved loads again, and has moved."""
    torch.set_num_threads(1)
    folder = save(family, instruct)
    settings = [f"model.path={folder}", f"store={store}", f"output={tmp_path / 'run'}", *SMALLER]
    recipe = recipe_of(family, *settings).model_copy(update={"vllm": None})
    last = train(recipe, Choice(store=store), load, lambda _: None, resume=False, quiet=True)
    (row,) = [row for row in metrics(tmp_path / "run") if row["update"]]
    assert row["own_tokens"] > 0
    assert row["policy_grad_norm"] > 0
    assert row["critic_grad_norm"] > 0
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (folder, last / "policy"))
    assert type(before) is type(after)
    moved = {
        name.split(".")[1]
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if not torch.equal(old, new)
    }
    assert "vision_tower" not in moved
    assert moved
    templates = [AutoTokenizer.from_pretrained(path).chat_template for path in (folder, last / "policy")]
    assert templates[0] == templates[1]


@KINDS
@FAMILY
def test_a_text_is_its_tokens(family: Family, instruct: bool, save: Save) -> None:
    """Also with letters, spaces and line ends that the vocabulary has not seen: what is decoded is what was written."""
    tokenizer = load_tokenizer(str(save(family, instruct)))
    encode, _ = encoders(tokenizer, recipe_of(family).model.chat)
    text = "<think> It 's 12345 , isn 't it ? </think>\n\n<search>  Caf\u00e9 \u2603 </search></think>"
    tokens = encode(text)
    assert tokenizer.decode(tokens, clean_up_tokenization_spaces=False) == text
    assert not set(tokens) & set(tokenizer.all_special_ids)


@KINDS
@FAMILY
def test_turns_end_as_the_template_ends_them(family: Family, instruct: bool, save: Save) -> None:
    policy, tokenizer = load_policy(str(save(family, instruct)), recipe_of(family))
    ends = set(tokenizer.convert_ids_to_tokens(sorted(end_tokens(policy, tokenizer))))
    assert (family.instruct_end if instruct else family.base_end) in ends
    if tokenizer.chat_template:
        assert family.turn_end in ends


LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
    "Today Date: 26 Jul 2024\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
QWEN_2_5 = (
    "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
    "<|im_start|>user\nWho?\n<|im_end|>\n<|im_start|>assistant\n"
)
QWEN_3 = "<|im_start|>user\nWho?\n<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
GEMMA = "<bos><start_of_turn>user\nWho?<end_of_turn>\n<start_of_turn>model\n"


@pytest.mark.parametrize(
    ("recipe", "instruct", "expected"),
    [
        ("qwen2.5-3b", True, QWEN_2_5),
        ("qwen3-4b", True, QWEN_3),
        ("llama-3.2-3b", True, LLAMA),
        ("gemma-3-4b", True, GEMMA),
        ("llama-3.2-3b", False, "<|begin_of_text|>Who?\n"),
        ("gemma-3-4b", False, "<bos>Who?\n"),
    ],
)
def test_a_prompt(recipe: str, instruct: bool, expected: str, save: Save) -> None:
    """One beginning of text, no thinking mode, and no date that changes; without a template, plain text."""
    family = named(recipe)
    tokenizer = load_tokenizer(str(save(family, instruct)))
    _, encode_prompt = encoders(tokenizer, recipe_of(family).model.chat)
    assert tokenizer.decode(encode_prompt("Who?\n")) == expected


def test_a_template_that_refuses_is_an_error(save: Save) -> None:
    tokenizer = load_tokenizer(str(save(named("gemma-3-4b"), True)))
    with pytest.raises(TrainError, match="refuses: Conversation roles must alternate") as refused:
        ChatFormat(tokenizer, {}).prompt([{"role": "user", "content": "?"}] * 2)
    assert "model.chat_template = false" in refused.value.hint


def test_demonstrations_end_as_the_template_ends_messages(
    save: Save, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A base model of Qwen and an instruct model of Gemma know as their end the end of text."""
    seen: list[int] = []

    def note(*_: Any, train_dataset: Any, **__: Any) -> Any:
        seen.extend(row["labels"][-1] for row in train_dataset)
        raise Stopped

    monkeypatch.setattr(sft, "SFTTrainer", note)
    examples = list(load_examples(Store.open(store), "train"))
    for recipe, instruct in (("qwen2.5-3b", False), ("gemma-3-4b", True)):
        family = named(recipe)
        policy, tokenizer = load_policy(str(save(family, instruct)), recipe_of(family))
        seen.clear()
        with pytest.raises(Stopped):
            sft.cold_start(policy, tokenizer, examples, load_template("musique"), tmp_path, SFT(), use_cpu=True)
        assert set(seen) == {tokenizer.convert_tokens_to_ids(family.turn_end)}


class Stopped(Exception):
    """Before anything is trained."""


def test_adapters_are_where_text_is_read(save: Save) -> None:
    """Gemma 3's vision tower has none, and is frozen: no gradient would reach it."""
    for settings in ((), ("model.lora_rank=2",)):
        policy, _ = load_policy(str(save(named("gemma-3-4b"), True)), recipe_of(named("gemma-3-4b"), *settings))
        trained = [name for name, parameter in policy.named_parameters() if parameter.requires_grad]
        assert any("language_model.layers.0.self_attn" in name for name in trained)
        assert not [name for name in trained if "vision" in name or "multi_modal" in name]
        assert any("vision_tower" in name for name, _ in policy.named_parameters())
        assert not [name for name, _ in policy.named_parameters() if "vision" in name and "lora" in name]
