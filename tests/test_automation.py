"""The workflows of GitHub and the hooks before a commit run the targets of the Makefile."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent


def test_the_workflow_runs_what_ci_runs_and_the_tests_on_three_systems() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    steps = [step.get("run") for job in workflow["jobs"].values() for step in job["steps"]]
    assert [step for step in steps if step] == [".ci/run", "make test PYTHON=python"]
    systems = [entry["os"] for entry in workflow["jobs"]["others"]["strategy"]["matrix"]["include"]]
    assert {"macos-latest", "windows-latest"} < set(systems)


def test_every_hook_runs_a_target_of_the_makefile() -> None:
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    targets = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks:
        command, target = hook["entry"].split()
        assert command == "make"
        assert f"\n{target}: " in targets
