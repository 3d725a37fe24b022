"""What a terminal is sent: texts as they are, and nothing that drives it."""

from rich.table import Table

from harness.cli import Problem
from harness.cli.screen import Screen
from harness.cli.sentences import say
from harness.texts import MOST_CHARACTERS, message_lines, printable, shortened

RED = "a\x1b[31mred\x1b[0m"


def test_a_table_and_a_line_hold_no_escape_of_a_text(capsys):
    table = Table()
    table.add_column(RED)
    table.add_row("[/bold] [red] " + RED + "\x9b31m")
    Screen(force_terminal=False).print(table, RED)
    say(f"{RED}\rover")
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "\x9b" not in said
    assert "[/bold] [red] a?[31mred" in said
    assert "a\\x1b[31mred\\x1b[0m\nover" in said


def test_the_name_of_a_function_is_no_picture(capsys):
    Screen(force_terminal=False).print("t:train: there is no module t")
    assert capsys.readouterr().out == "t:train: there is no module t\n"


def test_styles_of_our_own_stay(capsys):
    Screen(force_terminal=True, color_system="standard").print("done", style="bold")
    assert "\x1b[1mdone" in capsys.readouterr().out


def test_a_sentence_is_one_line_in_a_pipe_and_broken_in_a_window(capsys):
    sentence = "Exploratory: use it to find what to run in full."
    Screen(force_terminal=False, width=20).print(sentence, style="yellow")
    assert capsys.readouterr().out == sentence + "\n"
    Screen(force_terminal=True, width=20, color_system=None).print(sentence)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 20


def test_a_message_holds_no_escape_and_is_cut(capsys):
    Problem(f"{RED}: {'x' * 90_000} Do this.").show()
    said = capsys.readouterr().err
    assert "a\\x1b[31mred" in said
    assert "Do this." in said
    assert len(said) < 2_000


def test_lines_of_a_message_are_counted_where_they_are_left_out():
    lines = message_lines("\n".join(f"problem {number}" for number in range(300)))
    assert lines[0] == "problem 0"
    assert lines[-1] == "... and 250 more lines."
    assert sum(map(len, message_lines("x" * 900 + "\n" + "y\n" * 3))) < 1_000
    assert sum(map(len, message_lines("\n".join(["z" * 2_000] * 49)))) < MOST_CHARACTERS + 2_000


def test_texts_that_people_write_stay_as_they_are():
    text = "naïve – 中文 ± é\t|\n"
    assert printable(text) == text
    assert shortened(text) == text
