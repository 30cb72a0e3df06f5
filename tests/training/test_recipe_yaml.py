"""YAMLs that extend others, their keys as plain values, and what is said of broken ones."""

import os
from pathlib import Path

import pytest

from sv_ssl.core.errors import InputError
from sv_ssl.training import recipe_yaml

BASE = """# A base.
name: base                # what it is called
epochs: 3
width: 8                  # of the layer
bias: True                # whether it has one
layer: !new:torch.nn.Linear
  in_features: !ref <width>
  out_features: 2
  bias: !ref <bias>
"""
KNOWN = ("name", "epochs", "layer")


@pytest.fixture
def extending(tmp_path):
    """extending(text, ...) -> the last of these YAMLs, read; the first is a.yaml, and so on; base.yaml is there."""
    (tmp_path / "base.yaml").write_text(BASE)

    def read(*texts):
        for letter, text in zip("abc", texts):
            (tmp_path / f"{letter}.yaml").write_text(text)
        return recipe_yaml.read(tmp_path / f"{'abc'[len(texts) - 1]}.yaml", KNOWN)

    return read


def build(found, **changes):
    return recipe_yaml.build(found.path, found.text, changes)


def test_the_rest_is_laid_over_what_is_extended(extending):
    found = extending("extends: base.yaml\nname: other\nwidth: 5   # of the thin layer\n")
    assert {key: found.written[key] for key in ("name", "epochs", "width")} == {
        "name": "other",
        "epochs": 3,
        "width": 5,
    }
    assert build(found)["layer"].weight.shape == (2, 5) and build(found, width=4)["layer"].weight.shape == (2, 4)
    assert found.meanings == {"name": "what it is called", "width": "of the thin layer", "bias": "whether it has one"}
    assert "width: 5  # of the thin layer" in found.text


def test_a_mapping_without_a_tag_changes_single_keys_and_one_with_a_tag_replaces(extending):
    found = extending("extends: base.yaml\nlayer:\n  out_features: !ref <n_out>\nn_out: 7   # new\n")
    assert build(found)["layer"].weight.shape == (7, 8)
    found = extending("extends: base.yaml\nlayer: !new:torch.nn.ReLU\n")
    assert type(build(found)["layer"]).__name__ == "ReLU"
    with pytest.raises(InputError, match="width has keys in the YAML"):
        extending("extends: base.yaml\nwidth:\n  a: 1\n")


def test_what_nothing_reads_any_more_is_left_out(extending):
    found = extending("extends: base.yaml\nlayer: !new:torch.nn.ReLU\n")
    assert set(found.written) == {"name", "epochs", "layer"}


def test_a_key_that_nothing_reads_is_refused_with_the_nearest(extending):
    with pytest.raises(InputError, match="a.yaml has a key 'epoch' that nothing reads: did you mean epochs?"):
        extending("extends: base.yaml\nepoch: 5\n")
    with pytest.raises(InputError, match="a.yaml has a key 'width' that nothing reads"):
        extending("extends: base.yaml\nlayer: !new:torch.nn.ReLU\nwidth: 5\n")


def test_a_chain_of_three(extending):
    found = extending("extends: base.yaml\nwidth: 5\n", "extends: a.yaml\nbias: False\nname: third\n")
    assert (found.written["name"], found.written["width"]) == ("third", 5)
    assert build(found)["layer"].bias is None and build(found)["layer"].weight.shape == (2, 5)


def test_a_tag_without_arguments_stays_without(extending):
    found = extending("extends: base.yaml\nlayer: !name:torch.relu\n")
    assert "layer: !name:torch.relu\n" in found.text and callable(build(found)["layer"])


@pytest.mark.parametrize(
    "texts, words",
    [
        (["extends: a.yaml\n"], "a.yaml extends itself"),
        (["extends: b.yaml\n", "extends: a.yaml\n"], "b.yaml extends itself, by way of a.yaml"),
        (["extends: nowhere.yaml\n"], "extends .*nowhere.yaml, which is not there"),
        (["name: a\nextends: base.yaml\n"], "extends is to be the first key, it is number 2"),
    ],
)
def test_what_cannot_be_extended_is_one_line(extending, texts, words):
    with pytest.raises(InputError, match=words) as caught:
        extending(*texts)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["a: [1", "- 1\n- 2\n", "a: !new:no.such.Class\n", "a: !ref <b>\n"])
def test_a_broken_yaml_is_one_line(tmp_path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match="bad.yaml") as caught:
        build(recipe_yaml.read(path, ()))
    assert "\n" not in str(caught.value)


ALIASES = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 30))


@pytest.mark.parametrize(
    "text, reason",
    [
        ("a0: &a0 [1]\n" + ALIASES, "more than 10,000 values, aliases counted at each place"),
        ("a: &a [*a]\n", "line 1: the value holds itself, by an alias"),
        ("a: " + "[" * 1000 + "]" * 1000, "more than 50 values within each other"),
        ("a: " + "{b: " * 100 + "1" + "}" * 100, "line 1: more than 50 values within each other"),
        ("a: 1\n" * 20_000, "more than 65,536 bytes: wanted a YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is there twice: leave one out"),
        ("a: !new:torch.nn.Linear\n  x: 1\n  x: 2\n", "line 3: the key 'x' is there twice"),
        ("1: 2\n", "line 1: the key '1' is no name"),
        ("a: 1\nnull: 2\n", "line 2: the key 'null' is no name"),
        ("? [a, b]\n: 2\n", "line 1: a key is a list or a mapping"),
        ("width: 1\nb: !ref <widht>\n", "b refers to <widht>, which is no key of it: did you mean width?"),
        ("a: !ref <b>\nb: [!ref <c>]\nc: !ref 2 * <a>\n", r"a refers to itself \(a -> b -> c -> a\)"),
        ("extends: [base.yaml]\n", "extends is to be the name of one YAML"),
        ("", "holds no `key: value` lines"),
        ("- 1\n", "holds no `key: value` lines"),
    ],
)
def test_a_yaml_that_hangs_or_means_something_else_is_one_line(tmp_path, text, reason):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"bad.yaml.*{reason}") as caught:
        recipe_yaml.read(path, ())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("a: !new:no.such.Class\n", "There is no such class as no.such.Class"),
        ("a: !new:torch.nn.Linear\n  x: 1\n", "Invalid argument to class torch.nn.Linear: .* argument 'x'"),
        ("a: !new:torch.nn.Linear [100000000000, 100000]\n", "can't allocate memory"),
        ("a: !apply:operator.floordiv [1, 0]\n", "integer division or modulo by zero"),
        ("a: !apply:operator.getitem [[1], 5]\n", "list index out of range"),
        ("a: !apply:os.listdir [/nowhere]\n", "No such file or directory"),
        ("a: 1\nb: !ref <a> // 0\n", "integer division or modulo by zero"),
        ("a: 2020-99-99\n", "month must be in 1..12"),
    ],
)
def test_what_its_classes_refuse_is_one_line(tmp_path, text, reason):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"bad.yaml cannot be built: .*{reason}") as caught:
        build(recipe_yaml.read(path, ()))
    assert "\n" not in str(caught.value)


def test_print_config_refuses_in_one_line_too(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("a: 1\nb: !ref <a> // 0\n")
    with pytest.raises(InputError, match="bad.yaml cannot be built: integer division or modulo by zero"):
        recipe_yaml.resolved(path, recipe_yaml.read(path, ()).text, {})


@pytest.mark.parametrize("text", ["2020-99-99", "9" * 5000, "[" * 3000])
def test_what_no_yaml_reads_stays_text(text):
    assert recipe_yaml.typed(text) == text


def test_an_alias_and_a_reference_beside_another_are_taken(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text("a: &a [1, 2]\nb: *a\nc: !ref <a>\nm: {x: 1}\nd: !ref <m[x]> + 2\ne: !ref exp/<d>\n")
    built = build(recipe_yaml.read(path, ()))
    assert (built["b"], built["c"], built["d"], built["e"]) == ([1, 2], [1, 2], 3, "exp/3")


def test_a_fifo_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "bad.yaml")
    with pytest.raises(InputError, match="bad.yaml: wanted an ordinary file, this is a FIFO"):
        recipe_yaml.read(tmp_path / "bad.yaml", ())


def test_a_recipe_may_have_demo_sizes_of_its_own():
    folder = Path(__file__).parents[2] / "recipes" / "audio_probes"
    keys = {"epochs", "batch_size", "margin"}
    add, acl = (recipe_yaml.demo_sizes(str(folder / f"train_{name}.py"), keys) for name in ("add", "acl"))
    assert add == {"epochs": 60, "batch_size": 64} and acl == {"epochs": 30, "batch_size": 64}


def test_a_yaml_that_is_not_utf8_is_one_line(tmp_path):
    (tmp_path / "bad.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(InputError, match="bad.yaml: .*wanted a YAML in UTF-8") as caught:
        recipe_yaml.read(tmp_path / "bad.yaml", ())
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------- sizes for the built-in corpus
def test_sizes_of_the_demo_are_inherited_and_no_key_of_the_yaml(tmp_path):
    (tmp_path / "below.yaml").write_text(
        "size: 5\nheads: 2\nkept: !new:builtins.dict {a: !ref <size>, b: !ref <heads>}\ndemo:\n  size: 1\n  heads: 1\n"
    )
    (tmp_path / "above.yaml").write_text(
        "extends: below.yaml\nkept: !new:builtins.dict {a: !ref <size>}\ndemo:\n  size: 3\n"
    )
    below = recipe_yaml.read(tmp_path / "below.yaml", {"kept"})
    above = recipe_yaml.read(tmp_path / "above.yaml", {"kept"})
    assert below.demo == {"size": 1, "heads": 1} and above.demo == {"size": 3}  # heads is read no more
    assert "demo" not in below.written and "demo" not in above.text
    assert recipe_yaml.build(above.path, above.text, above.demo)["kept"] == {"a": 3}


def test_sizes_of_the_demo_are_a_mapping(tmp_path):
    (tmp_path / "bad.yaml").write_text("size: 5\ndemo: 3\n")
    with pytest.raises(InputError, match="demo is no mapping: wanted sizes for the built-in corpus"):
        recipe_yaml.read(tmp_path / "bad.yaml", {"size"})
