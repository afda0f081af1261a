"""What a shell offers when somebody types a part of a command and presses TAB."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import support

#: What bash does on TAB: the script's function, with the words so far.
_TAB = """\
source "$0" || exit
[[ $(complete -p sluice) == *" -F _shtab_sluice sluice" ]] || exit
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_shtab_sluice
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the script for bash as its help says."""
    file = tmp_path_factory.mktemp("completions") / "sluice"
    said = support.sluice("completion", "bash")
    assert (said.returncode, said.stderr) == (0, "")
    file.write_text(said.stdout)
    return file


def offered(script: Path, typed: str, directory: Path | None = None) -> list[str]:
    """Press TAB at the end of a line."""
    command = ["bash", "--norc", "-c", _TAB, script, *typed.split(" ")]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=20, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offers"),
    [
        ("sluice pol", ["policy"]),
        ("sluice policy ro", ["rollback"]),
        ("sluice policy exemplar ", ["add", "remove", "list"]),
        ("sluice work --bu", ["--burst"]),
        ("sluice policy lint a.yaml b.yaml --no-m", ["--no-model"]),
        ("sluice score a.png --json --prec", ["--precision"]),
        ("sluice score --precision b", ["bf16"]),
        ("sluice enqueue a.png --priority ", ["high", "normal", "bulk"]),
        ("sluice completion ", ["bash", "zsh", "fish", "tcsh"]),
        ("sluice moderate --bu", []),
    ],
)
def test_bash_completes_commands_flags_and_their_values(script: Path, typed: str, offers: list[str]) -> None:
    assert offered(script, typed) == offers


@pytest.mark.parametrize(
    ("typed", "offers"),
    [
        ("sluice score pic", ["pictures", "picture.png"]),
        ("sluice score picture.png pic", ["pictures", "picture.png"]),
        ("sluice explain 1f0c --image pic", ["pictures", "picture.png"]),
        ("sluice calibrate --images pic", ["pictures"]),
        ("sluice ledger archive --to pic", ["pictures"]),
        ("sluice work --policies pic", ["pictures"]),
        ("sluice work --queues pic", []),
    ],
)
def test_bash_completes_files_and_directories(script: Path, typed: str, offers: list[str], tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "picture.png").touch()
    assert sorted(offered(script, typed, tmp_path)) == sorted(offers)


def test_zsh_gets_its_own_script() -> None:
    printed = support.typed("completion", "zsh").stdout
    assert printed.startswith("#compdef sluice\n")
    # The images of `sluice score`, as many as there are.
    assert '\n  "*:files and URLs:_files"\n' in printed
    if zsh := shutil.which("zsh"):
        subprocess.run([zsh, "-fn"], input=printed, text=True, timeout=20, check=True)


def test_fish_completes_commands_and_values(tmp_path: Path) -> None:
    printed = support.typed("completion", "fish").stdout
    assert "complete -c sluice " in printed
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("needs fish on PATH")
    file = tmp_path / "sluice.fish"
    file.write_text(printed)
    pressed = f'source {file}; for typed in "sluice pol" "sluice policy ro" "sluice work --bu"; complete -C $typed; end'
    done = subprocess.run(
        [fish, "--no-config", "-c", pressed], capture_output=True, text=True, timeout=20, check=True, cwd=tmp_path
    )
    assert [line.partition("\t")[0] for line in done.stdout.splitlines() if line] == ["policy", "rollback", "--burst"]


def test_tcsh_gets_its_own_script() -> None:
    printed = support.typed("completion", "tcsh").stdout
    assert "\ncomplete sluice " in printed
    assert "'n/--images/d/'" in printed


def test_a_script_comes_without_the_libraries_that_take_seconds() -> None:
    said = support.sluice("completion", "bash", PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip() for line in said.stderr.splitlines()}
    assert "shtab" in imported
    assert not imported & {"torch", "transformers", "numpy", "PIL"}


@pytest.mark.parametrize("typed", [(), ("powershell",)], ids=" ".join)
def test_no_shell_or_one_that_is_unknown_is_wrong_usage(typed: tuple[str, ...]) -> None:
    said = support.typed("completion", *typed)
    assert (said.returncode, said.stdout) == (2, "")
    (line,) = said.stderr.splitlines()
    assert line.startswith("sluice: ")
    assert "shell" in line
    assert line.endswith("see `sluice completion --help`")
