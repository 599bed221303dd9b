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


def chat_template(opening: str, end: str) -> str:
    """The template (Jinja) by which transformers and servers write a chat: each user message becomes its `prompt`.

    opening: what comes before everything, such as the tokenizer's BOS; end: its end of sequence, which follows every
    assistant message. Any other role raises, since the model has seen none; an input is part of the instruction's text.
    """
    user = f"{PREAMBLE_WITHOUT_INPUT!r} + message['content'] + {RESPONSE_MARK!r}"
    return (
        f"{{{{ {opening!r} }}}}{{% for message in messages %}}"
        f"{{% if message['role'] == 'user' %}}{{{{ {user} }}}}"
        f"{{% elif message['role'] == 'assistant' %}}{{{{ message['content'] + {end!r} }}}}"
        "{% else %}{{ raise_exception('Alpaca models know no role ' + message['role']) }}"
        "{% endif %}{% endfor %}"
    )
