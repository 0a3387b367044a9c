"""A recipe with one key twice."""

import pytest

from app.training.command import main
from app.training.repeated import check_once

MIXED = """\
model:
  init_args:
    adapters:
      rooms: &one
        rank: 1
      streets: *one
      rooms:
        rank: 2
"""


def test_fit__an_adapter_that_is_named_twice_is_one_line(tmp_path, capsys):
    recipe = tmp_path / "mixed.yaml"
    recipe.write_text(MIXED)
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "--config", str(recipe)])
    assert stopped.value.code == 1
    error = capsys.readouterr().err
    assert error == (
        f"error: --config {recipe} line 7: model.init_args.adapters.rooms is there "
        "twice; keep one\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: {a: 1, c: 2}\n",
        "- {a: 1}\n- {a: 1}\n",
        "base: &b {x: 1}\none:\n  <<: *b\n  x: 2\n",
        "",
        "a: [unclosed\n",
        "? [1, 2]\n: 3\n? [1, 2]\n: 4\n",
    ],
)
def test_check_once__passes_what_is_said_once_or_is_no_mapping(tmp_path, text):
    recipe = tmp_path / "a.yaml"
    recipe.write_text(text)
    check_once(str(recipe))


def test_check_once__within_a_list(tmp_path, capsys):
    recipe = tmp_path / "a.yaml"
    recipe.write_text("callbacks:\n  - {a: 1}\n  - {b: 1, b: 2}\n")
    with pytest.raises(SystemExit):
        check_once(str(recipe))
    assert "line 3: callbacks.1.b is there twice" in capsys.readouterr().err
