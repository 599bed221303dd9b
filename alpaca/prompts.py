"""Alpaca's two prompt templates, one function for training and inference.

The wording is the released recipe's (stanford_alpaca, train.py PROMPT_DICT); nothing follows "### Response:", so the
first output token directly continues the prompt (alpaca-lora's added newline is a different template).
"""

from __future__ import annotations

PREAMBLE_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
PREAMBLE_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n"
)
INPUT_MARK = "\n\n### Input:\n"
RESPONSE_MARK = "\n\n### Response:"


def prompt(instruction: str, input: str = "") -> str:
    """The text before the response, for an instruction with or without an input."""
    if input:
        return f"{PREAMBLE_WITH_INPUT}{instruction}{INPUT_MARK}{input}{RESPONSE_MARK}"
    return f"{PREAMBLE_WITHOUT_INPUT}{instruction}{RESPONSE_MARK}"
