"""A run into a Parquet file: it can be stopped and continued, and the file is whole or not there."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from journalled import FINGERPRINT, inputs, tagged

from ast_cli.errors import AstError, UsageError
from ast_cli.report.rows import rows_of
from ast_cli.tagging.run.journal_lines import records_file
from ast_cli.tagging.run.parquet_output import open_parquet_output

pq = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "tags.parquet"


def run(output: Path, num_inputs: int = 7, *, stop_after: int | None = None, **options: Any) -> int:
    """Write the results of the inputs that are not done, and return their number."""
    num_done = 0
    with contextlib.suppress(InterruptedError), open_parquet_output(output, FINGERPRINT, **options) as journal:
        for item in journal.pending(inputs(num_inputs)):
            if num_done == stop_after:
                raise InterruptedError
            journal.write(tagged(item), item)
            num_done += 1
    return num_done


def paths_in(output: Path) -> list[str]:
    return list(dict.fromkeys(pq.read_table(output)["path"].to_pylist()))


def names_beside(output: Path) -> list[str]:
    return sorted(file.name.removeprefix(output.name) for file in output.parent.iterdir())


def test_a_run_writes_the_rows_of_all_results(output: Path) -> None:
    assert run(output) == 7
    assert paths_in(output) == [item.path for item in inputs()]
    assert pq.read_metadata(output).num_rows == sum(len(list(rows_of(tagged(item)))) for item in inputs())
    assert names_beside(output) == ["", ".ast-records", ".ast-records.ast-journal"]


def test_a_run_without_a_result_writes_an_empty_table(output: Path) -> None:
    assert run(output, 0) == 0
    assert pq.read_metadata(output).num_rows == 0


@pytest.mark.parametrize("num_done", [0, 1, 6, 7])
def test_a_run_that_was_stopped_has_no_file_and_is_continued(output: Path, num_done: int) -> None:
    with contextlib.suppress(KeyboardInterrupt), open_parquet_output(output, FINGERPRINT) as journal:
        for item in inputs()[:num_done]:
            journal.write(tagged(item), item)
        raise KeyboardInterrupt
    assert not output.exists()
    assert run(output, resume=True) == 7 - num_done
    assert paths_in(output) == [item.path for item in inputs()]


def test_a_finished_file_is_continued_with_more_inputs_and_repeated_failures(output: Path) -> None:
    run(output, 3)
    assert run(output, resume=True) == 4
    assert len(paths_in(output)) == 7
    assert run(output, resume=True, retry_errors=True) == 2
    assert sorted(paths_in(output)) == [item.path for item in inputs()]
    output.unlink()
    assert run(output, resume=True) == 0
    assert len(paths_in(output)) == 7


def test_an_old_file_stays_until_the_new_one_is_whole(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(output, 3)
    old = output.read_bytes()
    assert run(output, force=True, stop_after=1) == 1
    assert output.read_bytes() == old

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(pq.ParquetWriter, "write_table", full)
        with pytest.raises(AstError, match=r"tags\.parquet: cannot be written \(No space left on device\)"):
            run(output, resume=True)
    assert output.read_bytes() == old
    assert names_beside(output) == ["", ".ast-records", ".ast-records.ast-journal"]
    assert run(output, resume=True) == 0
    assert len(paths_in(output)) == 7


def test_a_file_without_its_records_is_not_continued(output: Path) -> None:
    run(output, 3)
    records_file(output).unlink()
    with pytest.raises(UsageError, match=r"cannot be continued without tags\.parquet\.ast-records beside it; --force"):
        run(output, resume=True)
    with pytest.raises(UsageError, match="exists: --resume continues it, --force replaces it"):
        run(output)
    assert run(output, force=True) == 7
