"""Whatever architecture `transformers` can build tiny is sampled and read as by plain passes, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from stepsearch_data.core.errors import TrainError
from stepsearch_data.trainer.architecture import check_architecture
from stepsearch_data.trainer.batch import collate
from stepsearch_data.trainer.causal_lm import log_probabilities, trunk_of
from stepsearch_data.trainer.model import Critic
from stepsearch_data.trainer.rollout import roll_out
from stepsearch_data.trainer.sampler import has_plain_kv_cache
from stepsearch_data.trainer.search_env import SearchEnv
from tests.trainer.architectures import tiny
from tests.trainer.test_sampler import Recorder, anew
from tests.trainer.tiny import TASKS, retrieve

KEPT = {
    "cohere2", "deepseek_v3", "gemma", "gemma2", "gemma3", "gemma3_text", "gemma4", "glm4", "gpt2", "gpt_neox",
    "gpt_oss", "granite", "llama", "llama4_text", "mistral", "mixtral", "olmo2", "olmo3", "opt", "phi3", "qwen2",
    "qwen3", "qwen3_moe", "smollm3", "starcoder2",
}  # fmt: skip
ANEW = {"bamba", "falcon_h1", "granitemoehybrid", "jamba", "lfm2", "mamba2", "nemotron_h", "qwen3_5_text", "qwen3_next"}
REFUSED = {
    "bart": "turn by turn it reads a text otherwise than at once",  # counts places of its own, padding too
    "bert": "turn by turn it reads a text otherwise than at once",  # reads what comes later
    "deepseek_v4": "it keeps what it has read in DeepseekV4",
    "mamba": "turn by turn it reads a text otherwise than at once",  # reads the padding
    "reformer": "not as wide as its configuration says",
}
ROUGH = {"zamba2": 0.05}
"""How far single steps of `transformers` are from its own pass over a whole text, without any padding."""
UNBUILT = {"blt", "dots3_note", "dots3_note_text", "gemma4_unified", "inkling2_text", "inkling2_loop_text"}
"""Tables of them cannot be made small, or are smaller then than the vocabulary."""


def build(name: str, vocabulary: int) -> Any:
    """A model; where that fails the test is skipped, with the reason."""
    try:
        return tiny(name, vocabulary)
    except Exception as error:  # a configuration may want anything
        if name in KEPT | ANEW | REFUSED.keys():
            raise
        return pytest.skip(f"{name} is not built tiny: {type(error).__name__}: {str(error)[:120]}")


def refusal(model: Any, tokenizer: Any) -> str:
    """Why a model is refused, empty where it is not."""
    try:
        check_architecture(model, tokenizer)
    except TrainError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # some architectures are deprecated, or miss fast kernels
@pytest.mark.parametrize("name", sorted(set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - UNBUILT))
def test_an_architecture_is_right_or_refused(name: str, tokenizer: Any, env: SearchEnv) -> None:
    """Rows of different lengths, several turns, dropped rows; windows of 8 tokens in texts of up to 100."""
    model = build(name, len(tokenizer))
    said = refusal(model, tokenizer)
    if name in REFUSED or said:
        assert said.startswith(f"{type(model).__name__} cannot be trained here: ")
        assert REFUSED.get(name, "") in said
        assert name not in KEPT | ANEW
        return
    assert has_plain_kv_cache(model) or name not in KEPT
    assert not has_plain_kv_cache(model) or name not in ANEW
    torch.manual_seed(0)
    sampler = Recorder(model, tokenizer)
    episodes = roll_out(TASKS * 8, env, sampler, retrieve)
    assert max(len(episode.response_ids) for episode in episodes) > 20  # so many that one is long
    plain = [anew(model, episode.prompt_ids + episode.response_ids) for episode in episodes]
    batch = collate(episodes, [[] for _ in episodes], pad=0, device=torch.device("cpu"))
    expected = torch.cat([each[batch.response_mask[row, 1 : len(each) + 1]] for row, each in enumerate(plain)])
    torch.testing.assert_close(
        torch.tensor(sorted(sampler.seen)), expected.sort().values, atol=ROUGH.get(name, 1e-3), rtol=0
    )
    read = log_probabilities(model, batch.input_ids, batch.response_mask, 1.0)[0]
    torch.testing.assert_close(read[batch.response_mask], expected, atol=1e-3, rtol=0)
    values = Critic(trunk_of(model))(batch.input_ids)
    assert values.shape == batch.input_ids.shape
    values[batch.response_mask].sum().backward()
