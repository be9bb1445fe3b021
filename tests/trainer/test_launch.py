"""A training from a recipe, from its cold start to the evaluation of its checkpoint."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import partial
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs torch: make test-train")

from accelerate.utils import DistributedType
from transformers import AutoModelForCausalLM, AutoTokenizer

from stepsearch_data.core.errors import ConfigError, TrainError
from stepsearch_data.core.progress import Reporter
from stepsearch_data.evaluation.evaluate import evaluate
from stepsearch_data.evaluation.setup import Options
from stepsearch_data.indexes import Choice
from stepsearch_data.pipeline.store import Store
from stepsearch_data.synth import WorldConfig, write_world
from stepsearch_data.templates.files import load_template
from stepsearch_data.trainer import demo
from stepsearch_data.trainer.data import demonstrate, demonstration, load_examples
from stepsearch_data.trainer.demo.tiny import make_model, make_tokenizer
from stepsearch_data.trainer.forms import Tags
from stepsearch_data.trainer.launch import _check_sharding, make_accelerator
from stepsearch_data.trainer.recipe import load_recipe
from stepsearch_data.trainer.start import train
from tests.conftest import run_cli
from tests.trainer.processes import ROOT, sharded, torchrun
from tests.trainer.test_steppo_trainer import metrics
from tests.trainer.tiny import load

TEMPLATE = Path(demo.__path__[0]) / "template.txt"
RECIPE = """
template = "words.txt"
held_out = 4
[model]
path = "{model}"
[sft]
max_steps = 4
batch_size = 4
micro_batch_size = 2
learning_rate = 1e-3
[schedule]
num_updates = 2
rollout_batch_size = 4
learning_rate = 1e-3
vf_learning_rate = 1e-3
warmup_ratio = 0
save_steps = 1
eval_steps = 2
[ppo]
mini_batch_size = 2
micro_batch_size = 1
[limits]
max_turns = 3
topk = 1
max_length = 300
max_new_tokens = 20
"""


@pytest.fixture(scope="module")
def recipe(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe beside its template, of a tiny model."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("recipe")
    template = load_template(str(TEMPLATE))
    examples = load_examples(Store.open(store), "train")
    tokenizer = make_tokenizer(text for each in examples for text, _ in demonstration(each, template))
    make_model(tokenizer, width=16, layers=2).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "words.txt").write_text(TEMPLATE.read_text())
    (folder / "tiny.toml").write_text(RECIPE.format(model=folder / "model"))
    return folder / "tiny.toml"


def launch(recipe: Path, store: Path, output: Path, *settings: str, resume: bool = False) -> list[str]:
    """Train; what was said."""
    said: list[str] = []
    chosen = load_recipe(recipe, [f"store={store}", f"output={output}", *settings])
    train(chosen, Choice(store=store), load, said.append, resume=resume, quiet=True)
    return said


LORA = "model.lora_rank=4"
STANDIN = Path(__file__).with_name("standin")  # for vLLM


@pytest.mark.parametrize("settings", [(), (LORA,)], ids=["all weights", "LoRA"])
def test_from_a_cold_start_to_the_evaluation_of_a_checkpoint(
    recipe: Path, store: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    said = launch(recipe, store, tmp_path / "run", *settings)
    assert said[0] == f"no trajectory of {store} is for validation: nothing is held out"
    assert said[1].startswith("cold start: ")
    first = metrics(tmp_path / "run")
    assert [row["update"] for row in first] == [1, 2]
    assert first[0]["kl"] == pytest.approx(0, abs=1e-6)  # the reference is the cold start
    assert first[1]["kl"] != pytest.approx(0, abs=1e-6)
    said = launch(recipe, store, tmp_path / "run", *settings, "schedule.num_updates=3", resume=True)
    assert said[1].startswith("cold start: taken from")
    assert said[2] == "goes on after update 2"
    assert metrics(tmp_path / "run")[:2] == first
    assert len(metrics(tmp_path / "run")) == 3
    with pytest.raises(ConfigError, match=r"cold-start was made with another \[sft\]"):
        launch(recipe, store, tmp_path / "run", *settings, "sft.learning_rate=0.5", resume=True)
    assert not list((tmp_path / "run").glob(".*"))
    saved = tmp_path / "run" / "checkpoint-000003" / "policy"
    assert (saved / "adapter_config.json").exists() == bool(settings)
    report = evaluate(Options(str(tmp_path / "run"), limit=3, split="train"), load, Reporter(quiet=True))
    assert report.measures["all"]["all"]["questions"] == 3
    assert report.settings["model"] == str(saved)
    kept = tmp_path / "run" / "template.txt"  # the recipe's own file may change
    assert report.settings["template"].startswith(f"{kept} ")
    assert load_template(str(kept)).parts == load_template(str(TEMPLATE)).parts
    assert report.settings["limits"]["max_new_tokens"] == 20


def test_the_cold_start_is_a_whole_model_that_has_learnt(recipe: Path, store: Path, tmp_path: Path) -> None:
    """With LoRA too: policy, critic and reference are loaded from it."""
    before = loss_of(recipe.parent / "model", store)
    for settings, share in (((), 0.9), ((LORA,), 0.98)):  # adapters of random weights can do little
        output = tmp_path / str(share)
        launch(recipe, store, output, "schedule.num_updates=0", "sft.max_steps=40", "sft.learning_rate=1e-2", *settings)
        assert not (output / "cold-start" / "adapter_config.json").exists()
        assert loss_of(output / "cold-start", store) < share * before


def loss_of(model: Path, store: Path) -> float:
    """Of what the policy writes in the gold trajectories."""
    policy, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    template = load_template(str(TEMPLATE))
    losses = []
    for each in load_examples(Store.open(store), "train"):
        row = demonstrate(each, template, Tags(tokenizer.encode), tokenizer.encode, tokenizer.eos_token_id)
        ids, labels = (torch.tensor([row[name]]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            losses.append(float(policy(ids, labels=labels).loss))
    return sum(losses) / len(losses)


def test_gradient_checkpointing_changes_nothing(recipe: Path, store: Path, tmp_path: Path) -> None:
    for name, settings in {"plain": (), "saving": ("model.gradient_checkpointing=true",)}.items():
        launch(recipe, store, tmp_path / name, *settings)
    for plain, saving in zip(metrics(tmp_path / "plain"), metrics(tmp_path / "saving"), strict=True):
        assert saving == pytest.approx(plain, rel=1e-4, abs=1e-6)


def test_a_run_is_not_overwritten(recipe: Path, store: Path, tmp_path: Path) -> None:
    launch(recipe, store, tmp_path / "run", "schedule.num_updates=0")
    with pytest.raises(ConfigError, match="holds a training already") as refused:
        launch(recipe, store, tmp_path / "run")
    assert "--resume" in refused.value.hint


def test_a_run_with_a_critic_does_not_go_on_without_one(recipe: Path, store: Path, tmp_path: Path) -> None:
    output, without = tmp_path / "run", "ppo.group_size=4"
    launch(recipe, store, output, "schedule.num_updates=0")
    with pytest.raises(ConfigError, match=r"holds a training with a critic, by ppo\.group_size = 1"):
        launch(recipe, store, output, without, resume=True)
    other = tmp_path / "other"
    launch(recipe, store, other, LORA, without, "schedule.num_updates=1")
    launch(recipe, store, other, LORA, "ppo.group_size=2", resume=True)  # another group may
    assert [row["update"] for row in metrics(other)] == [1, 2]
    with pytest.raises(ConfigError, match=r"holds a training with no critic, by ppo\.group_size = 2"):
        launch(recipe, store, other, LORA, resume=True)


def test_a_run_of_another_version_is_not_gone_on_with(recipe: Path, store: Path, tmp_path: Path) -> None:
    (tmp_path / "checkpoint-000001").mkdir()
    (tmp_path / "recipe.json").write_text('{"model": {"path": "m"}, "schedule": {"updates": 2}}')
    with pytest.raises(ConfigError, match=r"schedule\.updates is unknown") as refused:
        launch(recipe, store, tmp_path, resume=True)
    assert refused.value.hint == "go on with the version that began it, or choose another --output"


@pytest.mark.parametrize(
    ("setting", "error", "said"),
    [
        ("template=tools", ConfigError, "calls a tool"),
        ("sft.batch_size=5", TrainError, "batch of 5 demonstrations cannot be cut into micro batches of 2"),
        ("model.path=/none", TrainError, "cannot load"),
    ],
)
def test_what_cannot_be_trained_is_said_first(
    recipe: Path, store: Path, tmp_path: Path, setting: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        launch(recipe, store, tmp_path / "run", setting)


def test_the_verb_trains(recipe: Path, store: Path, tmp_path: Path) -> None:
    """In words on stderr; on stdout only where the checkpoint is. No library says anything."""
    arguments = ("--config", recipe, "--store", store, "--output", tmp_path / "run")
    done = run_cli("train", *arguments, env={"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "run" / "checkpoint-000002")
    assert all(
        line.startswith(("no trajectory of ", "cold start: ", "update ")) for line in done.stderr.splitlines()
    ), done.stderr
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (about["variant"], about["seed"]) == ("paper", 0)
    again = run_cli("train", *arguments, "--quiet", "--resume", "--set", "schedule.num_updates=3")
    assert (again.returncode, again.stderr) == (0, "")


def test_a_retriever_that_is_down_is_one_line(recipe: Path, store: Path, tmp_path: Path) -> None:
    arguments = ("--config", recipe, "--store", store, "--output", tmp_path / "run", "--quiet")
    broken = ("--engine", "http=http://127.0.0.1:9", "--set", "engines.http.max_attempts=1")
    searching = ("--set", "sft.max_steps=100", "--set", "sft.learning_rate=1e-2")
    done = run_cli("train", *arguments, *broken, *searching)
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 2, done.stderr


def test_two_processes_train_together(recipe: Path, tmp_path: Path) -> None:
    """One cold start, one set of metrics, over the rollouts of both; held-out questions are shared between them."""
    write_world(WorldConfig(20, 100, 1, 6, 1), tmp_path / "world.jsonl")
    source = ("--source", f"musique={tmp_path / 'world.jsonl'}", "--set", "quality.validation=0.3")
    run_cli("build", "--store", tmp_path / "store", *source, "--quiet")
    settings = options("schedule.rollout_batch_size=8", "held_out=3")
    given = ("--config", recipe, "--store", tmp_path / "store", *settings)
    for name, processes in {"one": 1, "two": 2}.items():
        cut = options("ppo.mini_batch_size=8", "ppo.micro_batch_tokens=400") if processes > 1 else []
        done = torchrun(processes, "-m", "stepsearch_data", "train", *given, *cut, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert sum("trajectories, 4 steps" in line for line in done.stderr.splitlines()) == 1
        assert done.stdout.splitlines() == [str(tmp_path / name / "checkpoint-000002")]
        states = (tmp_path / name / "checkpoint-000002" / "state").glob("random_states_*")
        assert len(list(states)) == processes
    one, two = metrics(tmp_path / "one"), metrics(tmp_path / "two")
    assert [row["update"] for row in two] == [0, 1, 2]
    assert two[1]["rollouts"] == 8
    assert two[0].keys() == one[0].keys() >= {"eval_em", "eval_searches"}


def whole(recipe: Path, folder: Path) -> Path:
    """The recipe without its cold start, in a folder of its own."""
    (folder / "whole.toml").write_text(re.sub(r"\[sft\].*(?=\[schedule\])", "", recipe.read_text(), flags=re.DOTALL))
    (folder / "words.txt").write_text(TEMPLATE.read_text())
    return folder / "whole.toml"


def options(*settings: str) -> list[str]:
    """Settings as options of a command."""
    return [word for setting in settings for word in ("--set", setting)]


NEEDS_DEEPSPEED = pytest.mark.skipif(not find_spec("deepspeed"), reason="needs deepspeed")
ZERO_2 = pytest.param("zero2.yaml", marks=NEEDS_DEEPSPEED)


@pytest.mark.parametrize(
    ("accelerate", "norm"),
    [
        ("fsdp2.yaml", 0.05),
        # DeepSpeed clips the gradients of policy and critic together, the others apart: compared without any clipping.
        pytest.param("zero2.yaml", 1e9, marks=NEEDS_DEEPSPEED),
    ],
)
def test_sharded_weights_learn_the_same(
    recipe: Path, store: Path, tmp_path: Path, accelerate: str, norm: float
) -> None:
    """As whole ones on each process: cut off after two updates and gone on, to the weights of the third.

    Cut into micro batches by tokens, of which one process may have more than the other.
    """
    settings = ("schedule.temperature=0.9", "ppo.mini_batch_size=4", f"ppo.max_grad_norm={norm}")
    given = [
        "--config",
        whole(recipe, tmp_path),
        "--store",
        store,
        *options("schedule.rollout_batch_size=8", *settings),
    ]
    three, cut = options("schedule.num_updates=3"), options("ppo.micro_batch_tokens=400")
    runs = [
        torchrun(2, "-m", "stepsearch_data", "train", *given, *three, "-o", tmp_path / "one"),
        sharded(accelerate, "train", *given, *cut, "-o", tmp_path / "parts"),
        sharded(accelerate, "train", *given, *cut, *three, "-o", tmp_path / "parts", "--resume"),
    ]
    assert [run.returncode for run in runs] == [0, 0, 0], [run.stderr for run in runs]
    one, parts = metrics(tmp_path / "one"), metrics(tmp_path / "parts")
    for ours, theirs in zip(one, parts, strict=True):
        # A quotient of variances, of which one is near 0 here.
        assert ours.pop("explained_variance") == pytest.approx(theirs.pop("explained_variance"), rel=1e-3)
        expected = {k: v for k, v in theirs.items() if "norm" not in k}
        assert {k: ours[k] for k in expected} == pytest.approx(expected, rel=1e-4, abs=1e-6)
    folders = (tmp_path / name / "checkpoint-000003" / "policy" for name in ("one", "parts"))
    policies = (AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in folders)
    torch.testing.assert_close(*policies, atol=1e-6, rtol=0)


@pytest.mark.parametrize("accelerate", ["fsdp2.yaml", ZERO_2])
def test_in_bfloat16_policy_reference_and_sampler_compute_alike(recipe: Path, tmp_path: Path, accelerate: str) -> None:
    """Log-probabilities are float32 and the same from all three; after an update from policy and sampler only."""
    done = sharded(accelerate, Path(__file__).with_name("precision.py"), recipe.parent / "model", tmp_path)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["types"], told["rounded"]) == (["torch.float32"] * 3, [False] * 3)
    assert told["apart"] == [0, 0, 0]
    assert told["kl"] == 0
    assert told["apart_after"][2] == 0
    assert told["apart_after"][1] > 0.01
    assert told["reference_moved"] == 0
    assert told["saved"] == "torch.bfloat16"  # what was sampled


def test_vllm_takes_weights_in_parts_and_sleeps(recipe: Path, store: Path, tmp_path: Path) -> None:
    """Each process has an engine, which gets the whole weights: it finds each token as likely as the trainer does."""
    sizes = options("schedule.rollout_batch_size=8", "ppo.mini_batch_size=4")
    engine = options("vllm.mode=colocate", f"model.path={recipe.parent / 'model'}")
    given = ["--config", whole(recipe, tmp_path), "--store", store, *sizes, *engine]
    done = sharded("fsdp2.yaml", "train", *given, "-o", tmp_path / "run", packages=STANDIN)
    assert done.returncode == 0, done.stderr
    rows = metrics(tmp_path / "run")
    assert [row["update"] for row in rows] == [1, 2]
    for row in rows:
        assert row["sampling_logp_difference"] == pytest.approx(0, abs=1e-5)
        assert row["sampling_logp_difference"] <= row["sampling_logp_difference_max"] < 1e-4
        assert row["sampling_ratio_capped"] == 0


@pytest.mark.parametrize("parts", [False, True], ids=["whole weights", "in parts"])
def test_several_processes_roll_out_the_next_batch_meanwhile(
    recipe: Path, store: Path, tmp_path: Path, parts: bool
) -> None:
    """Each its own part. From a checkpoint they go on as a run that nobody disturbed."""
    launched = partial(sharded, "fsdp2.yaml") if parts else partial(torchrun, 2, "-m", "stepsearch_data")
    sizes = ("rollout_batch_size=8", "num_updates=4", "save_steps=1", "save_total_limit=9", "overlap=true")
    settings = options(*(f"schedule.{size}" for size in sizes), "ppo.mini_batch_size=4")
    run = tmp_path / "run"
    given = ("train", "--config", whole(recipe, tmp_path), "--store", store, *settings, "-o", run)
    done = launched(*given)
    assert done.returncode == 0, done.stderr
    undisturbed = metrics(run)
    assert [row["sampling_logp_difference"] > 1e-6 for row in undisturbed] == [False, True, True, True]
    kept = {path.name for path in (run / "checkpoint-000002").glob("ahead*")}
    assert kept == {"ahead-0-of-2.json", "ahead-1-of-2.json"}
    for update in (3, 4):
        shutil.rmtree(run / f"checkpoint-00000{update}")
    done = launched(*given, "--resume")
    assert done.returncode == 0, done.stderr
    assert metrics(run) == undisturbed


@pytest.mark.parametrize("how", ["whole weights", "in parts", "overlap"])
def test_a_server_of_vllm_writes_for_all_processes(recipe: Path, store: Path, tmp_path: Path, how: str) -> None:
    """It gets the weights once for each batch, and nobody is answered by older ones."""
    done = served(recipe, store, tmp_path, f"schedule.overlap={how == 'overlap'}".lower(), parts=how == "in parts")
    assert done.returncode == 0, done.stderr
    rows = metrics(tmp_path / "run")
    assert [row["update"] for row in rows] == [1, 2]
    assert [row["sampling_logp_difference_max"] < 1e-4 for row in rows] == [True, how != "overlap"]
    asked = json.loads((tmp_path / "asked.json").read_text())
    writing = "/v1/completions"
    batches = [[*run] for _, run in groupby(asked, key=lambda path: path == writing)]
    synced = ["/start_weight_update", "/update_weights", "/finish_weight_update", "/reset_prefix_cache"]
    assert [run[-4:] for run in batches[::2]] == [synced, synced]
    assert all(run.count(writing) > 3 for run in batches[1::2])  # in turn, of which an episode has three


@pytest.mark.parametrize("overlap", [False, True], ids=["batch by batch", "overlap"])
def test_a_server_of_vllm_that_fails_ends_all_processes(
    recipe: Path, store: Path, tmp_path: Path, overlap: bool
) -> None:
    done = served(recipe, store, tmp_path, f"schedule.overlap={overlap}".lower(), fails=2)
    assert done.returncode != 0
    assert "error: vLLM does not take the weights: Request failed: 400" in done.stderr
    assert "error: rollouts failed in another process" in done.stderr
    learnt = 0 if overlap else 1  # the second batch would have begun before the first is learnt
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == [f"checkpoint-00000{learnt}"]


def served(
    recipe: Path, store: Path, folder: Path, *settings: str, parts: bool = False, fails: int = 0
) -> subprocess.CompletedProcess[str]:
    """A training of two processes by a server that does not take the weights of that batch."""
    model, program = recipe.parent / "model", Path(__file__).with_name("served.py")
    sizes = options("schedule.rollout_batch_size=8", "ppo.mini_batch_size=4", *settings)
    engine = options("vllm.mode=server", "vllm.enable_sleep_mode=false", f"model.path={model}")
    given = ("--config", whole(recipe, folder), "--store", store, *sizes, *engine, "-o", folder / "run")
    launched = partial(sharded, "fsdp2.yaml") if parts else partial(torchrun, 2)
    return launched(program, folder, model, fails, "train", *given, packages=STANDIN)


@NEEDS_DEEPSPEED
def test_zero_3_is_refused_before_anything_is_loaded(recipe: Path, store: Path, tmp_path: Path) -> None:
    zero_2 = (ROOT / "recipes" / "accelerate" / "zero2.yaml").read_text()
    (tmp_path / "zero3.yaml").write_text(zero_2.replace("zero_stage: 2", "zero_stage: 3"))
    refused = sharded(tmp_path / "zero3.yaml", "train", "--config", recipe, "--store", store, "-o", tmp_path / "run")
    assert refused.returncode != 0
    assert "error: DeepSpeed ZeRO-3 does not run\nhint: recipes/accelerate/fsdp2.yaml" in refused.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("DEEPSPEED", {"deepspeed_plugin": SimpleNamespace(zero_stage=3)}),
        ("FSDP", {"fsdp_plugin": SimpleNamespace(fsdp_version=1)}),
        ("MEGATRON_LM", {}),
    ],
)
def test_ways_to_shard_that_do_not_run(recipe: Path, kind: str, state: dict[str, Any]) -> None:
    """The others than ZeRO-3 cannot be begun without a GPU."""
    accelerator: Any = SimpleNamespace(distributed_type=DistributedType[kind], state=SimpleNamespace(**state))
    with pytest.raises(ConfigError, match="not run") as refused:
        _check_sharding(load_recipe(recipe), accelerator)
    assert refused.value.hint.startswith("recipes/accelerate/fsdp2.yaml")


def test_what_sharded_weights_do_not_allow(recipe: Path, store: Path, tmp_path: Path) -> None:
    refused = sharded("fsdp2.yaml", "train", "--config", recipe, "--store", store, "-o", tmp_path, "--set", LORA)
    assert refused.returncode != 0
    assert "error: LoRA does not run with FSDP\nhint: " in refused.stderr


def test_another_bf16_in_one_process_is_said(recipe: Path) -> None:
    make_accelerator(load_recipe(recipe))
    with pytest.raises(ConfigError, match="accelerate refuses bf16 = true") as refused:
        make_accelerator(load_recipe(recipe, ["bf16=true"]))
    assert "another process" in refused.value.hint


def test_overlap_beside_vllm_on_the_same_gpu_is_refused(recipe: Path, store: Path, tmp_path: Path) -> None:
    settings = ("vllm.mode=colocate", "schedule.overlap=true", f"model.path={recipe.parent / 'model'}")
    with pytest.raises(ConfigError, match=r"schedule\.overlap does not run") as refused:
        launch(recipe, store, tmp_path, *settings)
    assert "server" in str(refused.value.hint)
