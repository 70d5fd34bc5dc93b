"""One sheet in its three forms, each given whole."""

import dataclasses

from adnlib.tables import Best, Sheet, latex, markdown, plain

SHEET = Sheet(
    title="AUROC",
    caption="In percent.",
    header=["part", "a|b", "se_1"],
    rows=[
        ["nut_1", "9.5", Best("90.0 ±")],
        ["cup", Best("98.5"), "7"],
        ["mean", "54", "48.5"],
    ],
    alert="RANDOM",
    closing=1,
    notes=["50 % & more"],
)


def test_markdown():
    assert markdown(SHEET).splitlines() == [
        "### AUROC",
        "",
        "> **RANDOM**",
        "",
        r"| part  |     a\|b |       se_1 |",
        "| :---- | -------: | ---------: |",
        "| nut_1 |      9.5 | **90.0 ±** |",
        "| cup   | **98.5** |          7 |",
        "| mean  |       54 |       48.5 |",
        "",
        "In percent.",
        "",
        "- 50 % & more",
    ]


def test_latex():
    assert latex(SHEET, "tab:x").splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{\textbf{RANDOM} AUROC. In percent.}",
        r"\label{tab:x}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"part & a|b & se\_1 \\",
        r"\midrule",
        r"nut\_1 & 9.5 & \textbf{90.0 $\pm$} \\",
        r"cup & \textbf{98.5} & 7 \\",
        r"\midrule",
        r"mean & 54 & 48.5 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\footnotesize 50 \% \& more",
        r"\end{table}",
    ]


def test_latex_draws_no_second_line_above_a_mean_that_stands_alone():
    alone = dataclasses.replace(SHEET, rows=SHEET.rows[-1:])
    assert latex(alone, "tab:x").count(r"\midrule") == 1


def test_a_wide_latex_table_is_scaled_to_the_line():
    wide = dataclasses.replace(SHEET, header=[*"abcde"], rows=[["1"] * 5])
    lines = latex(wide, "tab:x").splitlines()
    assert lines[4] == r"\resizebox{\linewidth}{!}{%"
    assert r"\end{tabular}}" in lines


def test_plain():
    assert plain(SHEET).splitlines() == [
        "AUROC",
        "!!! RANDOM",
        "part     a|b     se_1",
        "nut_1    9.5   90.0 ± <",
        "cup     98.5 <      7",
        "mean      54     48.5",
        "In percent. < best of a row.",
    ]
