"""Results are written whole, where they were asked for, or refused in one sentence."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest

from pdvsim.errors import InputError
from pdvsim.result_file import check_writable, make_folder, write_parquet, write_text

ROOT = Path(__file__).parents[1]


def listed(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "x.html"
    path.write_text("old")
    path.chmod(0o640)
    write_text(path, "new ± \ud800")
    assert path.read_text(encoding="utf-8") == "new ± \\ud800"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert listed(tmp_path) == {"x.html"}


def test_links_stay_and_what_they_point_at_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name, target in (("a", "there/kept"), ("b", "there/new"), ("c", "b")):
        (tmp_path / name).symlink_to(target)
    (tmp_path / "there" / "kept").write_text("old")
    check_writable(tmp_path / "c")
    write_text(tmp_path / "a", "1")
    write_text(tmp_path / "c", "2")
    assert (tmp_path / "there" / "kept").read_text() == "1"
    assert (tmp_path / "there" / "new").read_text() == "2"
    assert all((tmp_path / name).is_symlink() for name in "abc")


def test_a_device_is_written_into(tmp_path: Path) -> None:
    node = tmp_path / "null"
    try:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root makes devices")
    check_writable(node)
    write_text(node, "gone")
    assert stat.S_ISCHR(node.stat().st_mode)
    with pytest.raises(InputError, match="No space left"):
        write_text(Path("/dev/full"), "x")


def test_a_pipe_is_written_into(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[str] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join()
    assert got == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_what_cannot_be_written_is_refused_before_and_after(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    file = tmp_path / "file"
    file.write_text("kept")
    nowhere = tmp_path / "no" / "x"
    for path in (tmp_path, loop, file / "x", nowhere, tmp_path / ("n" * 300), Path("a\0b")):
        for refuse in (check_writable, lambda path: write_text(path, "x")):
            with pytest.raises(InputError, match="cannot write"):
                refuse(path)
    with pytest.raises(InputError, match="there is no folder"):
        check_writable(nowhere)
    assert listed(tmp_path) == {"loop", "file"}


def test_a_name_as_long_as_names_get_is_fine(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    check_writable(path)
    write_text(path, "x")
    assert listed(tmp_path) == {path.name}


def test_a_failed_write_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x"
    path.write_text("kept")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        check_writable(path)
    with pytest.raises(InputError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "kept"
    assert listed(tmp_path) == {"x"}


def test_folders_for_records_are_made_or_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        make_folder(tmp_path / "file")


def test_tables_carry_their_metadata(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(path, pl.DataFrame({"a": [1]}), {"pdvsim": "{}"})
    assert pl.read_parquet(path).to_dicts() == [{"a": 1}]
    assert pl.read_parquet_metadata(path)["pdvsim"] == "{}"


def pdvsim(folder: Path, shell: str) -> subprocess.CompletedProcess[str]:
    """`pdvsim <shell>` in a folder with a small table."""
    (folder / "table.csv").write_text("system,load,output_throughput\na,1,10\na,2,20\n")
    command = f'pdvsim() {{ {sys.executable} -m pdvsim "$@"; }}; pdvsim {shell}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "code", "says"),
    [
        ("audit table.csv >&-", 2, "stdout is closed"),
        ("audit table.csv > /dev/full", 2, "No space left on device"),
        ("audit table.csv --json > /dev/full", 2, "No space left on device"),
        ("audit table.csv --json 2>&- | cat > /dev/null", 0, ""),
        (f"predict --concurrency 1 --report {'n' * 300}", 2, "File name too long"),
        ("audit table.csv --json > a; pdvsim report a -o /dev/null > /dev/null", 0, ""),
        ("audit table.csv --json > a; pdvsim report a -o /dev/full", 2, "No space left"),
    ],
)
def test_bad_outputs_are_sentences(tmp_path: Path, shell: str, code: int, says: str) -> None:
    done = pdvsim(tmp_path, shell)
    assert says in done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert done.stderr.count("\n") == (1 if says else 0)
    assert done.returncode == code
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_an_early_end_of_the_reader_is_quiet(tmp_path: Path) -> None:
    for options in ("", "--json"):
        done = pdvsim(tmp_path, f"audit table.csv {options} | true; exit ${{PIPESTATUS[0]}}")
        assert done.stderr == ""
        assert done.returncode in (0, 141)
