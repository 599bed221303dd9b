"""Attention of a packed sequence: each segment sees its shared beginning and itself, causally, and nothing else.

Registered with transformers under NAME; the model hands the layout through as the keyword `segments`. On a CPU one
call of scaled_dot_product_attention per run of equal segments, on a GPU one call of torch's variable-length attention
over the whole sequence.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as nnf

from alpaca.errors import UserError
from alpaca.stages.train.packing import Layout, Run

NAME = "alpaca_segments"
VARLEN_DTYPES = (torch.float16, torch.bfloat16)
UNKNOWN = ("softcap", "s_aux", "head_mask", "position_bias")
"""What a model may ask of its attention that changes the result and is not done here."""
HEAD_MULTIPLE, LEAST_CAPABILITY = 8, (8, 0)
LARGEST_HEAD = 256
"""Width of a head that the variable-length kernels take."""


class UnpackableError(UserError):
    """A model asks for attention that the packed form does not have."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Segments:
    """A layout with what the variable-length kernel wants of it. Index tensors are on the sequence's device."""

    layout: Layout
    query_starts: torch.Tensor | None = None
    """int32 [segments + 1]: where each segment's queries begin; None on a CPU."""
    key_starts: torch.Tensor | None = None
    """int32 [segments + 1]: where the keys of each segment begin, shared beginning included."""
    gathered: torch.Tensor | None = None
    """int64 [keys]: the position in the sequence of each key; None where nothing is shared."""
    own: torch.Tensor | None = None
    """int64 [tokens]: where each position of the sequence stands among the keys of its own segment."""
    copies: tuple[torch.Tensor, ...] = ()
    """For each shared beginning int64 [copies * length]: where its copies stand among the keys."""


def register() -> None:
    """Makes NAME known to transformers."""
    from transformers import AttentionInterface

    # Never compiled: it follows the layout, which differs in every pass, and would be compiled anew for each.
    AttentionInterface.register(NAME, torch.compiler.disable(segment_attention))  # type: ignore[no-untyped-call]


def moved(values: Sequence[int] | Sequence[Sequence[int]], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Numbers as a tensor on the device, without waiting for what that is still computing."""
    tensor = torch.tensor(values, dtype=dtype)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def segments_of(layout: Layout, device: torch.device) -> Segments:
    """The layout, with index tensors where the device has a kernel that wants them."""
    return indexed(layout, device) if device.type == "cuda" else Segments(layout=layout)


def indexed(layout: Layout, device: torch.device) -> Segments:
    """Index tensors for the variable-length kernel: keys gathered as [beginning; own tokens] of each segment."""
    keys, own, copies = list[int](), list[int](), [list[int]() for _ in layout.prefixes]
    query_starts, key_starts, start = [0], [0], 0
    for length, prefix in _each(layout):
        if prefix is not None:
            first = sum(layout.prefixes[:prefix])
            copies[prefix] += range(len(keys), len(keys) + layout.prefixes[prefix])
            keys += range(first, first + layout.prefixes[prefix])
        own += range(len(keys), len(keys) + length)
        keys += range(start, start + length)
        start += length
        query_starts.append(start)
        key_starts.append(len(keys))
    starts = moved([query_starts, key_starts], torch.int32, device)
    return Segments(
        layout=layout,
        query_starts=starts[0],
        key_starts=starts[1],
        gathered=moved(keys, torch.long, device) if layout.prefixes else None,
        own=moved(own, torch.long, device) if layout.prefixes else None,
        copies=tuple(moved(each, torch.long, device) for each in copies),
    )


def _each(layout: Layout) -> list[tuple[int, int | None]]:
    """(length, index of its beginning) of every segment; the beginnings are segments themselves."""
    heads: list[tuple[int, int | None]] = [(length, None) for length in layout.prefixes]
    return heads + [(run.length, run.prefix) for run in layout.runs for _ in range(run.count)]


def segment_attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    segments: Segments | None = None,
    **asked: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface. Shapes: query [1, H, T, D], key and value [1, H_kv, T, D] -> [1, T, H, D].

    Raises UnpackableError where no layout came through, or the model asks for what is not there.
    """
    if segments is None:
        raise UnpackableError(what=f"{type(module).__name__} does not pass the layout on", where="train.batching")
    query, key, value = (_as_computed(each) for each in (query, key, value))
    _refuse(module, segments.layout, attention_mask, asked)
    if _has_kernel(query):
        return _on_gpu(query, key, value, segments, scaling), None
    return _by_runs(query, key, value, segments.layout, scaling), None


def _refuse(module: Any, layout: Layout, mask: torch.Tensor | None, asked: dict[str, Any]) -> None:
    window = asked.get("sliding_window") or layout.longest
    found = {
        **{name: asked.get(name) is not None for name in UNKNOWN},
        "dropout": bool(asked.get("dropout")),
        "a mask of its own": mask is not None,
        "other than causal attention": not getattr(module, "is_causal", True),
        f"a window of {window} tokens, shorter than {layout.longest}": window < layout.longest,
    }
    if problems := [name for name, there in found.items() if there]:
        raise UnpackableError(what=f"{type(module).__name__} has {', '.join(problems)}", where="train.batching")


def _has_kernel(query: torch.Tensor) -> bool:
    width = query.shape[-1]
    if not query.is_cuda or query.dtype not in VARLEN_DTYPES or width > LARGEST_HEAD or width % HEAD_MULTIPLE:
        return False
    return torch.cuda.get_device_capability(query.device) >= LEAST_CAPABILITY


def _as_computed(tensor: torch.Tensor) -> torch.Tensor:
    """In what autocast computes in: rotary positions leave queries and keys in fp32 beside values in bf16."""
    device = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else tensor


def _by_runs(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, scaling: float | None
) -> torch.Tensor:
    # Splitting once, instead of slicing in each run: the backward of a slice would fill a whole sequence with zeros.
    sizes = [*layout.prefixes, *(run.count * run.length for run in layout.runs)]
    queries, keys, values = (torch.split(tensor[0], sizes, dim=1) for tensor in (query, key, value))
    attend = functools.partial(
        nnf.scaled_dot_product_attention, scale=scaling, enable_gqa=query.shape[1] != key.shape[1]
    )
    heads = len(layout.prefixes)
    done = [
        _joined(attend(_rows(q, 1), _rows(k, 1), _rows(v, 1), is_causal=True))
        for q, k, v in zip(queries[:heads], keys[:heads], values[:heads], strict=True)
    ]
    for run, q, k, v in zip(layout.runs, queries[heads:], keys[heads:], values[heads:], strict=True):
        q, k, v = _rows(q, run.count), _rows(k, run.count), _rows(v, run.count)
        if run.prefix is None:
            done.append(_joined(attend(q, k, v, is_causal=True)))
        else:
            k, v = (_after(each[run.prefix], own, run) for each, own in ((keys, k), (values, v)))
            mask = _offset_causal(run, layout.before(run), query)
            done.append(_joined(attend(q, k, v, attn_mask=mask)))
    return torch.cat(done).unsqueeze(0)


def _rows(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """[H, count * n, D] -> [count, H, n, D], without a copy."""
    heads, tokens, width = tensor.shape
    return tensor.reshape(heads, count, tokens // count, width).transpose(0, 1)


def _joined(output: torch.Tensor) -> torch.Tensor:
    """[count, H, n, D] -> [count * n, H, D]."""
    return output.transpose(1, 2).flatten(0, 1)


def _after(beginning: torch.Tensor, own: torch.Tensor, run: Run) -> torch.Tensor:
    """Keys or values of a run's segments behind their shared beginning: [count, H, p + n, D]."""
    return torch.cat([beginning.unsqueeze(0).expand(run.count, -1, -1, -1), own], dim=2)


def _offset_causal(run: Run, before: int, like: torch.Tensor) -> torch.Tensor:
    """[n, p + n], added to the scores: each token sees the whole beginning, and its own segment up to itself."""
    rows = 1 << (run.length - 1).bit_length()
    return _largest_mask(rows, before, like.dtype, like.device)[: run.length, : before + run.length]


@functools.lru_cache(maxsize=64)
def _largest_mask(rows: int, before: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Masks of shorter segments are its upper left corners, so that few are kept."""
    return torch.full((rows, before + rows), -torch.inf, dtype=dtype, device=device).triu(before + 1)


def _on_gpu(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, segments: Segments, scaling: float | None
) -> torch.Tensor:
    keys, values = key[0].transpose(0, 1), value[0].transpose(0, 1)
    if segments.gathered is not None:
        keys, values = Gather.apply(keys, segments), Gather.apply(values, segments)  # type: ignore[no-untyped-call]
    layout = segments.layout
    longest_query = max([*layout.prefixes, *(run.length for run in layout.runs)])
    output = _varlen()(
        query[0].transpose(0, 1),
        keys,
        values,
        segments.query_starts,
        segments.key_starts,
        longest_query,
        layout.longest,
        scale=scaling,
        **_grouped(query.shape[1] != key.shape[1]),
    )
    attended: torch.Tensor = output.unsqueeze(0)
    return attended


@functools.cache
def _varlen() -> Any:
    """torch's variable-length attention, causal from the bottom right: the last query sees all keys."""
    from torch.nn.attention.varlen import varlen_attn

    windows = "window_size" in inspect.signature(varlen_attn).parameters  # torch 2.10 and 2.11 have is_causal instead
    causal: dict[str, Any] = {"window_size": (-1, 0)} if windows else {"is_causal": True}
    return functools.partial(varlen_attn, **causal)


def _grouped(grouped: bool) -> dict[str, bool]:
    return {"enable_gqa": True} if grouped else {}


class Gather(torch.autograd.Function):
    """Rows of [T, H, D] by `segments.gathered`: each segment's keys behind a copy of its beginning's.

    The backward of plain indexing would add a hundred copies' gradients into a beginning one by one, in bf16 and in any
    order; here each beginning's gradient is one sum in fp32, the same every time.
    """

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, segments: Segments) -> torch.Tensor:
        ctx.segments = segments
        return tensor.index_select(0, segments.gathered)  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        gradient, segments = gradients[0], ctx.segments
        result, start = gradient.index_select(0, segments.own), 0
        for length, places in zip(segments.layout.prefixes, segments.copies, strict=True):
            copies = gradient.index_select(0, places).reshape(-1, length, *gradient.shape[1:])
            wide = torch.promote_types(gradient.dtype, torch.float32)
            result[start : start + length] += copies.sum(0, dtype=wide).to(result.dtype)
            start += length
        return result, None
