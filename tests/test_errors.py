import pytest

from beam_pipelines.errors import UserError, exit_with, one_line, require


def test_require_raises_its_message():
    require(True, "never seen")
    with pytest.raises(UserError, match=r"^seen$"):
        require(False, "seen")


def test_one_line_names_the_kind_and_leaves_out_further_lines():
    assert one_line(ValueError("first\nsecond")) == "ValueError: first"
    assert one_line(ValueError()) == "ValueError"


def test_exit_with_prints_a_user_error_in_one_line(capsys: pytest.CaptureFixture[str]):
    def main() -> None:
        raise UserError("what, where, received, do")

    with pytest.raises(SystemExit) as exit_info:
        exit_with(main)
    assert exit_info.value.code == 2
    assert capsys.readouterr().err == "error: what, where, received, do\n"


def test_exit_with_keeps_a_defects_traceback():
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        exit_with(main)
