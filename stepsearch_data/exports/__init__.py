"""A store's trajectories in the file formats of trainers.

`reading` makes examples of a store, which a template writes as text (`templates`). `rl`, `sft` and `preferences` hold
one small function per format, `traces` those of what policies did. `formats` declares them. `files` and `export`
write them.
"""

from stepsearch_data.core.plugins import Registry

_OURS = (
    "verl",
    "stepsearch",
    "search-r1",
    "verl-sft",
    "trl-sft",
    "trl-grpo",
    "curriculum",
    "trl-dpo",
    "trl-stepwise",
    "llama-factory",
    "sharegpt",
    "skyrl",
    "verifiers",
    "traces",
    "atif",
    "corpus",
    "marks-jsonl",
    "argilla",
    "label-studio",
)
FORMATS = Registry(
    "stepsearch_data.exports",
    "format",
    {name: f"stepsearch_data.exports.formats:{name.replace('-', '_').upper()}" for name in _OURS},
)
