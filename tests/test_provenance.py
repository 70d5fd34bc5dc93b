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


def test_code_is_other_where_a_module_or_its_name_is(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))

    def digest(**modules):
        for left in tmp_path.iterdir():
            left.unlink()
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
        (tmp_path / "flow.pyc").write_bytes(b"made while it runs")
        return provenance.code_digest()

    trees = [{"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"a": "1", "c": "2"}, {"a": "1b.py2"}]
    assert len({digest(**tree) for tree in trees}) == len(trees)
    assert digest(a="1", b="2") == digest(b="2", a="1")
