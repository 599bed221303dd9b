"""What is wrong with a local folder of weights is told by the plan, all at once, before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alpaca import checks, sweep
from alpaca.config import HubModel, Run
from alpaca.errors import ConfigurationErrors

LAYERS, WIDTH, ROWS = 3, 8, 20
CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": LAYERS,
    "hidden_size": WIDTH,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "vocab_size": ROWS,
}


def write_safetensors(file: Path, shapes: dict[str, list[int]]) -> None:
    """A file of zeros in fp32: length of the header, header, numbers."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 4
        for count in shape:
            size *= count
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


def tensors(layers: int = LAYERS, rows: int = ROWS, embedding: str = "model.embed_tokens.weight") -> dict[str, Any]:
    each = {f"model.layers.{number}.mlp.up_proj.weight": [16, WIDTH] for number in range(layers)}
    return {embedding: [rows, WIDTH], **each}


def write_json(file: Path, found: object) -> None:
    file.write_text(json.dumps(found))


def tokenizer(tokens: int, added: int = 0) -> dict[str, Any]:
    vocabulary = {f"t{number}": number for number in range(tokens)}
    return {"model": {"vocab": vocabulary}, "added_tokens": [{"content": f"a{number}"} for number in range(added)]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound one."""
    path = tmp_path / "model"
    path.mkdir()
    write_json(path / "config.json", CONFIG)
    write_json(path / "tokenizer.json", tokenizer(ROWS - 1, added=1))
    write_safetensors(path / "model.safetensors", tensors())
    return path


def of(path: Path) -> Run:
    return sweep.expand(["model=llama7b", f"model.path={path}"], multirun=False).runs[0]


def problems(path: Path) -> list[str]:
    """The problems that the plan tells of this folder, each on its line."""
    try:
        of(path)
    except ConfigurationErrors as error:
        return [line.partition("model.path: ")[2] for line in str(error).splitlines() if "model.path: " in line]
    return []


def test_a_sound_folder_is_not_complained_of(folder: Path) -> None:
    model = of(folder).model
    assert isinstance(model, HubModel)
    assert model.path == str(folder)


def config_of(**changed: object) -> Callable[[Path], None]:
    return lambda path: write_json(path / "config.json", {**CONFIG, **changed})


def holds(**changed: Any) -> Callable[[Path], None]:
    return lambda path: write_safetensors(path / "model.safetensors", tensors(**changed))


def torn(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def pointer(path: Path) -> None:
    (path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def renamed(path: Path) -> None:
    (path / "model.safetensors").rename(path / "weights.safetensors")


def unigram(path: Path) -> None:
    vocabulary = [[f"t{number}", -1.0] for number in range(ROWS + 2)]
    write_json(path / "tokenizer.json", {"model": {"vocab": vocabulary}, "added_tokens": None})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: (path / "config.json").unlink(), "no config.json"),
        (lambda path: (path / "config.json").write_text("{"), "config.json is no JSON object"),
        (lambda path: (path / "config.json").write_text("[]"), "config.json is no JSON object"),
        (renamed, "no weights: none of model.safetensors, "),
        (torn, "model.safetensors is torn: "),
        (pointer, "model.safetensors is a pointer of git-lfs"),
        (lambda path: (path / "model.safetensors").write_bytes(b""), "it has no header"),
        (lambda path: (path / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"{]"), "it has no header"),
        (config_of(vocab_size=777), "config.json says 777 tokens, the weights hold 20"),
        (config_of(hidden_size=16), "config.json says a width of 16, the embedding in the weights has 8"),
        (config_of(num_hidden_layers=5), "config.json says 5 layers, the weights hold 3"),
        (config_of(num_hidden_layers=2), "config.json says 2 layers, the weights hold 3"),
        (holds(rows=30, embedding="transformer.wte.weight"), "config.json says 20 tokens, the weights hold 30"),
        (lambda path: (path / "tokenizer.json").unlink(), "no tokenizer: none of tokenizer.json"),
        (lambda path: (path / "tokenizer.json").write_text("{"), "tokenizer.json is no JSON object"),
        (lambda path: write_json(path / "tokenizer.json", tokenizer(ROWS, added=1)), "has 21 tokens, the weights"),
        (unigram, "tokenizer.json has 22 tokens, the weights embed 20"),
    ],
)  # fmt: skip
def test_each_fault_of_a_folder_is_told_by_itself(folder: Path, change: Callable[[Path], None], words: str) -> None:
    change(folder)
    (text,) = problems(folder)
    assert words in text
    assert text.endswith(f"({folder})")


def test_all_faults_are_told_together(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    assert [text.split(" (")[0].split(":")[0] for text in problems(folder)] == [
        "no config.json",
        "no weights",
        "no tokenizer",
    ]


def test_a_folder_that_is_mended_is_looked_at_again(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    torn(folder)
    assert len(problems(folder)) == 1
    (folder / "model.safetensors").write_bytes(whole)
    assert problems(folder) == []


@pytest.mark.parametrize(
    "change",
    [
        config_of(text_config=CONFIG, vocab_size=5, num_hidden_layers=None),
        config_of(hidden_size=16, word_embed_proj_dim=WIDTH),
        config_of(num_hidden_layers=2, num_nextn_predict_layers=1),
        config_of(num_hidden_layers=None, n_layer=LAYERS),
        lambda path: (path / "tokenizer.json").rename(path / "tokenizer.model"),
        lambda path: (path / "model.safetensors").rename(path / "pytorch_model.bin"),
    ],
)
def test_what_only_looks_wrong_is_allowed(folder: Path, change: Callable[[Path], None]) -> None:
    change(folder)
    assert problems(folder) == []


def test_layers_of_another_tower_are_not_those_of_the_decoder(folder: Path) -> None:
    tower = {f"vision_tower.encoder.layers.{number}.weight": [1, 1] for number in range(9)}
    write_safetensors(folder / "model.safetensors", {**tensors(), **tower})
    assert problems(folder) == []


def split(folder: Path) -> None:
    """The same weights in two files with an index."""
    (folder / "model.safetensors").unlink()
    places = {}
    for number, (name, shape) in enumerate(tensors().items()):
        places[name] = f"model-0000{1 + number % 2}-of-00002.safetensors"
        same = {each: tensors()[each] for each in places if places[each] == places[name]}
        write_safetensors(folder / places[name], {**same, name: shape})
    write_json(folder / "model.safetensors.index.json", {"weight_map": places})


def test_files_behind_an_index_are_read_together(folder: Path) -> None:
    split(folder)
    assert problems(folder) == []
    config_of(num_hidden_layers=4)(folder)
    assert [text.split(" (")[0] for text in problems(folder)] == ["config.json says 4 layers, the weights hold 3"]


def test_files_that_an_index_names_and_that_are_missing_are_told(folder: Path) -> None:
    split(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "names files that are not there: model-00002-of-00002.safetensors" in problems(folder)[0]
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "model.safetensors.index.json tells no files" in problems(folder)[0]


def test_a_folder_of_unknown_shape_is_not_forecast_as_the_hubs_model(folder: Path) -> None:
    config_of(num_experts=4)(folder)
    assert "GiB" not in "\n".join(problem.text() for problem in checks.machine_lacks(of(folder), {"train"}))


def test_a_path_that_is_none_is_told_once(tmp_path: Path) -> None:
    assert len(problems(tmp_path / "nowhere")) == 1
