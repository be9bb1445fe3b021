"""The run file that `init` writes is complete, explained, and changes nothing."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from stepsearch_data.cli.run_file import run_file
from stepsearch_data.pipeline.config import EnginesSection, RunSettings, load_config
from stepsearch_data.search.kinds import kind_of, kinds
from stepsearch_data.stages import STAGES

TEXT = run_file(STAGES)
MODELS: dict[str, type[BaseModel]] = {
    "run": RunSettings,
    "engines": EnginesSection,
    **{stage.name: stage.config for stage in STAGES},
}


def test_it_parses_back_to_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(TEXT)
    written, default = load_config(STAGES, path, environment={}), load_config(STAGES, environment={})
    assert written.store == tmp_path / "store"
    assert written.sources == ("musique=sample", "hotpotqa=sample")
    assert (written.run, written.stages) == (default.run, default.stages)


def test_it_mentions_every_setting_with_its_meaning() -> None:
    for section, model in MODELS.items():
        part = TEXT.partition(f"\n[{section}]")[2].partition("\n[")[0]
        assert part
        flowing = " ".join(part.replace("\n#", "").split())
        for name, info in model.model_fields.items():
            assert f"\n{name} = " in part or f"\n# {name} =" in part, name
            assert info.description
            assert info.description in flowing, name


def test_it_shows_every_engine_and_its_settings(tmp_path: Path) -> None:
    for name in kinds():
        part = TEXT.partition(f"\n# [engines.{name}]")[2].partition("\n\n")[0]
        for key in (*kind_of(name).config.model_fields, *kind_of(name).settings.model_fields):
            assert f"\n# {key} =" in part, (name, key)
    path = tmp_path / "run.toml"
    path.write_text(TEXT.replace("# [engines.bm25]", "[engines.bm25]").replace("# k1 = 1.2", "k1 = 0.9", 1))
    assert load_config(STAGES, path, environment={}).engines[0].config.k1 == 0.9


def test_uncommenting_an_unset_setting_needs_only_a_value(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(TEXT.replace("# limit =", "limit = 7"))
    assert load_config(STAGES, path, environment={}).stages["load"].model_dump()["limit"] == 7
