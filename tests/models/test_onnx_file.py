"""What an .onnx file of a stranger may be: written by hand here, small, and with one fault each."""

import json
import os

import pytest
import torch

from sv_ssl.cli import export
from sv_ssl.core.errors import InputError
from sv_ssl.models import folder, onnx_file

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

FLOAT, INT64 = 1, 7
ABOUT = {
    "format": onnx_file.FORMAT,
    "dim": 4,
    "sample_rate": 16000,
    "features": {"name": "LogMel"},
    "encoder": {"name": "ECAPA"},
}


def end(name, shape, kind=FLOAT):
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def numbers(name, values, kind=INT64):
    return onnx.helper.make_tensor(name, kind, [len(values)], values)


def node(kind, inputs, output="embedding", **more):
    return onnx.helper.make_node(kind, inputs, [output], **more)


SIZES = [numbers("zero", [0]), numbers("four", [4]), numbers("one", [1])]
FIRST_FOUR = node("Slice", ["wave", "zero", "four", "one"])  # the embedding: the first four samples


def model(
    nodes=(FIRST_FOUR,), wave=end("wave", [1, "n"]), embedding=end("embedding", [1, 4]), constants=(), about=ABOUT
):
    ins, outs = ([value] if not isinstance(value, list) else value for value in (wave, embedding))
    graph = onnx.helper.make_graph(list(nodes), "g", ins, outs, [*SIZES, *constants])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
    if about is not None:
        made.metadata_props.add(key="sv_ssl", value=about if isinstance(about, str) else json.dumps(about))
    return made


def written(path, made):
    path.write_bytes(made.SerializeToString())
    return path


def test_one_without_a_fault_is_run(tmp_path):
    embedder = folder.load(written(tmp_path / "a.onnx", model()))
    wave = torch.arange(10.0)[None]
    assert torch.equal(embedder(wave), wave[:, :4]) and (embedder.dim, embedder.sample_rate) == (4, 16000)


def elsewhere():
    tensor = numbers("four", [4])
    tensor.ClearField("int64_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    made = model()
    made.graph.initializer[1].CopyFrom(tensor)
    return made


def in_a_constant():
    made = model([node("Constant", [], "far", value=numbers("x", [1.0], FLOAT)), FIRST_FOUR])
    made.graph.node[0].attribute[0].t.data_location = onnx.TensorProto.EXTERNAL
    return made


def loop():
    truth = numbers("go", [True], onnx.TensorProto.BOOL)
    body = onnx.helper.make_graph(
        [node("Identity", ["go"], "on")], "body", [end("i", [], INT64), end("go", [], 9)], [end("on", [], 9)]
    )
    return model([FIRST_FOUR, onnx.helper.make_node("Loop", ["", "always"], [], body=body)], constants=[truth])


def with_function():
    made = model()
    opset = [onnx.helper.make_opsetid("", 18)]
    made.functions.append(onnx.helper.make_function("own", "F", ["x"], ["y"], [node("Neg", ["x"], "y")], opset))
    return made


def sparse():
    made = model()
    made.graph.sparse_initializer.add().dims.extend([2**40])
    return made


def grown(kind, *inputs, **more):
    single = {"start": 0, "stop": 2**40, "step": 1}
    constants = [onnx.helper.make_tensor(name, INT64, [], [value]) for name, value in single.items()]
    constants.append(numbers("huge", [2**40]))
    return model([node(kind, inputs, "big", **more), FIRST_FOUR], constants=constants)


def computed():
    """A size that no inference of shapes knows, but that onnxruntime would compute while it loads the file."""
    nodes = [
        node("Pow", ["two", "power"], "float"),
        node("Cast", ["float"], "size", to=INT64),
        node("ConstantOfShape", ["size"], "big"),
        FIRST_FOUR,
    ]
    return model(nodes, constants=[numbers("power", [40.0], FLOAT), numbers("two", [2.0], FLOAT)])


def lying():
    """A tensor of a shape that its data do not fill."""
    made = model()
    made.graph.initializer[1].dims[0] = 2**40
    return made


@pytest.mark.parametrize(
    "made, reason",
    [
        (elsewhere, "the tensor 'four' is in another file"),
        (in_a_constant, "the tensor 'x' is in another file"),
        (loop, "it has control flow, 'Loop'"),
        (with_function, "it has a function of its own, 'F'"),
        (sparse, "it has a sparse tensor"),
        (lambda: model([FIRST_FOUR, node("Gelu", ["wave"], "x", domain="com.microsoft")]), "is of 'com.microsoft'"),
        (lambda: grown("ConstantOfShape", "huge"), "'ConstantOfShape' makes 1,099,511,627,776 values"),
        (lambda: grown("Expand", "wave", "huge"), "makes .* values of a second of audio"),
        (lambda: grown("Range", "start", "stop", "step"), "'Range' makes 1,099,511,627,776 values"),
        (computed, "'ConstantOfShape' makes an unknown number of values"),
        (lying, "is not|contradict"),
        (lambda: model(about=None), "not written by sv-export"),
        (lambda: model(about="[" * 100_000), "its metadata is damaged"),
        (lambda: model(about={**ABOUT, "format": "sv_ssl onnx 2"}), "not written by sv-export of this version"),
        (lambda: model(about={**ABOUT, "dim": "4"}), "in its metadata dim is '4': wanted a whole number"),
        (lambda: model(about={**ABOUT, "dim": 5}), r"its output is .*wanted a float32 'embedding' of shape \(1, 5\)"),
        (lambda: model(about={**ABOUT, "sample_rate": 1e400}), "sample_rate is inf"),
        (lambda: model(about={**ABOUT, "sample_rate": 0}), "sample_rate is 0"),
        (lambda: model(about={**ABOUT, "features": 3}), "do not describe its features"),
        (lambda: model(wave=end("wave", [1, 16000])), "its input is .*wanted a float32 'wave'"),
        (lambda: model(wave=end("wave", ["b", 4, "n"])), "its input is"),
        (lambda: model(wave=end("wave", [1, "n"], 11)), "its input is"),
        (lambda: model(wave=[end("wave", [1, "n"]), end("more", [1])]), "its input is"),
        (lambda: model(embedding=end("embedding", [1, "d"])), "its output is"),
        (lambda: model(embedding=end("embedding", [4])), "its output is"),
        (lambda: model([FIRST_FOUR, node("Slice", ["wave", "zero", "nowhere"], "x")]), "is not a whole ONNX model"),
    ],
)
def test_what_our_exporter_does_not_write_is_one_line(tmp_path, made, reason):
    path = written(tmp_path / "a.onnx", made())
    with pytest.raises(InputError, match=reason) as caught:
        folder.load(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_what_fails_or_is_of_another_shape_as_it_runs_is_one_line(tmp_path):
    embedder = folder.load(written(tmp_path / "a.onnx", model()))
    with pytest.raises(InputError, match=r"made an embedding of shape \(1, 3\), wanted \(1, 4\)"):
        embedder(torch.zeros(1, 3))
    split = model([node("Reshape", ["wave", "shape"])], constants=[numbers("shape", [1, 4])])
    with pytest.raises(InputError, match="a.onnx cannot embed 5 samples: ") as caught:
        folder.load(written(tmp_path / "a.onnx", split))(torch.zeros(1, 5))
    assert "\n" not in str(caught.value)


def test_a_fifo_is_one_line(tmp_path):
    os.mkfifo(tmp_path / "a.onnx")
    with pytest.raises(InputError, match="this is a FIFO"):
        folder.load(tmp_path / "a.onnx")


def test_what_is_exported_already_is_not_exported_again(tmp_path, capsys):
    path = written(tmp_path / "a.onnx", model())
    assert export.main([str(path), "--torchscript", str(tmp_path / "a.pt")]) == 2
    assert "a.onnx is a file that sv-export has written: name the model folder" in capsys.readouterr().err
    assert not (tmp_path / "a.pt").exists()
