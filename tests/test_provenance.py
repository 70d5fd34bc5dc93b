"""What a run says of the code that made it."""

import subprocess

import pytest
import torch

from adnlib import provenance


@pytest.mark.parametrize(("threads", "told"), [(1, "1 thread"), (2, "2 threads")])
def test_a_cpu_is_told_with_its_threads(monkeypatch, threads, told):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert provenance.describe_device(torch.device("cpu")).endswith(f", {told}")


def test_the_revision_is_this_codes_and_not_that_of_a_repository_around_it(tmp_path, monkeypatch):
    who = ["-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "theirs"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    for package, known in (("adnlib", True), (".venv/lib/site-packages/adnlib", False)):
        (tmp_path / package).mkdir(parents=True)
        monkeypatch.setattr(provenance, "__file__", str(tmp_path / package / "provenance.py"))
        revision = provenance.git_revision()
        assert (revision is not None and len(revision) == 12) == known
