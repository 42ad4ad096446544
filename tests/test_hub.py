from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from fake_hub import (
    REPO,
    SIGNATURE,
    TOKEN,
    FakeHub,
    Fault,
    client_environment,
    final_files,
    finish,
    run_download,
    running_hub,
    start,
    start_download,
)

from ast_cli.errors import HubError, UsageError
from ast_cli.hub.cached import cached_folder
from ast_cli.hub.download import download
from ast_cli.hub.folders import checkpoint_folder, default_model
from ast_cli.hub.names import CHECKPOINTS, SHORT_ALIASES, known_aliases, repo_id_of

AUDIOSET = "MIT/ast-finetuned-audioset-10-10-0.4593"
COMMIT, NEXT_COMMIT = "a" * 40, "b" * 40
# The content of the weights does not matter to the fetching; odd sizes, so that a lost or doubled block shows.
WEIGHTS = bytes(range(256)) * 300 + b"weights"
FILES = {
    "README.md": b"the card, which may state the license",
    "config.json": b'{"model_type": "audio-spectrogram-transformer"}',
    "model.safetensors": WEIGHTS,
    "preprocessor_config.json": b"{}",
    "pytorch_model.bin": b"not needed beside safetensors",
    "tf_model.h5": b"never needed",
}
FETCHED = {name: FILES[name] for name in ("README.md", "config.json", "model.safetensors", "preprocessor_config.json")}
# Three attempts of ours, each at most six of the client, which waits at most 1 + 2 + 4 + 8 + 8 s between them.
MOST_REQUESTS = 18
MOST_WAITING_S = 3 * 23 + 3


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with running_hub() as running:
        running.repos[REPO] = dict(FILES)
        yield running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "hf"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the hub client of this process at an empty cache, and unset AST_MODEL."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("AST_MODEL", raising=False)
    return tmp_path


def put_into_cache(cache: Path, repo_id: str, files: dict[str, bytes]) -> Path:
    """Store files in the layout of the hub client's cache."""
    repo = cache / f"models--{repo_id.replace('/', '--')}"
    snapshot = repo / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(COMMIT)
    for name, content in files.items():
        (snapshot / name).write_bytes(content)
    return snapshot


def snapshot_files(home: Path, commit: str = COMMIT) -> dict[str, bytes]:
    return final_files(home / "hub" / "models--org--tiny" / "snapshots" / commit)


def reference(home: Path) -> str:
    return (home / "hub" / "models--org--tiny" / "refs" / "main").read_text()


# --- which checkpoint -------------------------------------------------------------------------------------------------


def test_the_published_checkpoints_are_known_by_alias() -> None:
    aliases = known_aliases()
    assert sum(repo_id.startswith("MIT/ast-finetuned-") for repo_id in aliases.values()) == 8 + len(SHORT_ALIASES)
    assert aliases["audioset"] == aliases["audioset-10-10-0.4593"] == AUDIOSET
    assert aliases["fast"] == "MIT/ast-finetuned-audioset-16-16-0.442"
    assert aliases["speech-commands"] == "MIT/ast-finetuned-speech-commands-v2"


@pytest.mark.parametrize(
    ("alias", "repo_id", "num_labels", "window_s"),
    [
        ("maest", "mtg-upf/discogs-maest-30s-pw-129e-519l", 519, 30),
        ("maest-400", "mtg-upf/discogs-maest-30s-pw-129e", 400, 30),
        ("maest-20s", "mtg-upf/discogs-maest-20s-pw-129e", 400, 20),
        ("maest-10s", "mtg-upf/discogs-maest-10s-pw-129e", 400, 10),
        ("maest-5s", "mtg-upf/discogs-maest-5s-pw-129e", 400, 5),
        ("sslam", "ta012/SSLAM_AS2M_Finetuned", 527, 10.24),
        ("eat", "worstchan/EAT-base_epoch30_finetune_AS2M", 527, 10.24),
        ("birdset", "DBD-research-group/AST-BirdSet-XCM", 411, 5),
        ("birdset-xcl", "DBD-research-group/AST-BirdSet-XCL", 9736, 5),
    ],
)
def test_checkpoints_of_other_authors_are_known_too(alias: str, repo_id: str, num_labels: int, window_s: float) -> None:
    checkpoint = CHECKPOINTS[alias]
    assert known_aliases()[alias] == repo_id_of(alias) == checkpoint.repo_id == repo_id
    assert (checkpoint.num_labels, checkpoint.window_s) == (num_labels, window_s)


def test_a_misspelled_alias_is_an_error_that_lists_similar_aliases() -> None:
    with pytest.raises(UsageError, match=r"'audiosett'; did you mean audioset"):
        repo_id_of("audiosett")


@pytest.mark.parametrize(
    "name", ["a/b--c", "../x", "a/b/c", "-a/b", "a/b.git", "ä/b", "a/b.", "a", "", "a/" + "b" * 97]
)
def test_invalid_hub_ids_are_refused_before_any_request(name: str) -> None:
    with pytest.raises(UsageError, match="no checkpoint folder or name"):
        repo_id_of(name)


@pytest.mark.parametrize("name", [AUDIOSET, "a/b", "a_1/b.c-d", "a/" + "b" * 96])
def test_a_hub_id_is_returned_as_it_is(name: str) -> None:
    assert repo_id_of(name) == name


def test_a_url_is_refused() -> None:
    with pytest.raises(UsageError, match="is a URL; use an alias or a hub id such as org/name"):
        checkpoint_folder("https://example.org/model")


@pytest.mark.usefixtures("cache")
def test_the_error_for_a_missing_checkpoint_names_the_download_command() -> None:
    with pytest.raises(HubError, match=r"^'fast' is not on this machine: fetch it with `ast download fast`$"):
        checkpoint_folder("fast")


def test_a_folder_of_recordings_called_audioset_does_not_hide_the_checkpoint(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "audioset").mkdir()
    with pytest.raises(HubError, match=r"ast download audioset` \(or use ./audioset for the folder\)"):
        checkpoint_folder("audioset")
    assert checkpoint_folder("./audioset") == Path("audioset")
    snapshot = put_into_cache(cache, AUDIOSET, FETCHED)
    assert checkpoint_folder("audioset") == snapshot


def test_the_default_model_is_ast_model_else_downloaded_audioset_else_builtin(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_model() == "builtin"
    put_into_cache(cache, AUDIOSET, FETCHED)
    assert default_model() == "audioset"
    monkeypatch.setenv("AST_MODEL", "fast")
    assert default_model() == "fast"


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        (["config.json"], False),
        (["model.safetensors"], False),
        (["config.json", "model.safetensors"], True),
        (["config.json", "pytorch_model.bin"], True),
        (["config.json", "model.safetensors.index.json", "model-00001-of-00002.safetensors"], False),
        (
            [
                "config.json",
                "model.safetensors.index.json",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ],
            True,
        ),
    ],
)
def test_a_checkpoint_counts_as_cached_only_if_it_is_complete(cache: Path, files: list[str], whole: bool) -> None:
    index = b'{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    snapshot = put_into_cache(cache, REPO, {name: index if "index" in name else b"{}" for name in files})
    assert cached_folder(REPO) == (snapshot if whole else None)


def test_a_local_folder_needs_neither_the_hub_client_nor_the_network(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from ast_cli.hub.folders import checkpoint_folder; print(checkpoint_folder(sys.argv[1])); "
        "print('huggingface_hub' in sys.modules)"
    )
    run = finish(start(client_environment(hub, home), "-c", code, str(tmp_path)))
    assert (run.stdout, run.stderr) == (f"{tmp_path}\nFalse\n", "")
    assert hub.requests == []


# --- fetching ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_fetched_into_the_cache_with_the_token_and_without_the_pickle(hub: FakeHub, home: Path) -> None:
    run = run_download(hub, home)
    snapshot = home / "hub" / "models--org--tiny" / "snapshots" / COMMIT
    assert (run.exit_code, run.stdout, run.stderr, run.slept_s) == (0, f"{snapshot}\n", "", [])
    assert snapshot_files(home) == FETCHED
    assert reference(home) == COMMIT
    assert {request.authorization for request in hub.requests} == {f"Bearer {TOKEN}"}


def test_the_pickle_is_fetched_where_there_is_no_safetensors_file(hub: FakeHub, home: Path) -> None:
    del hub.repos[REPO]["model.safetensors"]
    assert run_download(hub, home).exit_code == 0
    assert set(snapshot_files(home)) == {
        "README.md",
        "config.json",
        "preprocessor_config.json",
        "pytorch_model.bin",
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [("thresholds.json", b'{"labels": {"Rain": 0.4}}'), ("labels.json", b'{"unproven": ["Rain"]}')],
)
def test_facts_about_labels_are_fetched_with_the_checkpoint(
    hub: FakeHub, home: Path, name: str, content: bytes
) -> None:
    hub.repos[REPO][name] = content
    assert run_download(hub, home).exit_code == 0
    assert snapshot_files(home) == FETCHED | {name: content}


def test_weights_in_shards_are_fetched_with_their_index(hub: FakeHub, home: Path) -> None:
    shards = {f"model-0000{number}-of-00002.safetensors": WEIGHTS + bytes([number]) for number in (1, 2)}
    files = shards | {"model.safetensors.index.json": b"{}", "config.json": b"{}"}
    hub.repos[REPO] = files | {"pytorch_model.bin": WEIGHTS}
    assert run_download(hub, home).exit_code == 0
    assert snapshot_files(home) == files


def test_cached_files_are_not_downloaded_again_and_work_offline(hub: FakeHub, home: Path) -> None:
    first = run_download(hub, home)
    hub.requests.clear()
    second = run_download(hub, home)
    assert second.stdout == first.stdout
    assert [request.path for request in hub.requests] == [f"/api/models/{REPO}/revision/main"]
    hub.stop()
    offline = run_download(hub, home, HF_HUB_OFFLINE="1")
    assert (offline.exit_code, offline.stdout, offline.stderr) == (0, first.stdout, "")


def test_offline_the_error_lists_the_missing_files_and_how_to_copy_them(hub: FakeHub, home: Path) -> None:
    run = run_download(hub, home, HF_HUB_OFFLINE="1")
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr == (
        "error: org/tiny: HF_HUB_OFFLINE is set, and config.json and model.safetensors must be downloaded; "
        "on a machine with a network, run `ast download org/tiny --output-dir FOLDER`, copy FOLDER/tiny here "
        "and pass it with --model\n"
    )
    assert hub.requests == []


def test_after_three_attempts_an_unreachable_hub_is_an_error_that_lists_missing_files(hub: FakeHub, home: Path) -> None:
    hub.stop()
    run = run_download(hub, home)
    assert (run.exit_code, run.stdout, run.slept_s) == (1, "", [1, 2])
    assert "the hub cannot be reached" in run.stderr
    assert "config.json and model.safetensors must be downloaded" in run.stderr


def test_a_revision_is_downloaded_and_gets_its_own_reference(hub: FakeHub, home: Path) -> None:
    hub.revisions["v1"] = NEXT_COMMIT
    assert run_download(hub, home, revision="v1").exit_code == 0
    assert snapshot_files(home, NEXT_COMMIT) == FETCHED
    refs = home / "hub" / "models--org--tiny" / "refs"
    assert {file.name: file.read_text() for file in refs.iterdir()} == {"v1": NEXT_COMMIT}


@pytest.mark.parametrize("revision", ["../../../evil", "a/../b", "/etc", "", "-x"])
def test_a_revision_whose_path_leaves_the_cache_is_refused(revision: str) -> None:
    with pytest.raises(UsageError, match="is not a valid revision"):
        download(REPO, revision)


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "fault", "message"),
    [
        ("model.safetensors", Fault("cut"), "the hub cannot be reached"),
        ("model.safetensors", Fault("reset"), "the hub cannot be reached"),
        ("model.safetensors", Fault("wrong_size"), "the hub cannot be reached (Consistency check failed"),
        ("model.safetensors", Fault("wrong_bytes"), "its SHA-256 differs from the hub's"),
        ("config.json", Fault("wrong_bytes"), "its Git hash differs from the hub's"),
        ("model.safetensors", Fault("status", status=404), "the hub answered 404"),
        ("model.safetensors", Fault("status", status=429), "the hub answered 429"),
        ("model.safetensors", Fault("status", status=500), "the hub answered 500"),
        ("api", Fault("status", status=404), "the hub answered 404"),
        ("api", Fault("status", status=429), "the hub answered 429"),
        ("api", Fault("status", status=500), "the hub answered 500"),
        ("api", Fault("status", status=401), "the hub answered 401; check HF_TOKEN"),
        ("api", Fault("status", status=200), "the server that answered is not the hub: check HF_ENDPOINT"),
        ("api", Fault("status", status=403, headers={"X-Error-Code": "GatedRepo"}), "its owner must grant you access"),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else None,
)
def test_a_permanent_fault_gives_a_one_line_error_and_leaves_no_wrong_file(
    hub: FakeHub, home: Path, file: str, fault: Fault, message: str
) -> None:
    hub.faults[file] = replace(fault)
    run = run_download(hub, home)
    assert (run.exit_code, run.stdout) == (1, "")
    error = run.stderr.splitlines()[-1]
    assert error.startswith("error: org/tiny: ")
    assert message in error
    # Correct files that arrived before the fault may stay; the faulty file and a reference to it must not exist.
    assert set(final_files(home).values()) <= set(FETCHED.values()) - {FILES.get(file)}
    assert not (home / "hub" / "models--org--tiny" / "refs").exists()
    assert all(hub.asked(method, file) <= MOST_REQUESTS for method in ("GET", "HEAD"))
    assert sum(run.slept_s) <= MOST_WAITING_S


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("model.safetensors", Fault("cut", times=1)),
        ("model.safetensors", Fault("reset", times=2)),
        ("model.safetensors", Fault("stall", times=1)),
        ("model.safetensors", Fault("wrong_size", times=1)),
        ("model.safetensors", Fault("wrong_bytes", times=2)),
        ("model.safetensors", Fault("status", times=2)),
        ("model.safetensors", Fault("status", status=429, times=2)),
        ("api", Fault("status", times=2)),
        ("api", Fault("status", status=429, times=2)),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else None,
)
def test_a_transient_fault_is_overcome(hub: FakeHub, home: Path, file: str, fault: Fault) -> None:
    hub.faults[file] = replace(fault)
    run = run_download(hub, home, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert run.exit_code == 0, run.stderr
    assert snapshot_files(home) == FETCHED
    assert reference(home) == COMMIT


def test_a_hub_that_never_answers_is_an_error_after_three_attempts(hub: FakeHub, home: Path) -> None:
    hub.faults["api"] = Fault("stall")
    run = run_download(hub, home, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert run.exit_code == 1
    assert "the hub cannot be reached (timed out)" in run.stderr
    assert hub.asked("GET", "/revision/main") == 3


def test_a_wrong_file_in_the_cache_is_detected_and_replaced(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    run_download(hub, home)
    weights = home / "hub" / "models--org--tiny" / "snapshots" / COMMIT / "model.safetensors"
    weights.write_bytes(WEIGHTS[:-1] + b"?")
    assert run_download(hub, home, output_dir=tmp_path / "out").exit_code == 0  # which would be copied from the cache
    assert final_files(tmp_path / "out") == FETCHED
    assert run_download(hub, home).exit_code == 0
    assert snapshot_files(home) == FETCHED


def test_an_update_that_fails_leaves_the_previous_files_in_use(hub: FakeHub, home: Path) -> None:
    first = run_download(hub, home)
    hub.revisions["main"] = NEXT_COMMIT
    hub.repos[REPO]["model.safetensors"] = WEIGHTS[::-1]
    hub.faults["config.json"] = Fault("status")
    assert run_download(hub, home).exit_code == 1
    offline = run_download(hub, home, HF_HUB_OFFLINE="1")
    assert (offline.exit_code, offline.stdout) == (0, first.stdout)
    assert snapshot_files(home) == FETCHED


@pytest.mark.skipif(not hasattr(os, "kill") or sys.platform == "win32", reason="no SIGKILL on Windows")
@pytest.mark.parametrize("into_folder", [False, True], ids=["cache", "folder"])
def test_a_download_killed_in_the_middle_leaves_nothing_final_and_can_be_run_again(
    hub: FakeHub, home: Path, tmp_path: Path, into_folder: bool
) -> None:
    folder = tmp_path / "out" if into_folder else None
    hub.faults["model.safetensors"] = Fault("stall", times=1)
    process = start_download(hub, home, output_dir=folder)
    assert hub.stalled.wait(timeout=60)
    process.kill()
    assert finish(process).exit_code == -9
    hub.released.set()
    root = folder or home
    assert list(root.rglob("*.incomplete"))  # a part of the weights had arrived
    assert [name for name in final_files(root) if ".download-" not in name] == []  # staging is hidden
    assert run_download(hub, home, output_dir=folder).exit_code == 0
    now = {name: content for name, content in final_files(root).items() if ".download-" not in name}
    assert {Path(name).name: content for name, content in now.items() if "blobs" not in name} == FETCHED


def test_two_simultaneous_downloads_both_end_with_the_complete_checkpoint(hub: FakeHub, home: Path) -> None:
    hub.faults["model.safetensors"] = Fault(
        "stall", times=1
    )  # the first waits in the middle of a file until the second starts
    first = start_download(hub, home, SLEPT="")
    assert hub.stalled.wait(timeout=60)
    hub.listed.clear()
    second = start_download(hub, home, SLEPT="")
    assert hub.listed.wait(timeout=60)
    hub.released.set()
    runs = [finish(first), finish(second)]
    assert [run.exit_code for run in runs] == [0, 0]
    assert runs[0].stdout == runs[1].stdout
    assert snapshot_files(home) == FETCHED


def test_a_cache_that_cannot_be_created_is_named_with_a_remedy(hub: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    run = run_download(hub, tmp_path / "hf", HF_HOME=str(tmp_path / "file" / "hf"))
    assert run.exit_code == 1
    assert run.stderr.splitlines()[-1].startswith(f"error: org/tiny: {tmp_path / 'file'}")
    assert run.stderr.endswith("set HF_HOME or --output-dir to a writable folder with enough space\n")


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_cache_is_an_error_if_empty_and_works_if_complete(hub: FakeHub, home: Path) -> None:
    home.mkdir()
    home.chmod(0o500)
    refused = run_download(hub, home)
    assert refused.exit_code == 1
    assert "Permission denied; set HF_HOME or --output-dir" in refused.stderr
    home.chmod(0o700)
    first = run_download(hub, home)
    folders = [home, *(folder for folder in home.rglob("*") if folder.is_dir() and not folder.is_symlink())]
    for folder in folders:
        folder.chmod(0o500)
    second = run_download(hub, home)
    for folder in folders:
        folder.chmod(0o700)
    assert (second.exit_code, second.stdout) == (0, first.stdout)


@pytest.mark.parametrize("fault", [None, Fault("cut", times=1), Fault("stall", times=1)], ids=["well", "cut", "stall"])
def test_a_redirect_to_another_host_gets_no_token_and_its_signature_is_not_shown(
    hub: FakeHub, home: Path, fault: Fault | None
) -> None:
    hub.redirect_to = "localhost"
    if fault:
        hub.faults["model.safetensors"] = replace(fault)
    run = run_download(hub, home, HF_HUB_DOWNLOAD_TIMEOUT="1")
    assert (run.exit_code, snapshot_files(home)) == (0, FETCHED)
    if fault is None or fault.kind == "stall":  # every client warns about a stall, with the URL; some warn about a cut
        assert ("?..." in run.stderr) == bool(fault)
    assert SIGNATURE not in run.stderr
    weights = [request for request in hub.requests if request.method == "GET" and request.path.endswith("safetensors")]
    assert weights
    assert all(request.authorization is None for request in weights)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda hub: hub.repos.pop(REPO), "neither a local folder nor a public checkpoint on the hub; set HF_TOKEN"),
        (lambda hub: hub.revisions.pop("main"), "the hub has no revision 'main' of this checkpoint"),
        (lambda hub: hub.repos[REPO].pop("config.json"), "has no config.json, so it is not a model checkpoint"),
        (
            lambda hub: [hub.repos[REPO].pop(name) for name in ("model.safetensors", "pytorch_model.bin")],
            "has neither model.safetensors nor pytorch_model.bin",
        ),
        (lambda hub: setattr(hub, "states_hashes", False), "the hub states no hash of model.safetensors"),
    ],
    ids=["no-repo", "no-revision", "no-config", "no-weights", "no-hashes"],
)
def test_files_or_hashes_missing_on_the_hub_are_an_error_and_nothing_is_downloaded(
    hub: FakeHub, home: Path, spoil: object, message: str
) -> None:
    assert callable(spoil)
    spoil(hub)
    run = run_download(hub, home)
    assert run.exit_code == 1
    assert message in run.stderr
    assert run.slept_s == []
    assert len(hub.requests) == 1


# --- into a folder ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["cut", "wrong_size", "wrong_bytes"])
@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_permanent_fault_leaves_nothing_in_the_folder(
    hub: FakeHub, home: Path, tmp_path: Path, file: str, kind: Literal["cut", "wrong_size", "wrong_bytes"]
) -> None:
    hub.faults[file] = Fault(kind)
    run = run_download(hub, home, output_dir=tmp_path / "out")
    assert (run.exit_code, run.stdout) == (1, "")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("kind", ["cut", "status", "wrong_bytes"])
def test_a_transient_fault_is_overcome_in_a_folder_too(
    hub: FakeHub, home: Path, tmp_path: Path, kind: Literal["cut", "status", "wrong_bytes"], times: int
) -> None:
    hub.faults["model.safetensors"] = Fault(kind, times=times)
    run = run_download(hub, home, output_dir=tmp_path / "out")
    assert run.exit_code == 0, run.stderr
    assert final_files(tmp_path / "out") == FETCHED


def test_the_error_for_a_busy_hub_quotes_its_answer_in_a_folder_too(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    hub.faults["model.safetensors"] = Fault("status", status=500)
    run = run_download(hub, home, output_dir=tmp_path / "out")
    assert run.stderr.endswith("error: org/tiny: the hub answered 500; try again later\n")
    assert sum(run.slept_s) <= MOST_WAITING_S


def test_a_folder_gets_regular_files_and_correct_ones_are_kept(hub: FakeHub, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "models" / "tiny"
    assert run_download(hub, home, output_dir=folder).stdout == f"{folder}\n"
    assert final_files(folder) == FETCHED
    assert not any(path.is_symlink() for path in folder.iterdir())
    (folder / "config.json").unlink()
    hub.requests.clear()
    assert run_download(hub, home, output_dir=folder).exit_code == 0
    assert final_files(folder) == FETCHED
    assert [hub.asked("GET", name) for name in ("config.json", "model.safetensors")] == [1, 0]


@pytest.mark.parametrize("name", ["config.json", "pytorch_model.bin"])
def test_files_of_another_checkpoint_are_neither_overwritten_nor_mixed_with(
    hub: FakeHub, home: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"mine")
    run = run_download(hub, home, output_dir=tmp_path)
    assert run.exit_code == 2
    assert f"{tmp_path / name}: already exists and does not belong to org/tiny; remove it or choose" in run.stderr
    assert {path.name for path in tmp_path.iterdir()} == {name}
    assert (tmp_path / name).read_bytes() == b"mine"
