"""StePPO: step-wise PPO for language models that search.

    from stepsearch_data.trainer import Schedule, StePPO

Nine files hold what there is to understand. Read them in this order:

config          the settings, named as TRL and verl name them
search_env      the environment: the rules between the policy and the search engine
rollout         many episodes at once
episode_score   what an episode earns, and on which tokens
batch           episodes as tensors
losses          advantages and losses, as pure tensor functions
model           policy and critic as one module, and the frozen reference policy
update          compute_advantages and ppo_update: one update from a batch
steppo_trainer  the loop around it

Beside them stands what makes it run. Which tokens: sampler (`transformers`), vllm, stops, chat, forms (tags,
messages, calls), characters. Models: causal_lm, architecture (which ones can be trained), loading, optimizer,
estimate (memory and time). A run: steppo (from Python), start, launch, check (before it), recipe, data, retrieval, sft
(the cold start), ahead (the next batch beside an update), run_folder, checkpoint, metrics, held_out, distributed,
callbacks. Beyond the paper: answer_gain. The experiment:
demo. `evaluation`, a package of its own, asks a policy questions and compares runs; `environments`, another, is for
other trainers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stepsearch_data.trainer.config import Limits, PPOConfig, Schedule
    from stepsearch_data.trainer.recipe import SFT, Rewards
    from stepsearch_data.trainer.steppo import StePPO
    from stepsearch_data.trainer.steppo_trainer import StePPOTrainer

__all__ = ["SFT", "Limits", "PPOConfig", "Rewards", "Schedule", "StePPO", "StePPOTrainer"]
_FILES = {"SFT": "recipe", "Rewards": "recipe", "StePPO": "steppo", "StePPOTrainer": "steppo_trainer"}


def __getattr__(name: str) -> Any:
    """Import what is named from its file: most commands need no torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(import_module(f"{__name__}.{_FILES.get(name, 'config')}"), name)
